"""FreiHAND v2 as published: lists of unique annotations, several images for each in training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec
from support.published_layouts.hands import Fixture, Truth, edit_json, model, random_hand, write_image

SIZE = (224, 224)
TIPS = {"thumb": 744, "index": 320, "middle": 443, "ring": 555, "little": 672}
"""utils/mano_utils.py of the repository."""


def write(
    folder: Path,
    spec: DatasetSpec,
    split: str,
    count: int,
    seed: int = 0,
    *,
    labels: str = "beside",
    nested: bool = False,
) -> Fixture:
    """`count` unique annotations; their labels lie `beside` K, in the `separate` release, or nowhere (`none`)."""
    rng = np.random.default_rng(seed)
    root = folder / "FreiHAND_pub_v2" if nested else folder
    images = spec.images_per_annotation.get(split, 1)
    mean = model("right").hands_mean_aa
    lists: dict[str, list[Any]] = {name: [] for name in ("K", "xyz", "verts", "mano", "scale")}
    truths: dict[str, Truth] = {}
    hands = []
    for _ in range(count):
        hand = random_hand(rng, "right", np.array([*rng.uniform(-0.05, 0.05, 2), rng.uniform(0.6, 0.9)]))
        focal = rng.uniform(380, 600)
        K = np.array([[focal, 0, 112.36], [0, focal, 112.36], [0, 0, 1]])
        xyz = np.stack(list(hand.named(TIPS).values()))
        # utils/model.py: xyz_root = [(u - cx), (v - cy), f] / scale is where joint 9 (middle MCP) sits.
        root_xyz = hand.named()["middle_0"]
        scale = focal / root_xyz[2]
        uv = root_xyz[:2] * scale + 112.36
        stored = np.concatenate([hand.global_aa, (hand.fingers_aa - mean).ravel(), hand.betas, uv, [scale]])
        lists["K"].append(K.tolist())
        lists["xyz"].append(xyz.tolist())
        lists["verts"].append(hand.vertices_m.tolist())
        lists["mano"].append([stored.tolist()])
        lists["scale"].append(float(np.linalg.norm(xyz[9] - xyz[10])))
        hands.append((hand, K, xyz))
    for position in range(count * images):
        path = root / split / "rgb" / f"{position:08d}.jpg"
        write_image(path, rng, SIZE)
        hand, K, xyz = hands[position % count]
        truths[f"{split}-{position:08d}"] = Truth("right", K, xyz, np.ones(21, bool), hand.vertices_m, path)
    label_folder = folder / "FreiHAND_pub_v2_eval" if labels == "separate" else root
    label_folder.mkdir(parents=True, exist_ok=True)
    for name, values in lists.items():
        home = root if name in ("K", "scale") else label_folder
        if labels != "none" or name in ("K", "scale"):
            (home / f"{split}_{name}.json").write_text(json.dumps(values))
    joints_file = label_folder / f"{split}_xyz.json"

    def damage_joints(position: int, value: Any) -> None:
        edit_json(joints_file, lambda entries: entries.__setitem__(position % count, value))

    return Fixture(folder, truths, joints_file, damage_joints)
