"""What entries of sidecars must hold: any program can write a tar and a manifest that fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from maskhand.shards.layout import MANO, ShardError

Entries = Sequence[tuple[str, dict[str, np.ndarray]]]
"""Keys and arrays, in the order of the tar."""

_REQUIRED: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "keypoints": {"keypoints_px": (21, 2), "confidence": (21,)},
    MANO: {"pose_aa": (16, 3), "betas": (10,), "transl_cam_m": (3,)},
}
_OPTIONAL: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "keypoints": {"presence": (), "right_probability": (), "z_px": (21,), "world_m": (21, 3)},
    MANO: {"residual_mm": (), "residual_px": (), "joints_seen": (), "fingers_seen": ()},
}
_WORDS = ("source", "mirrored")
_FARTHEST_PX = 1e5
"""Of a keypoint: three times as far as the longest picture is long."""
_SMALLEST_PX = 2.0
"""Median extent of hands in pixels; fractions of a picture stay below it."""


def check_entries(uri: str, part: str, entries: Entries) -> None:
    """Raise ShardError where an entry of the parts `mano` and `keypoints.<detector>` is none; of other parts nothing
    is known.

    Where a keypoint was not found (confidence 0) its numbers mean nothing; what is not finite there becomes 0.
    """
    kind = part.partition(".")[0]
    if kind not in _REQUIRED or not entries:
        return
    for key, arrays in entries:
        if problem := _form(kind, arrays):
            raise _refused(uri, key, problem)
    place, problem = _keypoints(entries) if kind == "keypoints" else _targets(entries)
    if problem:
        raise _refused(uri, entries[place][0], problem)


def _form(kind: str, arrays: Mapping[str, np.ndarray]) -> str | None:
    """What is wrong with the names, shapes and types of an entry; None where they are as expected."""
    for name, shape in {**_REQUIRED[kind], **_OPTIONAL[kind]}.items():
        array = arrays.get(name)
        if array is None:
            if name in _REQUIRED[kind]:
                return f"has no {name}; it holds {', '.join(sorted(arrays)) or 'nothing'}"
        elif array.shape != shape or array.dtype.kind not in "fiub":
            return f"{name} is an array {array.shape} of {array.dtype}, expected {shape} numbers"
    if kind == MANO:
        absent = [name for name in _WORDS if name not in arrays]
        absent += [] if "fault" in arrays or "ok" in arrays else ["fault"]
        if absent:
            return f"has no {absent[0]}; it holds {', '.join(sorted(arrays))}"
    return None


def _keypoints(entries: Entries) -> tuple[int, str | None]:
    """(place of the first wrong entry, what is wrong)."""
    confidence = np.stack([arrays["confidence"] for _, arrays in entries])
    if (wrong := ~((confidence >= 0) & (confidence <= 1)).all(1)).any():
        place = int(wrong.argmax())
        return place, f"confidence is {confidence[place].min():g} to {confidence[place].max():g}, expected 0 to 1"
    seen = confidence > 0
    for name in ("keypoints_px", "z_px", "world_m", "presence", "right_probability"):
        rows = [k for k, (_, arrays) in enumerate(entries) if name in arrays]
        if not rows:
            continue
        values = np.stack([entries[k][1][name] for k in rows])
        broken = ~np.isfinite(values)
        if broken.any():
            per_joint = broken.reshape(len(rows), 21, -1).any(2) & seen[rows] if values.ndim > 1 else broken[:, None]
            if per_joint.any():
                return rows[int(per_joint.any(1).argmax())], f"{name} is not finite where the confidence is above 0"
            for k in rows:
                entries[k][1][name] = np.nan_to_num(entries[k][1][name], nan=0.0, posinf=0.0, neginf=0.0)
    points = np.stack([arrays["keypoints_px"] for _, arrays in entries])
    far = np.where(seen[..., None], np.abs(points), 0).max((1, 2))
    if (far > _FARTHEST_PX).any():
        place = int(far.argmax())
        return place, f"keypoints_px holds {far[place]:g}, expected pixels of the picture"
    whole = seen.all(1)
    if whole.any() and 0 < (extent := np.median(np.ptp(points[whole], axis=1).max(1))) < _SMALLEST_PX:
        return int(whole.argmax()), f"keypoints_px are {extent:.2g} px apart (median of all hands); are they fractions?"
    return 0, None


def _targets(entries: Entries) -> tuple[int, str | None]:
    """(place of the first wrong entry, what is wrong); targets with a fault may hold anything."""
    good = np.array([not a["fault"].item() if "fault" in a else bool(a["ok"].item()) for _, a in entries])
    for name in _REQUIRED[MANO]:
        broken = ~np.isfinite(np.stack([arrays[name] for _, arrays in entries])).reshape(len(entries), -1).all(1) & good
        if broken.any():
            return int(broken.argmax()), f"{name} is not finite, and the target is marked as good"
    return 0, None


def _refused(uri: str, key: str, problem: str) -> ShardError:
    return ShardError(
        f"{uri}: sample {key}: {problem}; was the tar written by another program? Annotate again with --rebuild"
    )
