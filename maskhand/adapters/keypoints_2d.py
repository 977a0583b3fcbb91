"""What the data sets with hand keypoints in the picture and nothing else have in common."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskhand import storage
from maskhand.adapters.base import Array, Picture, box_around, joint_order, spot_check
from maskhand.catalog import DatasetSpec
from maskhand.conventions import Side
from maskhand.sample import HandSample, SampleError


def hand_in_2d(
    spec: DatasetSpec,
    key: str,
    picture: Picture,
    side: Side,
    points_px: Array,
    confidence: Array,
    origin: Mapping[str, Any],
    occluded: Array | None = None,
) -> HandSample:
    """A validated sample from (21, 2) pixels and (21,) confidence, in the data set's joint order.

    Joints with confidence 0 are not annotated; their pixels become 0, 0. The box is the one around the others.
    """
    order = joint_order(spec)
    annotated = confidence[order] > 0
    if not annotated.any():
        raise SampleError("not_annotated", f"{key}: none of the {side} hand's joints is annotated")
    points = np.where(annotated[:, None], points_px[order], 0.0)
    sample = HandSample(
        key=key,
        dataset=spec.name,
        image=picture.data,
        image_format=picture.format,
        image_size_px=picture.size_px,
        side=side,
        box_xyxy_px=box_around(points[annotated]),
        joints_2d_px=points.astype(np.float32),
        joints_2d_conf=np.clip(confidence[order], 0.0, 1.0).astype(np.float32),
        joints_2d_occluded=None if occluded is None else (occluded[order] > 0) & annotated,
        origin=dict(origin),
    )
    sample.validate()
    return sample


def key_of(split: str, name: str) -> str:
    """A key from a published name; what a key may not hold becomes `-`, and a hash keeps such names apart."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    return f"{split}-{safe}" if safe == name else f"{split}-{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def label_names(folder: str) -> dict[str, int]:
    """Name without ending -> bytes, of the JSON files directly in a folder, sorted."""
    found = {uri.removeprefix(storage.join(folder, "")): size for uri, size in storage.list_sizes(folder).items()}
    return {
        name.removesuffix(".json"): found[name] for name in sorted(found) if name.endswith(".json") and "/" not in name
    }


def label_files_digest(folder: str, names: dict[str, int]) -> str:
    """Changes with the names and sizes of all label files and the content of 16 of them: one listing, few reads."""
    text = "\n".join(f"{name} {size}" for name, size in names.items())
    return hashlib.sha256(f"{text}\n{spot_check(_uris(folder, names, 'json'))}".encode()).hexdigest()


def pictures_digest(folder: str, names: dict[str, int]) -> str:
    return spot_check(_uris(folder, names, "jpg"))


def _uris(folder: str, names: dict[str, int], ending: str) -> Sequence[str]:
    return [storage.join(folder, f"{name}.{ending}") for name in names]


def side_of_suffix(name: str) -> Side | None:
    """`..._l` and `..._r`, as names of pictures with one annotated hand end."""
    sides: dict[str, Side] = {"_l": "left", "_r": "right"}
    return sides.get(name[-2:])
