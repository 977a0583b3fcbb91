"""Entries of sidecars: what is read is what was written, and files of earlier versions can be read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from maskhand.sample import HandPose
from maskhand.shards.npz import decode_arrays, encode_arrays
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
