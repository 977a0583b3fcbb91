"""Entries of sidecars: what is read is what was written, and files of earlier versions can be read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from maskhand.sample import HandPose
from maskhand.shards.layout import ShardError
from maskhand.shards.npz import decode_arrays, encode_arrays
from maskhand.shards.sidecar_checks import check_entries
from maskhand.shards.sidecar_records import DetectedKeypoints, ManoTarget

POSE = HandPose(*(np.random.default_rng(0).normal(size=s).astype(np.float32) for s in ((16, 3), (10,), (3,))))
TARGET = ManoTarget(POSE, "fitted", True, "few_fingers", residual_mm=1.5, residual_px=np.nan, joints_seen=13)
KEYS = {"pose_aa", "betas", "transl_cam_m", "residual_mm", "residual_px", "joints_seen", "fingers_seen"}
KEYS |= {"ok", "fault", "mirrored", "source"}


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert values.dtype == other[name].dtype
        np.testing.assert_array_equal(values, other[name])


@pytest.mark.parametrize("target", [TARGET, replace(TARGET, fault="", mirrored=False, source="predicted")])
def test_a_target_is_read_as_it_was_written(target: ManoTarget) -> None:
    arrays = target.encode()
    assert arrays.keys() == KEYS and bool(arrays["ok"]) == target.is_good
    found = ManoTarget.decode(decode_arrays(encode_arrays(arrays)))
    assert (found.source, found.fault, found.mirrored) == (target.source, target.fault, target.mirrored)
    _same(found.encode(), arrays)


@pytest.mark.parametrize(("ok", "fault"), [(True, ""), (False, "unrecorded")])
def test_targets_of_earlier_versions_can_be_read(ok: bool, fault: str) -> None:
    named = {"source": np.array("annotated"), "mirrored": np.array(True), "residual_mm": np.array(0.5, np.float32)}
    target = ManoTarget.decode(vars(POSE) | named | {"ok": np.array(ok)})
    assert (target.fault, target.is_good, target.residual_mm, target.fingers_seen) == (fault, ok, 0.5, 0)
    assert np.isnan(target.residual_px)


@pytest.mark.parametrize("depth", [{}, {"z_px": np.ones(21, np.float32), "world_m": np.ones((21, 3), np.float32)}])
def test_keypoints_are_read_as_they_were_written(depth: dict[str, np.ndarray]) -> None:
    seen = DetectedKeypoints(np.ones((21, 2), np.float32), np.full(21, 0.5, np.float32), 0.25, 0.75, **depth)
    arrays = seen.encode()
    assert arrays.keys() == {"keypoints_px", "confidence", "presence", "right_probability", *depth}
    assert arrays["presence"].shape == () and arrays["presence"].dtype == np.float32
    _same(DetectedKeypoints.decode(decode_arrays(encode_arrays(arrays))).encode(), arrays)


def seen(**changed: np.ndarray) -> dict[str, np.ndarray]:
    points = np.random.default_rng(1).uniform(20, 180, (21, 2)).astype(np.float32)
    return DetectedKeypoints(points, np.full(21, 0.5, np.float32)).encode() | changed


POINTS = seen()["keypoints_px"]


@pytest.mark.parametrize(
    ("part", "arrays", "said"),
    [
        ("keypoints.any", seen(), ""),
        ("keypoints.any", seen(note=np.zeros(3)), ""),
        ("keypoints.any", {"kpts": POINTS}, "has no keypoints_px; it holds kpts"),
        ("keypoints.any", seen(keypoints_px=POINTS[:20]), r"keypoints_px is an array \(20, 2\) of float32, expected"),
        ("keypoints.any", seen(keypoints_px=POINTS.astype(str)), "keypoints_px is an array .* of <U"),
        ("keypoints.any", seen(keypoints_px=POINTS * np.nan), "not finite where the confidence is above 0"),
        ("keypoints.any", seen(presence=np.float32(np.nan)), "presence is not finite"),
        ("keypoints.any", seen(keypoints_px=POINTS * 1e6), "expected pixels of the picture"),
        ("keypoints.any", seen(keypoints_px=POINTS / 224), "are they fractions"),
        ("keypoints.any", seen(confidence=np.full(21, 50.0)), "confidence is 50 to 50, expected 0 to 1"),
        ("mano", TARGET.encode(), ""),
        ("mano", vars(POSE), "has no source"),
        ("mano", TARGET.encode() | {"pose_aa": POSE.pose_aa.reshape(48)}, r"pose_aa is an array \(48,\)"),
        ("mano", replace(TARGET, fault="").encode() | {"betas": POSE.betas * np.nan}, "betas is not finite"),
        ("mano", TARGET.encode() | {"betas": POSE.betas * np.nan}, ""),
        ("another", {"anything": np.zeros(2)}, ""),
    ],
)
def test_entries_of_another_program(part: str, arrays: dict[str, np.ndarray], said: str) -> None:
    """Under a manifest that fits them: other names, shapes, units; what is marked as not good may hold anything."""
    entries = [("hand-1", dict(arrays))]
    if said:
        with pytest.raises(ShardError, match=f"x.tar: sample hand-1: .*{said}.*Annotate again"):
            check_entries("x.tar", part, entries)
    else:
        check_entries("x.tar", part, entries)


def test_a_keypoint_that_was_not_found_may_hold_anything() -> None:
    arrays = seen(confidence=np.where(np.arange(21) == 4, 0, 0.5), keypoints_px=POINTS.copy())
    arrays["keypoints_px"][4] = np.nan
    check_entries("x.tar", "keypoints.any", entries := [("hand-1", arrays)])
    found = DetectedKeypoints.decode(entries[0][1]).keypoints_px
    assert (found[4] == 0).all() and (np.delete(found, 4, 0) == np.delete(POINTS, 4, 0)).all()
