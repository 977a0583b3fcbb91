"""MANO targets from detected keypoints alone: what makes images without labels trainable."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from maskhand.annotate import keypoints
from maskhand.annotate.detectors import Detections
from maskhand.annotate.fit.detected import DEPTH_FACTOR
from maskhand.annotate.keypoint_targets import annotate_from_keypoints
from maskhand.annotate.keypoints import annotate_keypoints
from maskhand.annotate.registry import DETECTORS
from maskhand.conventions import MIRROR_POINT
from maskhand.loading.labels import annotated_target, good_target
from maskhand.sample import Camera
from maskhand.shards.layout import MANO, ShardError
from maskhand.shards.reader import ShardSet
from support.hand_sets import make_samples, write_set
from support.known_hands import known_hands, mesh

COUNT = 6


class KnownDetector:
    """Sees known hands without error; of the last one the thumb and the index finger are hidden."""

    name, version = "known", "1"

    def __init__(self) -> None:
        self.truth = known_hands(COUNT, seed=9)

    def detect(self, images, boxes_xyxy_px, sides=None) -> Detections:
        truth = self.truth
        left = np.array([side == "left" for side in sides])[:, None, None]
        points = np.where(left, truth.joints_px * [-1, 1] + [223, 0], truth.joints_px)
        world = truth.joints_m - truth.joints_m.mean(1, keepdims=True)
        z_px = (world[..., 2] - world[:, :1, 2]) * (truth.K_px[:, 0, 0] / truth.joints_m[:, 0, 2])[:, None]
        z_px = z_px / DEPTH_FACTOR  # as detectors flatten it
        confidence = np.full((COUNT, 21), 0.9)
        confidence[-1, 1:9] = 0.05
        one = np.ones(COUNT, np.float32)
        world = np.where(left, world * MIRROR_POINT, world)
        arrays = (points, confidence, one, one, z_px, world)
        return Detections(*(np.asarray(values, np.float32) for values in arrays))


@pytest.fixture
def unlabeled(monkeypatch, tmp_path) -> tuple[str, KnownDetector]:
    """A set of images with boxes, sides and cameras, without joints, meshes or parameters."""
    detector = KnownDetector()
    monkeypatch.setitem(DETECTORS, "known", lambda assets: detector)
    keypoints._detector.cache_clear()
    samples = []
    for k, sample in enumerate(make_samples(COUNT, size=(224, 224), sides=("right", "left"))):
        K = detector.truth.K_px[k].copy()
        if sample.side == "left":
            K[0, 2] = 223 - K[0, 2]
        nothing = dict.fromkeys(("mano", "joints_cam_m", "joints_3d_valid", "joints_2d_px", "joints_2d_conf"))
        samples.append(dataclasses.replace(sample, camera=Camera(K), vertices_cam_m=None, **nothing))
    uri = str(tmp_path / "set")
    write_set(uri, samples, shard_size=COUNT)
    return uri, detector


def test_hands_without_labels_get_targets(unlabeled, tmp_path) -> None:
    uri, detector = unlabeled
    with pytest.raises(ShardError):
        annotate_from_keypoints(uri, "known")
    annotate_keypoints(uri, "known", tmp_path)
    manifest = annotate_from_keypoints(uri, "known")
    assert manifest.count == COUNT and manifest.annotator["name"] == "mano-from-keypoints"
    order = [int(row.sample.key.rsplit("-", 1)[-1]) for row in ShardSet.open(uri)]
    entries = [row.mano_target() for row in ShardSet.open(uri, (MANO,))]
    assert [e.mirrored for e in entries] == [row.sample.side == "left" for row in ShardSet.open(uri)]
    assert {e.source for e in entries} == {"keypoints"} and len(order) == COUNT
    assert all(annotated_target(e) is None for e in entries), "nobody is measured against them"
    good, bad = entries[:-1], entries[-1]
    assert all(good_target(e) is not None for e in good)
    assert good_target(bad) is None and bad.fault == "few_fingers" and bad.fingers_seen == 3
    pose, betas, transl = (
        np.stack([getattr(e.pose, name) for e in good]) for name in ("pose_aa", "betas", "transl_cam_m")
    )
    joints, _ = mesh(pose, betas, transl)
    truth = detector.truth.joints_m[: COUNT - 1]
    apart = 1e3 * np.linalg.norm((joints - joints[:, :1]) - (truth - truth[:, :1]), axis=2)
    assert apart.mean() < 8
