"""What COCO-WholeBody and Halpe share: persons in COCO's form, some with one hand, some with none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from support.published_layouts.hands import Truth, seen_hand, write_image

SIZE = (320, 240)
SIDES = ("left", "right")
PERSONS = (("left", "right"), (), ("right",), ("left",), ("left", "right"))
"""Annotated hands of the persons, in turn."""


@dataclass(frozen=True)
class Person:
    annotation_id: int
    image_id: int
    area: float
    points: dict[str, np.ndarray]
    """Side -> (21, 2) pixels of the annotated hands."""
    visibility: dict[str, np.ndarray]
    """Side -> (21,) v."""


def write_persons(
    file: Path,
    image_dir: Path,
    image_name: Callable[[int], str],
    split: str,
    count: int,
    rng: np.random.Generator,
    fields: Callable[[Person], dict[str, Any]],
    visibility: tuple[float, ...],
    annotations_first: bool = False,
) -> dict[str, Truth]:
    """`count` times PERSONS in images of their own, the last one with both hands; an image without persons."""
    images, annotations = [], []
    truths: dict[str, Truth] = {}
    for k in range(len(PERSONS) * count + 1):
        image_id, annotation_id = 391895 + 13 * k, 900100000000 + k
        name = image_name(image_id)
        images.append({"license": 3, "id": image_id, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        write_image(image_dir / name, rng, SIZE)
        if k == len(PERSONS) * count:
            continue
        points, seen = {}, {}
        for side in PERSONS[k % len(PERSONS)]:
            points[side] = seen_hand(rng, side, SIZE)
            seen[side] = rng.choice(visibility, 21)
            seen[side][[0, 9]] = max(visibility)
        area = float(rng.uniform(1e3, 9e4))
        person = Person(annotation_id, image_id, area, points, seen)
        common = {"id": annotation_id, "image_id": image_id, "category_id": 1, "iscrowd": 0, "area": area}
        annotations.append(common | fields(person))
        for side in SIDES:
            if side in points:
                truths[f"{split}-{annotation_id:010d}-{side[0]}"] = Truth(
                    side,
                    None,
                    None,
                    seen[side] > 0,
                    None,
                    image_dir / name,
                    visible=np.minimum(seen[side], 1.0),
                    joints_px=points[side],
                    label=(annotation_id, side),
                    origin={"annotation": annotation_id, "image": image_id, "person_area_px": area},
                )
    parts: dict[str, Any] = {"info": {"version": "1.0"}, "licenses": [], "categories": [{"id": 1, "name": "person"}]}
    records = {"images": images, "annotations": annotations}
    order = sorted(records) if annotations_first else list(records)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(parts | {name: records[name] for name in order}))
    return truths
