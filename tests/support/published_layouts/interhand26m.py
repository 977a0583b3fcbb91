"""InterHand2.6M as published: world coordinates in millimeters, one camera file, one image list per split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from maskhand.catalog import DatasetSpec
from support.published_layouts.hands import Fixture, PosedHand, Truth, edit_json, model, random_hand, write_image

SIZE = (334, 512)
_FINGERS = ("thumb", "index", "middle", "ring", "little")
SKELETON = [f"{finger}_{k}" for finger in _FINGERS for k in (3, 2, 1, 0)] + ["wrist"]
"""annotations/skeleton.txt, one hand: r_thumb4 ... r_thumb1, r_index4 ..., wrist last."""
HAND_TYPES = ("interacting", "right", "left")


def write(folder: Path, spec: DatasetSpec, split: str, count: int, seed: int = 0, *, flat: bool = False) -> Fixture:
    """`count` images that take turns in HAND_TYPES; the tip of the right thumb of image 0 is not annotated.

    A last one shows both hands, of a left hand without its wrist, in a frame for which there are no fits.
    """
    rng = np.random.default_rng(seed)
    truths: dict[str, Truth] = {}
    rejects: dict[str, str] = {}
    data: dict[str, list[Any]] = {"images": [], "annotations": []}
    cameras: dict[str, Any] = {}
    joints: dict[str, Any] = {}
    mano: dict[str, Any] = {}
    frames: list[tuple[str, str, int]] = []
    for k in range(count + 1):
        capture, camera, frame, image_id = str(k % 2), f"4000{k:02d}", str(1000 + k), 50 + 7 * k
        rotation = Rotation.random(rng=rng).as_matrix()
        # X_cam = R (X_world - campos): place the camera a meter from the hands, looking at them.
        center = rng.uniform(-0.2, 0.2, 3) + np.array([0, 0, 1.0])
        campos = center - rotation.T @ np.array([0, 0, 1.1])
        focal, princpt = rng.uniform(1200, 1300, 2), np.array([SIZE[0] / 2 + 3, SIZE[1] / 2 - 5])
        K = np.array([[focal[0], 0, princpt[0]], [0, focal[1], princpt[1]], [0, 0, 1]])
        kind = HAND_TYPES[k % 3] if k < count else "interacting"
        sides = ("right", "left") if kind == "interacting" else (kind,)
        hands = {side: random_hand(rng, side, center + rng.uniform(-0.02, 0.02, 3)) for side in sides}
        valid = {side: np.ones(21, bool) for side in sides}
        if k == 0:
            valid["right"][SKELETON.index("thumb_3")] = False
        if k == count:
            valid["left"][SKELETON.index("wrist")] = False
        world, flags = _both_hands(hands, valid)
        name = f"image{frame}.jpg" if flat else f"Capture{capture}/0001_pose/cam{camera}/image{frame}.jpg"
        path = folder / name if flat else folder / "images" / split / name
        write_image(path, rng, SIZE)
        data["images"].append(
            {"id": image_id, "file_name": name, "width": SIZE[0], "height": SIZE[1], "capture": int(capture)}
            | {"subject": 1, "seq_name": "0001_pose", "camera": camera, "frame_idx": int(frame)}
        )
        data["annotations"].append(
            {"id": image_id, "image_id": image_id, "bbox": [10.0, 10.0, 200.0, 200.0], "joint_valid": flags}
            | {"hand_type": kind, "hand_type_valid": 1}
        )
        views = cameras.setdefault(capture, {"campos": {}, "camrot": {}, "focal": {}, "princpt": {}})
        views["campos"][camera], views["camrot"][camera] = (campos * 1000).tolist(), rotation.tolist()
        views["focal"][camera], views["princpt"][camera] = focal.tolist(), princpt.tolist()
        joints.setdefault(capture, {})[frame] = {"world_coord": world, "joint_valid": flags, "hand_type": kind}
        joints[capture][frame]["hand_type_valid"] = 1
        fits = {side: _fit(hands[side]) if side in hands else None for side in ("right", "left")}
        mano.setdefault(capture, {}).update({frame: fits} if k < count else {})
        for side, hand in hands.items():
            named_valid = dict(zip(SKELETON, valid[side], strict=True))
            key = f"{split}-{image_id:08d}-{side[0]}"
            if not named_valid["wrist"]:
                rejects[key] = "wrist_not_annotated"
                continue
            truths[key] = Truth(
                side,
                K,
                (hand.joints_m - campos) @ rotation.T,
                np.array([named_valid[name] for name in hand.named()]),
                (hand.vertices_m - campos) @ rotation.T,
                path,
                mano=k < count,
            )
            frames.append((capture, frame, 0 if side == "right" else 21))
    labels = folder if flat else folder / "annotations" / split
    prefix = f"{split}_interhand2.6m" if flat else f"InterHand2.6M_{split}"
    labels.mkdir(parents=True, exist_ok=True)
    for kind, values in {"data": data, "camera": cameras, "joint_3d": joints, "MANO_NeuralAnnot": mano}.items():
        (labels / f"{prefix}_{kind}.json").write_text(json.dumps(values))
    joints_file = labels / f"{prefix}_joint_3d.json"

    def damage_joints(position: int, value: Any) -> None:
        capture, frame, _ = frames[position]
        edit_json(joints_file, lambda all_: all_[capture][frame].__setitem__("world_coord", value))

    return Fixture(folder, truths, joints_file, damage_joints, rejects)


def _both_hands(hands: dict[str, PosedHand], valid: dict[str, np.ndarray]) -> tuple[list, list]:
    """(42, 3) millimeters and (42, 1) flags; what is not annotated is (1, 1, 1)."""
    world, flags = np.ones((42, 3)), np.zeros((42, 1), int)
    for side, hand in hands.items():
        first = 0 if side == "right" else 21
        named = hand.named()
        for k, name in enumerate(SKELETON):
            if valid[side][k]:
                world[first + k], flags[first + k] = named[name] * 1000, 1
    return world.tolist(), flags.tolist()


def _fit(hand: PosedHand) -> dict[str, list[float]]:
    """World coordinates, fingers relative to the mean pose of the hand's own model, translation in meters."""
    stored = np.concatenate([hand.global_aa, (hand.fingers_aa - model(hand.side).hands_mean_aa).ravel()])
    return {"pose": stored.tolist(), "shape": hand.betas.tolist(), "trans": hand.transl_m.tolist()}
