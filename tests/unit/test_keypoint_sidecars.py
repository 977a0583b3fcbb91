"""Keypoint sidecars: named detector, resumable, left hands as seen, bad images counted."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from maskhand.annotate import keypoints as subject
from maskhand.annotate.detectors import Detections
from maskhand.annotate.keypoints import AnnotateKeypoints, annotate_keypoints
from maskhand.annotate.registry import DETECTORS
from maskhand.shards.layout import ShardError, keypoint_part
from maskhand.shards.reader import ShardSample, ShardSet
from maskhand.shards.sidecar_records import DetectedKeypoints
from support.hand_sets import make_samples, write_set


class EchoDetector:
    """Says the corners of the box and remembers what it was shown."""

    name = "echo"

    def __init__(self, version: str = "1") -> None:
        self.version = version
        self.shown: list[tuple[tuple[int, ...], str | None]] = []

    def detect(self, images, boxes_xyxy_px, sides=None):
        self.shown += [(image.shape, side) for image, side in zip(images, sides, strict=True)]
        corners = np.repeat(np.asarray(boxes_xyxy_px, np.float32)[:, None, :2], 21, axis=1)
        n = len(images)
        return Detections(corners, np.full((n, 21), 0.5, np.float32), np.ones(n, np.float32), np.ones(n, np.float32))


@pytest.fixture
def echo(monkeypatch):
    detector = EchoDetector()
    monkeypatch.setitem(DETECTORS, "echo", lambda assets: detector)
    subject._detector.cache_clear()
    yield detector
    subject._detector.cache_clear()


def test_each_hand_is_shown_as_stored_with_its_box_and_side(echo, tmp_path):
    uri = str(tmp_path / "set")
    samples = make_samples(5, size=(90, 70), sides=("right", "left"))
    write_set(uri, samples, shard_size=3)
    manifest = annotate_keypoints(uri, "echo", tmp_path)
    assert (manifest.part, manifest.count, manifest.planned) == ("keypoints.echo", 5, 5)
    assert manifest.annotator["name"] == "echo" and manifest.annotator["version"] == "1"
    assert echo.shown == [((70, 90, 3), s.side) for s in samples]
    for row in ShardSet.open(uri, (keypoint_part("echo"),)):
        entry = row.keypoints("echo")
        np.testing.assert_array_equal(entry.keypoints_px, np.tile(row.sample.box_xyxy_px[:2], (21, 1)))
        assert entry.confidence.shape == (21,) and entry.confidence.dtype == np.float32


def test_finished_shards_are_kept_and_another_version_is_refused(echo, tmp_path):
    uri = str(tmp_path / "set")
    write_set(uri, make_samples(5), shard_size=2)
    manifest = annotate_keypoints(uri, "echo", tmp_path)
    (tmp_path / "set" / "keypoints.echo" / "000001.json").unlink()
    echo.shown.clear()
    assert annotate_keypoints(uri, "echo", tmp_path) == manifest
    assert len(echo.shown) == 2, "only the shard without a record is annotated again"
    echo.version = "2"
    with pytest.raises(ShardError):
        annotate_keypoints(uri, "echo", tmp_path)
    assert annotate_keypoints(uri, "echo", tmp_path, rebuild=True).annotator["version"] == "2"


def test_a_image_that_cannot_be_decoded_is_counted_and_its_neighbors_stay(echo, tmp_path):
    samples = make_samples(3)
    samples[1] = dataclasses.replace(samples[1], image=samples[1].image[:60])
    rows = [ShardSample(s, k, {}) for k, s in enumerate(samples)]
    first, second, third = AnnotateKeypoints("echo", str(tmp_path), "1")(rows)
    assert second.reason == "bad_image" and "hand-0001" in str(second)
    assert isinstance(first, DetectedKeypoints) and isinstance(third, DetectedKeypoints)


def test_hands_that_are_given_together_keep_their_answers(echo, tmp_path):
    samples = make_samples(40, sides=("right", "left"))
    for k in (15, 16):
        samples[k] = dataclasses.replace(samples[k], image=samples[k].image[:60])
    answers = AnnotateKeypoints("echo", str(tmp_path), "1")([ShardSample(s, k, {}) for k, s in enumerate(samples)])
    for k, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
        if k in (15, 16):
            assert answer.reason == "bad_image"
        else:
            np.testing.assert_array_equal(answer.keypoints_px, np.tile(sample.box_xyxy_px[:2], (21, 1)))
    assert [side for _, side in echo.shown] == [s.side for k, s in enumerate(samples) if k not in (15, 16)]
    unreadable = AnnotateKeypoints("echo", str(tmp_path), "1")([ShardSample(samples[15], 0, {})])
    assert [answer.reason for answer in unreadable] == ["bad_image"]


def test_the_embedded_detector_is_named_by_its_weights(assets, tmp_path):
    uri = str(tmp_path / "set")
    write_set(uri, make_samples(2))
    manifest = annotate_keypoints(uri, "litert-hand", assets)
    assert manifest.annotator["version"].startswith("11c272b891e1") and manifest.count == 2


def test_annotator_travels_to_workers(tmp_path):
    annotate = AnnotateKeypoints("litert-hand", str(tmp_path), "1")
    assert pickle.loads(pickle.dumps(annotate)) == annotate
