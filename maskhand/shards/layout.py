"""Names of the files of a shard set, and the error of this package."""

from __future__ import annotations

from maskhand import storage
from maskhand.errors import MaskhandError

FORMAT_VERSION = 1
"""Raise it when the content of shards changes, so that they are built anew."""

IMAGES = "images"
"""The part that holds images and labels; every other part is a sidecar of it."""

MANO = "mano"
"""The sidecar part with MANO targets."""

MANIFEST = "manifest.json"
TAR = "tar"
"""Ending of the shards of images and their sidecars."""


class ShardError(MaskhandError, ValueError):
    """A shard set that is missing, incomplete, altered or made from something else; the message says what to do."""


def keypoint_part(detector: str) -> str:
    """Name of the sidecar part that holds a detector's 2D keypoints."""
    return f"keypoints.{detector}"


def detector_of(part: str) -> str:
    """The detector of a part with 2D keypoints; empty for other parts."""
    kind, _, detector = part.partition(".")
    return detector if kind == "keypoints" else ""


def shard_name(index: int) -> str:
    return f"{index:06d}"


def shard_uri(part_uri: str, name: str, ending: str) -> str:
    return storage.join(part_uri, f"{name}.{ending}")


def tar_uri(part_uri: str, name: str) -> str:
    return shard_uri(part_uri, name, TAR)


def record_uri(part_uri: str, name: str) -> str:
    return storage.join(part_uri, f"{name}.json")


def manifest_uri(part_uri: str) -> str:
    return storage.join(part_uri, MANIFEST)


def subcommand_for(set_uri: str, part: str) -> str:
    """The subcommand that makes a part of the set DATASET/SPLIT."""
    name = "/".join(set_uri.rstrip("/").split("/")[-2:])
    dataset, _, split = name.partition("/")
    if part == IMAGES:
        return f"shard {dataset} --split {split}"
    return f"annotate mano {name}" if part == MANO else f"annotate keypoints {name} --detector {detector_of(part)}"
