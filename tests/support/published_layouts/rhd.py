"""RHD v2 as published: a pickle of 42 joints per image, the left hand's first, with visibility."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec
from support.published_layouts import python2_pickle
from support.published_layouts.hands import Fixture, Truth, random_hand, write_large_image

SIZE = (320, 320)
STORED = ["wrist"] + [
    f"{finger}_{k}" for finger in ("thumb", "index", "middle", "ring", "little") for k in (3, 2, 1, 0)
]
"""README: wrist, then thumb 4, 3, 2, 1 and so on; 4 is the tip."""
SIDES = ("left", "right")


def write(folder: Path, spec: DatasetSpec, split: str, count: int, seed: int = 0) -> Fixture:
    """`count` images; of the first left hand two joints are hidden, of every other one and the last one all."""
    rng = np.random.default_rng(seed)
    truths: dict[str, Truth] = {}
    rejects: dict[str, str] = {}
    hands: list[tuple[int, str]] = []
    annotations: dict[int, dict[str, np.ndarray]] = {}
    for k in range(count):
        image = folder / split / "color" / f"{k:05d}.png"
        write_large_image(image, k, SIZE)
        K = np.array([[rng.uniform(280, 320), 0, 160.0], [0, rng.uniform(280, 320), 160.0], [0, 0, 1]])
        xyz, uv_vis = [], []
        for side in SIDES:
            hand = random_hand(rng, side, np.array([*rng.uniform(-0.1, 0.1, 2), rng.uniform(0.5, 0.9)]))
            seen = {name: 1.0 for name in STORED}
            if side == "left":
                hidden = STORED if k % 2 or k == count - 1 else ["thumb_3", "ring_2"]
                seen |= dict.fromkeys(hidden, 0.0)
            named = hand.named()
            points = np.stack([named[name] for name in STORED])
            uvw = points @ K.T
            xyz.append(points)
            uv_vis.append(np.column_stack([uvw[:, :2] / uvw[:, 2:], [seen[name] for name in STORED]]))
            key = f"{split}-{k:05d}-{side[0]}"
            if any(seen.values()):
                visible = np.array([seen[name] for name in named])
                whole = np.ones(21, bool)
                truths[key] = Truth(side, K, hand.joints_m, whole, hand.vertices_m, image, visible)
                hands.append((k, side))
            else:
                rejects[key] = "not_visible"
        annotations[k] = {"xyz": np.concatenate(xyz), "uv_vis": np.concatenate(uv_vis), "K": K}
    path = folder / split / f"anno_{split}.pickle"
    path.write_bytes(python2_pickle.dumps(annotations))

    def damage_joints(position: int, value: Any) -> None:
        k, side = hands[position]
        changed = np.array(value, float)
        if changed.shape[1] == 3:
            first = 21 * SIDES.index(side)
            changed = np.concatenate([annotations[k]["xyz"][:first], changed[:21], annotations[k]["xyz"][first + 21 :]])
        edit_label(path, k, {"xyz": changed})

    return Fixture(folder, truths, path, damage_joints, rejects)


def edit_label(path: Path, image_id: int, changes: dict[str, Any], remove: tuple[str, ...] = ()) -> None:
    annotations = pickle.loads(path.read_bytes(), encoding="latin1")
    changed = annotations[image_id] | changes
    annotations[image_id] = {name: value for name, value in changed.items() if name not in remove}
    path.write_bytes(python2_pickle.dumps(annotations))
