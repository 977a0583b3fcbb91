"""HInt as published: an image and a JSON file per hand; only the name tells the side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec
from support.published_layouts.hands import Fixture, Truth, edit_json, seen_hand, write_image

SIZE = (456, 256)
SIDES = ("left", "right")


def write(folder: Path, spec: DatasetSpec, split: str, count: int, seed: int = 0, *, above: str = "") -> Fixture:
    """`count` frames with both hands, a copy of the frame for each; joints are missing and hidden at random."""
    rng = np.random.default_rng(seed)
    home = folder / above / split
    truths: dict[str, Truth] = {}
    labels: list[Path] = []
    for k in range(count):
        frame = f"9d5b145f-{k:02d}_clip_{k}_{300 + k}_pre_45"
        write_image(home / f"{frame}_{SIDES[0][0]}.jpg", rng, SIZE)
        shutil.copy(home / f"{frame}_{SIDES[0][0]}.jpg", home / f"{frame}_{SIDES[1][0]}.jpg")
        for side in SIDES:
            name = f"{frame}_{side[0]}"
            points = seen_hand(rng, side, SIZE)
            existence, occlusion = rng.integers(0, 2, 21), rng.integers(0, 2, 21)
            existence[:4] = 1
            # A joint that is not annotated has any place.
            stored = np.where(existence[:, None] > 0, points, -1.0)
            kept = points[existence > 0]
            margin = 0.12 * np.ptp(kept, axis=0)
            box = [*(kept.min(0) - margin), *(kept.max(0) + margin)]
            hand = {"bbox": [box], "keypoints": stored.tolist()}
            hand |= {"occlusion": occlusion.tolist(), "existence": existence.tolist()}
            labels.append(home / f"{name}.json")
            labels[-1].write_text(json.dumps([hand]))
            truths[f"{split}-{name}"] = Truth(
                side,
                None,
                None,
                existence > 0,
                None,
                home / f"{name}.jpg",
                joints_px=points,
                occluded=(existence > 0) & (occlusion > 0),
                label=name,
                origin={"name": name, "box_xyxy_px": box},
            )

    def damage_joints(position: int, value: Any) -> None:
        points = None if value is None else [row[:2] for row in value[:21]]
        edit_json(labels[position], lambda hands: hands[0].__setitem__("keypoints", points))

    return Fixture(folder, truths, labels[-1], damage_joints, file_per_sample=True)
