"""Halpe-FullBody as published: 136 keypoints per person, both hands at the end; some annotations have no such list."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec
from support.published_layouts.coco import Person, write_persons
from support.published_layouts.hands import Fixture, edit_json

FIRST = {"left": 94, "right": 115}
UNUSABLE: tuple[dict[str, Any], ...] = ({"keypoints": []}, {"keypoints": None}, {})


def write(folder: Path, spec: DatasetSpec, split: str, count: int, seed: int = 0) -> Fixture:
    file = folder / f"halpe_{split}_v1.json"
    rng = np.random.default_rng(seed)
    names = {"train": "HICO_train2015_{:08d}.jpg", "val": "{:012d}.jpg"}
    folders = {"train": "train2015", "val": "val2017"}
    truths = write_persons(
        file,
        folder / "images" / folders[split],
        names[split].format,
        split,
        count,
        rng,
        _fields,
        (0.0, 2.0),
        annotations_first=True,
    )
    # One list holds both hands.
    truths = {key: replace(truth, label=truth.label[0]) for key, truth in truths.items()}
    keys = list(truths)

    def add_unusable(data: dict) -> None:
        image_id = data["images"][0]["id"]
        for k, fields in enumerate(UNUSABLE):
            data["annotations"].append({"id": 5 + k, "image_id": image_id, "hoi": [], **fields})

    edit_json(file, add_unusable)

    def damage_joints(position: int, value: Any) -> None:
        """Both hands of the person: in a list of another length nobody can tell whose joints are gone."""
        annotation_id = truths[keys[position]].label

        def change(data: dict) -> None:
            person = next(a for a in data["annotations"] if a["id"] == annotation_id)
            if value is None or len(value) < 21:
                person["keypoints"] = value
            else:
                person["keypoints"][3 * FIRST["left"] :] = [number for row in value[:21] for number in row] * 2

        edit_json(file, change)

    return Fixture(folder, truths, file, damage_joints)


def _fields(person: Person) -> dict[str, Any]:
    keypoints = np.zeros((136, 3))
    keypoints[:94] = [100.0, 50.0, 2.0]
    for side, points in person.points.items():
        keypoints[FIRST[side] : FIRST[side] + 21] = np.column_stack([points, person.visibility[side]])
    return {"bbox": [0.0, 0.0, 50.0, 50.0], "keypoints": keypoints.ravel().tolist(), "hoi": [{"hoi_id": 1}]}
