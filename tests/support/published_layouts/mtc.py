"""MTC's a4 as its authors' scripts write it: two pickles, people in world axes and centimeters, views by camera."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from maskhand.catalog import DatasetSpec
from support.published_layouts.hands import Fixture, Truth, random_hand, write_large_image

SIZE = (1920, 1080)
CAMERAS = (0, 7, 30)
SEQUENCES = {"training": "171026_pose1", "testing": "171204_pose5"}
HANDS = (("left", "right"), ("right",), ("left", "right"), ())
"""Annotated hands of the persons, in turn."""


def write(
    folder: Path,
    spec: DatasetSpec,
    split: str,
    count: int,
    seed: int = 0,
    *,
    names: tuple[str, str] = ("annotation.pkl", "camera_data.pkl"),
    checks: bool = True,
) -> Fixture:
    """`count` people with three views each; a joint hidden, outside or overlapped takes a view out of the plan."""
    rng = np.random.default_rng(seed)
    cameras = {sequence: {camera: _camera(rng) for camera in CAMERAS} for sequence in SEQUENCES.values()}
    people: dict[str, list[dict[str, Any]]] = {"training_data": [], "testing_data": []}
    truths: dict[str, Truth] = {}
    owners: list[tuple[int, str]] = []
    verdicts: list[str] = []
    sequence = SEQUENCES[split]
    for k in range(count + 1):
        frame = f"{4500 + k:08d}"
        person: dict[str, Any] = {
            "seqName": sequence,
            "frame_str": frame,
            "id": k % 2,
            "body": {"landmarks": [0.0] * 57},
        }
        for camera in CAMERAS:
            path = folder / "hdImgs" / sequence / frame / f"00_{camera:02d}_{frame}.jpg"
            write_large_image(path, camera + k, SIZE)
        for side in ("right", "left"):
            # The last person is there for a hand that the authors marked as wrong.
            if side not in (HANDS[k % len(HANDS)] if k < count else ("left",)):
                continue
            hand = random_hand(rng, side, rng.uniform(-0.1, 0.1, 3))
            views = {camera: _seen() for camera in CAMERAS}
            if k == 0 and side == "right":
                views[CAMERAS[0]]["occluded"][5] = 1
            if k == 1:
                views[CAMERAS[1]]["overlap"] = True
            if k == 2 and side == "left":
                views[CAMERAS[2]]["insideImg"][20] = False
            person[f"{side}_hand"] = {"landmarks": (hand.joints_m * 100).ravel().tolist(), "2D": views}
            verdicts.append(f"{sequence} {frame} {side[:4]} {k < count}")
            for camera, seen in views.items():
                if (k == count and checks) or any(seen["occluded"]) or seen["overlap"] or not all(seen["insideImg"]):
                    continue
                path = folder / "hdImgs" / sequence / frame / f"00_{camera:02d}_{frame}.jpg"
                key = f"{split}-{sequence}_{frame}_{camera:02d}_{k % 2}-{side[0]}"
                truths[key] = _truth(side, hand.joints_m, cameras[sequence][camera], path, (k, side))
                owners.append((k, f"{side}_hand"))
        people[f"{split}_data"].append(person)
    folder.mkdir(parents=True, exist_ok=True)
    labels = folder / names[0]
    labels.write_bytes(pickle.dumps(people, protocol=3))
    (folder / names[1]).write_bytes(pickle.dumps(cameras, protocol=3))
    if checks:
        (folder / "a4_hands_annotated.txt").write_text("\n".join(verdicts) + "\n")

    def damage_joints(position: int, value: Any) -> None:
        k, hand = owners[position]
        edit(labels, lambda data: data[f"{split}_data"][k][hand].__setitem__("landmarks", _flat(value)))

    return Fixture(folder, truths, labels, damage_joints, other_splits=frozenset(SEQUENCES))


def edit(path: Path, change: Any) -> None:
    value = pickle.loads(path.read_bytes())
    change(value)
    path.write_bytes(pickle.dumps(value, protocol=3))


def _flat(value: Any) -> Any:
    return None if value is None else [number for row in value[:21] for number in row]


def _seen() -> dict[str, Any]:
    return {"insideImg": [True] * 21, "occluded": [0] * 21, "overlap": False}


def _camera(rng: np.random.Generator) -> dict[str, Any]:
    """X_cam = R X + t in centimeters; the lens bends as much as those of the studio."""
    K = np.array([[rng.uniform(1380, 1410), 0, 950.0], [0, rng.uniform(1380, 1410), 555.0], [0, 0, 1]])
    t = np.array([rng.uniform(-110, 110), rng.uniform(-55, 55), rng.uniform(240, 290)])[:, None]
    lens = np.array([-0.28, 0.18, rng.uniform(-1e-3, 1e-3), rng.uniform(-1e-3, 1e-3), 0.05])
    return {"K": K, "R": Rotation.random(rng=rng).as_matrix(), "t": t, "distCoef": lens, "resolution": [1920, 1080]}


def _truth(side: str, joints_m: np.ndarray, camera: dict[str, Any], path: Path, label: Any) -> Truth:
    joints_cam_m = (camera["R"] @ (joints_m.T * 100) + camera["t"]).T / 100
    points, _ = cv2.projectPoints(joints_cam_m, np.zeros(3), np.zeros(3), camera["K"], camera["distCoef"])
    return Truth(side, None, joints_cam_m, np.ones(21, bool), None, path, joints_px=points[:, 0], label=label)
