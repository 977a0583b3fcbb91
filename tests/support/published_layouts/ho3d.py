"""HO-3D v2 and v3, and H2O-3D, as published: lists of frames, an image and a Python 2 pickle for each."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec
from support.published_layouts import python2_pickle
from support.published_layouts.hands import Fixture, PosedHand, Truth, pose_hand, write_large_image

SIZE = (640, 480)
TIPS = {"thumb": 744, "index": 333, "middle": 444, "ring": 555, "little": 672}
_FINGERS = ("index", "middle", "little", "ring", "thumb")
STORED = ["wrist"] + [f"{f}_{k}" for f in _FINGERS for k in range(3)]
STORED += [f"{f}_3" for f in ("thumb", "index", "middle", "ring", "little")]
"""joint_order.png of the repository: MANO's joints, then the tips."""
FLIP = np.diag([1.0, -1.0, -1.0])
LEFT_SIGNS = (1, -1, -1)
"""The official left model has a wrong x; the official tool then negates everything."""


def write(folder: Path, spec: DatasetSpec, split: str, count: int, seed: int = 0, *, released: bool = False) -> Fixture:
    """`count` listed frames, each followed by an unlisted one with an empty label. `released`: evaluation truth."""
    rng = np.random.default_rng(seed)
    two = spec.name == "h2o3d"
    suffix = "png" if spec.name == "ho3d_v2" else "jpg"
    truths: dict[str, Truth] = {}
    labels: list[tuple[Path, str]] = []
    lines, xyz, verts = [], [], []
    for k in range(count):
        sequence, frame = ("MC1", "ABF10")[k % 2], f"{10 * k:04d}"
        lines.append(f"{sequence}/{frame}")
        home = folder / split / sequence
        image, label_path = home / "rgb" / f"{frame}.{suffix}", home / "meta" / f"{frame}.pkl"
        write_large_image(image, k, SIZE)
        K = np.array([[rng.uniform(600, 620), 0, 312.4], [0, rng.uniform(600, 620), 241.4], [0, 0, 1]])
        label: dict[str, Any] = {"camMat": K, "camIDList": ["0", "1"], "objName": "021_bleach_cleanser", "objLabel": 12}
        label |= {"objRot": rng.normal(0, 1, (3, 1)), "objTrans": rng.normal(0, 0.1, 3)}
        label |= {"objCorners3D": rng.normal(0, 0.1, (8, 3)), "objCorners3DRest": rng.normal(0, 0.1, (8, 3))}
        betas = rng.normal(0, 0.7, 10)
        for side in ("right", "left") if two else ("right",):
            hand = _hand(rng, side, betas)
            prefix = f"{side}Hand" if two else "hand"
            fields, truth = _annotate(hand, K, split, prefix, released)
            label |= fields | {"handBeta": betas} if split == "train" else fields
            label |= _contacts() if (spec.name, split) == ("ho3d_v3", "train") else {}
            key = f"{split}-{sequence}-{frame}" + (f"-{side[0]}" if two else "")
            truths[key] = Truth(side, K, *truth[:3], image, box_xyxy_px=truth[3], mano=side == "right")
            labels.append((label_path, f"{prefix}Joints3D"))
            xyz.append(np.stack([hand.named(TIPS)[name] for name in STORED]).tolist())
            verts.append(hand.vertices_m.tolist())
        label_path.parent.mkdir(parents=True, exist_ok=True)
        label_path.write_bytes(python2_pickle.dumps(label))
        empty = dict.fromkeys(label) | {"camMat": K}
        (home / "meta" / f"{10 * k + 1:04d}.pkl").write_bytes(python2_pickle.dumps(empty))
        write_large_image(home / "rgb" / f"{10 * k + 1:04d}.{suffix}", k, SIZE)
    (folder / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))
    if released:
        (folder / "evaluation_xyz.json").write_text(json.dumps(xyz))
        (folder / "evaluation_verts.json").write_text(json.dumps(verts))

    def damage_joints(position: int, value: Any) -> None:
        path, name = labels[position]
        edit_label(path, {name: np.array(value, float)[:21]})

    return Fixture(folder, truths, labels[-1][0], damage_joints, file_per_sample=True)


def edit_label(path: Path, changes: dict[str, Any], remove: tuple[str, ...] = ()) -> None:
    label = pickle.loads(path.read_bytes(), encoding="latin1") | changes
    path.write_bytes(python2_pickle.dumps({name: value for name, value in label.items() if name not in remove}))


def _hand(rng: np.random.Generator, side: str, betas: np.ndarray) -> PosedHand:
    """Before an OpenGL camera: at negative z."""
    place = np.array([*rng.uniform(-0.1, 0.1, 2), -rng.uniform(0.5, 0.8)])
    signs = LEFT_SIGNS if side == "left" else (1, 1, 1)
    return pose_hand(side, rng.normal(0, 1, 3), rng.normal(0, 0.3, 45), betas, place, signs)


def _contacts() -> dict[str, np.ndarray]:
    """Additional fields of version 3, per vertex of the hand."""
    fields: dict[str, np.ndarray] = {"handVertContact": np.zeros(778, bool), "handVertDist": np.ones(778)}
    return fields | {"handVertIntersec": np.zeros(778, bool), "handVertObjSurfProj": np.zeros((778, 3))}


def _annotate(hand: PosedHand, K: np.ndarray, split: str, prefix: str, released: bool) -> tuple[dict, tuple]:
    """Stored fields of one hand; and its joints, known joints, mesh and box, as a reader must find them."""
    named = hand.named(TIPS)
    joints = np.stack(list(named.values())) @ FLIP
    if split == "train":
        fields = {
            f"{prefix}Joints3D": np.stack([named[name] for name in STORED]),
            f"{prefix}Pose": np.concatenate([hand.global_aa, hand.fingers_aa.ravel()]),
            f"{prefix}Trans": hand.transl_m,
        }
        return fields, (joints, np.ones(21, bool), hand.vertices_m @ FLIP, None)
    uvw = joints @ K.T
    pixels = uvw[:, :2] / uvw[:, 2:]
    box = np.rint([*pixels.min(0) - 10, *pixels.max(0) + 10])
    fields = {f"{prefix}Joints3D": named["wrist"], f"{prefix}BoundingBox": box.astype(int).tolist()}
    return fields, (joints, np.arange(21) <= (20 if released else 0), hand.vertices_m @ FLIP, box)
