"""A sample <-> the members of a tar: `{key}.jpg|png` as published, `{key}.json` facts, `{key}.npz` labels."""

from __future__ import annotations

import json
import reprlib
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from maskhand.sample import SHAPES, Camera, HandPose, HandSample
from maskhand.shards.layout import ShardError
from maskhand.shards.npz import decode_arrays, encode_arrays

Members = Mapping[str, bytes]
"""Extension -> content, for one key."""

_ARRAYS = (
    "joints_2d_px",
    "joints_2d_conf",
    "joints_2d_occluded",
    "joints_cam_m",
    "joints_3d_valid",
    "vertices_cam_m",
)
_MANO = ("pose_aa", "betas", "transl_cam_m")
_SHAPES = {f"{record}_{name}" if record else name: shape for name, record, shape in SHAPES}
_TO_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def encode_sample(sample: HandSample) -> Members:
    facts: dict[str, Any] = {
        "dataset": sample.dataset,
        "side": sample.side,
        "image_size_px": list(sample.image_size_px),
        "box_xyxy_px": sample.box_xyxy_px.tolist(),
        "K_px": None if sample.camera is None else sample.camera.K_px.tolist(),
        "origin": sample.origin,
    }
    arrays = {name: array for name in _ARRAYS if (array := getattr(sample, name)) is not None}
    if sample.mano is not None:
        arrays |= {f"mano_{name}": getattr(sample.mano, name) for name in _MANO}
    return {
        sample.image_format: sample.image,
        "json": _encoded(facts),
        "npz": encode_arrays(arrays),
    }


def _encoded(facts: dict[str, Any]) -> bytes:
    try:
        return _readable(facts)
    except (ValueError, TypeError, RecursionError):
        # What a label file has of its own in `origin` decides nothing and may be anything: NaN, half a letter.
        return _readable(facts | {"origin": {name: _storable(value) for name, value in facts["origin"].items()}})


def _readable(value: Any) -> bytes:
    text = _TO_JSON.encode(value).encode()
    orjson.loads(text)
    return text


def _storable(value: Any) -> Any:
    try:
        _readable(value)
    except (ValueError, TypeError, RecursionError):
        return reprlib.repr(value).encode("ascii", "backslashreplace").decode()
    return value


def decode_sample(key: str, members: Members, arrays: Mapping[str, np.ndarray] | None = None) -> HandSample:
    """Exactly the sample that was encoded; ShardError when a member is missing.

    arrays: those of its npz, where a whole shard's have been decoded together.
    """
    image_format = next((name for name in ("jpg", "png") if name in members), None)
    if image_format is None or "json" not in members or "npz" not in members:
        raise ShardError(f"sample {key}: found members {sorted(members)}, expected an image, json and npz")
    try:
        return _decoded(key, members, image_format, decode_arrays(members["npz"]) if arrays is None else arrays)
    except UNREADABLE as error:
        raise ShardError(f"sample {key}: {not_ours(error)}") from None


UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading bytes as json or npz raises that were not written as such."""


def not_ours(error: Exception) -> str:
    """Why members of a sample cannot be read, of a tar that is as its manifest says."""
    reason = " ".join(str(error).split())[:100]
    return (
        f"its json or npz is not what this version writes ({type(error).__name__}: {reason}); was the tar written by "
        "another program? Build this part again"
    )


def _decoded(key: str, members: Members, image_format: str, arrays: Mapping[str, np.ndarray]) -> HandSample:
    facts = orjson.loads(members["json"])
    if facts["side"] not in ("left", "right"):
        raise ValueError(f"side is {facts['side']!r}")
    box = np.array(facts["box_xyxy_px"], dtype=np.float32)
    for name, array in {**arrays, "box_xyxy_px": box}.items():
        if name in _SHAPES and array.shape != _SHAPES[name]:
            raise ValueError(f"{name} has shape {array.shape}, expected {_SHAPES[name]}")
    if not np.isfinite(box).all():
        raise ValueError(f"box_xyxy_px is {facts['box_xyxy_px']}")
    return HandSample(
        key=key,
        dataset=facts["dataset"],
        image=members[image_format],
        image_format=image_format,
        image_size_px=(facts["image_size_px"][0], facts["image_size_px"][1]),
        side=facts["side"],
        box_xyxy_px=box,
        camera=None if facts["K_px"] is None else Camera(np.array(facts["K_px"])),
        mano=HandPose(*[arrays[f"mano_{name}"] for name in _MANO]) if "mano_pose_aa" in arrays else None,
        origin=facts["origin"],
        **{name: arrays.get(name) for name in _ARRAYS},  # type: ignore[arg-type]
    )
