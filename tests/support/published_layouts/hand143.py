"""hand143_panopticdb of CMU HandDB as published: a list `root` with an entry per image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec
from support.published_layouts.hands import Fixture, Truth, edit_json, seen_hand, write_large_image

SIZE = (1920, 1080)


def write(folder: Path, spec: DatasetSpec, split: str, count: int, seed: int = 0, *, above: str = "") -> Fixture:
    """Two times `count` images; joint 7 of the first and joint 3 of the last are not annotated."""
    rng = np.random.default_rng(seed)
    home = folder / above
    entries: list[dict[str, Any]] = []
    truths: dict[str, Truth] = {}
    for k in range(2 * count):
        path = home / "imgs" / f"{k:08d}.jpg"
        write_large_image(path, k, SIZE)
        points, flags = seen_hand(rng, "right", SIZE), np.ones(21)
        if k == 0:
            flags[7] = 0
        if k == 2 * count - 1:
            flags[3] = 2
        entries.append(
            {
                "dataset": "hands_v143",
                "img_paths": f"hand143_panopticdb/imgs/{k:08d}.jpg",
                "img_width": SIZE[0],
                "img_height": SIZE[1],
                "objpos": points.mean(0).tolist(),
                "joint_self": np.column_stack([points, flags]).tolist(),
                "scale_provided": float(np.ptp(points, axis=0).max() / 368),
            }
        )
        truths[f"{split}-{k:08d}"] = Truth(
            "right", None, None, flags == 1, None, path, joints_px=points, label=k, origin={"index": k}
        )
    file = home / "hands_v143_14817.json"
    file.write_text(json.dumps({"root": entries}))

    def damage_joints(position: int, value: Any) -> None:
        edit_json(file, lambda all_: all_["root"][position].__setitem__("joint_self", value))

    return Fixture(folder, truths, file, damage_joints)
