"""Names of the files of a shard set, and the error of this package."""

from __future__ import annotations

from typing import Literal

from maskhand import storage
from maskhand.errors import MaskhandError

FORMAT_VERSION = 1
"""Raise it when the content of shards changes, so that they are built anew."""

IMAGES = "images"
"""The part that holds images and labels; every other part is a sidecar of it."""

MANO = "mano"
"""The sidecar part with MANO targets."""

TargetSource = Literal["annotated", "fitted", "keypoints", "predicted"]
"""Where the `source` of a MANO target says that its parameters come from: the dataset, a fit to its joints, a fit to a
detector's keypoints, or a model."""

TargetFault = Literal["", "few_fingers", "too_small", "far_off", "strange_shape", "not_finite", "not_seen"]
"""The `fault` of a MANO target, for which nothing learns from it; empty when it is good. Of fits: too few fingers were
observed, the hand is too small, the fit is too far from what was observed, its shape or its numbers are impossible; of
predictions: no keypoint of the hand was found."""

MANIFEST = "manifest.json"


class ShardError(MaskhandError, ValueError):
    """A shard set that is missing, incomplete, altered or made from something else; the message says what to do."""


def keypoint_part(detector: str) -> str:
    """Name of the sidecar part that holds a detector's 2D keypoints."""
    return f"keypoints.{detector}"


def shard_name(index: int) -> str:
    return f"{index:06d}"


def tar_uri(part_uri: str, name: str) -> str:
    return storage.join(part_uri, f"{name}.tar")


def record_uri(part_uri: str, name: str) -> str:
    return storage.join(part_uri, f"{name}.json")


def manifest_uri(part_uri: str) -> str:
    return storage.join(part_uri, MANIFEST)


def maker(set_uri: str, part: str) -> str:
    """The verb that makes a part of the set DATASET/SPLIT."""
    name = "/".join(set_uri.rstrip("/").split("/")[-2:])
    dataset, _, split = name.partition("/")
    if part == IMAGES:
        return f"shard {dataset} --split {split}"
    return f"annotate mano {name}" if part == MANO else f"annotate keypoints {name} --detector {part.partition('.')[2]}"
