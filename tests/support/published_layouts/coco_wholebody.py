"""COCO-WholeBody as published: boxes, flags and 63 numbers for each hand of each person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec
from support.published_layouts.coco import SIDES, Person, write_persons
from support.published_layouts.hands import Fixture, edit_json


def write(folder: Path, spec: DatasetSpec, split: str, count: int, seed: int = 0) -> Fixture:
    file = folder / "annotations" / f"coco_wholebody_{split}_v1.0.json"
    rng = np.random.default_rng(seed)
    truths = write_persons(
        file,
        folder / f"{split}2017",
        lambda image_id: f"{image_id:012d}.jpg",
        split,
        count,
        rng,
        _fields,
        (0.0, 0.04, 0.7, 1.0, 2.0),
    )
    keys = list(truths)

    def damage_joints(position: int, value: Any) -> None:
        annotation_id, side = truths[keys[position]].label
        flat = None if value is None else [number for row in value[:21] for number in row]

        def change(data: dict) -> None:
            person = next(a for a in data["annotations"] if a["id"] == annotation_id)
            person[f"{side}hand_kpts"] = flat

        edit_json(file, change)

    return Fixture(folder, truths, file, damage_joints)


def _fields(person: Person) -> dict[str, Any]:
    fields: dict[str, Any] = {"keypoints": [0] * 51, "num_keypoints": 0, "face_valid": False, "face_kpts": [0.0] * 204}
    for side in SIDES:
        if side in person.points:
            points = person.points[side]
            low, high = points.min(0), points.max(0)
            hand = {"box": [*low, *(high - low)], "valid": True}
            hand["kpts"] = np.column_stack([points, person.visibility[side]]).ravel().tolist()
        else:
            hand = {"box": [0.0] * 4, "valid": False, "kpts": [0.0] * 63}
        fields |= {f"{side}hand_{name}": value for name, value in hand.items()}
    return fields
