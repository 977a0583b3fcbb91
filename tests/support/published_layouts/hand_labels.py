"""hand_labels and hand_labels_synth of CMU HandDB as published: the full image and a JSON file per hand."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec
from support.published_layouts.hands import Fixture, Truth, edit_json, seen_hand, write_image

SIDES = ("left", "right")


def write(folder: Path, spec: DatasetSpec, split: str, count: int, seed: int = 0, *, above: str = "") -> Fixture:
    """`count` images with both hands: MPII's and NZSL's names in turn, plain numbers in the synthetic parts."""
    rng = np.random.default_rng(seed)
    home = folder / above / split
    written: dict[str, tuple[str, Truth]] = {}
    for k in range(count):
        first: Path | None = None
        for side in SIDES:
            nzsl = k % 2 == 1 and not split.startswith("synth")
            size = (400, 300) if nzsl else (1280, 720)
            if split.startswith("synth"):
                size, name = (368, 368), f"{2 * k + SIDES.index(side) + 1:04d}"
            elif nzsl:
                name = f"Fun_{k}.flv_000{k:03d}_{side[0]}"
            else:
                name = f"{15774148 + k:09d}_01_{side[0]}"
            path = home / f"{name}.jpg"
            # The image is repeated for each of its hands; the synthetic ones show one hand each.
            if first is None or split.startswith("synth"):
                write_image(path, rng, size)
            else:
                shutil.copy(first, path)
            first = path
            points = seen_hand(rng, side, size)
            flags = np.ones(21)
            flags[rng.integers(1, 21, 3)] = [0, 0, 0.5]
            center = (points.min(0) + points.max(0)) / 2
            fields: dict[str, Any] = {
                "hand_pts": np.column_stack([points, flags]).tolist(),
                "hand_box_center": center.tolist(),
                "is_left": [0.0, False, 0, 1.0, True, 1][3 * (side == "left") + k % 3],
            }
            origin: dict[str, Any] = {"name": name, "hand_box_center": center.tolist()}
            if not nzsl and not split.startswith("synth"):
                origin |= {"mpii_image": f"{k:09d}.jpg", "mpii_annorect_idx": k}
                fields |= {"mpii_body_pts": [[0.0, 0.0, 0.0]] * 16, "head_box": [[1, 2], [3, 4]]}
                fields |= {"mpii_image": f"{k:09d}.jpg", "mpii_annorect_idx": k}
            (home / f"{name}.json").write_text(json.dumps(fields))
            truth = Truth(side, None, None, flags == 1, None, path, joints_px=points, label=name, origin=origin)
            written[name] = (_key(split, name), truth)
    ordered = sorted(written)

    def damage_joints(position: int, value: Any) -> None:
        points = None if value is None else value[:21]
        edit_json(home / f"{ordered[position]}.json", lambda fields: fields.__setitem__("hand_pts", points))

    truths = dict(written[name] for name in ordered)
    return Fixture(folder, truths, home / f"{ordered[-1]}.json", damage_joints, file_per_sample=True)


def _key(split: str, name: str) -> str:
    """A dot may not be part of a key."""
    if "." not in name:
        return f"{split}-{name}"
    return f"{split}-{name.replace('.', '-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
