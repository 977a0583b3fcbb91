"""Helpers of layouts that annotate nothing but hand keypoints in the image: samples, keys, listings of folders."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from maskhand import storage
from maskhand.adapters.base import Image, Item, counting_rows, hand_sample, joint_order, spot_check
from maskhand.arrays import Array
from maskhand.catalog import DatasetSpec
from maskhand.conventions import Side
from maskhand.sample import HandSample, SampleError


def hand_in_2d(
    spec: DatasetSpec,
    item: Item,
    where: str,
    image: Image,
    side: Side,
    points_px: Array,
    confidence: Array,
    *,
    occluded: Array | None = None,
    more_origin: Mapping[str, Any] | None = None,
) -> HandSample:
    """A sample from (21, 2) pixels and (21,) confidence, in the dataset's joint order.

    Joints with confidence 0 are not annotated; their pixels become 0, 0. For `where` see `numbers`; SampleError
    (`not_annotated`).
    """
    order = joint_order(spec)
    annotated = confidence[order] > 0
    if not annotated.any():
        raise SampleError(
            "not_annotated", f"{where}: none of the {side} hand's joints is annotated, expected one or more"
        )
    return hand_sample(
        spec,
        item,
        image,
        side=side,
        joints_2d_px=np.where(annotated[:, None], points_px[order], 0.0),
        joints_2d_conf=np.clip(confidence[order], 0.0, 1.0),
        joints_2d_occluded=None if occluded is None else (occluded[order] > 0) & annotated,
        more_origin=more_origin,
    )


def marked_points(where: str, name: str, table: Array) -> Array:
    """(N, D + 1) places of joints, each with its mark, as `numbers` reads them without looking for NaN.

    What is marked as not annotated (0 or less) may hold anything, and becomes zeros. SampleError (`not_finite`) for a
    joint that counts, and for a mark.
    """
    return counting_rows(where, name, table, ~(table[:, -1] <= 0))


def key_of(split: str, name: str) -> str:
    """A key from a published name; what a key may not hold becomes `-`, and a hash keeps such names apart."""
    safe = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    return f"{split}-{safe}" if safe == name else f"{split}-{safe}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"


def names_with_labels(folder: str) -> tuple[list[str], dict[str, int]]:
    """Names without ending of the images and labels directly in a folder, sorted, and name -> bytes of each label.

    An image without its label is named as well, and so is a label without its image. The folder is listed once.
    """
    found = {uri.removeprefix(storage.join(folder, "")): size for uri, size in storage.list_sizes(folder).items()}
    files = [(*name.rpartition("."), size) for name, size in sorted(found.items()) if "/" not in name]
    names = sorted({name for name, _, ending, _ in files if ending in ("jpg", "json")})
    return names, {name: size for name, _, ending, size in files if ending == "json"}


def label_files_digest(folder: str, labels: dict[str, int]) -> str:
    """Changes with the names and sizes of all label files and the content of 16 of them: one listing, few reads."""
    text = "\n".join(f"{name} {size}" for name, size in labels.items())
    return hashlib.sha256(f"{text}\n{spot_check(_uris(folder, labels, 'json'))}".encode()).hexdigest()


def images_digest(folder: str, names: Iterable[str]) -> str:
    return spot_check(_uris(folder, names, "jpg"))


def _uris(folder: str, names: Iterable[str], ending: str) -> Sequence[str]:
    return [storage.join(folder, f"{name}.{ending}") for name in names]


def side_of_suffix(name: str) -> Side | None:
    """`..._l` and `..._r`, as names of images with one annotated hand end."""
    sides: dict[str, Side] = {"_l": "left", "_r": "right"}
    return sides.get(name[-2:])
