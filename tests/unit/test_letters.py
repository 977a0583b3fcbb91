"""The synthetic ASL alphabet, and targets of images on which nobody annotated a hand."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskhand.adapters import open_adapter
from maskhand.annotate.by_model import PredictedPoses, annotate_by_model
from maskhand.annotate.rendered_poses import annotate_rendered
from maskhand.catalog import load_spec
from maskhand.conventions import NUM_JOINTS
from maskhand.hand.assumed_camera import FOCAL
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.inspection.inspect_set import inspect_set
from maskhand.models.bundle import ModelBundle
from maskhand.sample import SampleError
from maskhand.shards.build import build_shards
from maskhand.shards.layout import MANO, ShardError, keypoint_part
from maskhand.shards.reader import ShardSample, ShardSet
from maskhand.shards.sidecar import Annotator, build_sidecar
from maskhand.shards.sidecar_records import DetectedKeypoints
from maskhand.synth.freihand_layout import SynthError
from maskhand.synth.letters import FOLDER, POSES, write_letters
from support.hand_sets import make_samples, write_set
from support.model_parts import small_model, small_recipe


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_letters(tmp_path_factory.mktemp("letters"), per_letter=1, seed=3, workers=2)


def test_letters_repeat_whatever_the_number_of_workers_and_refuse_another_request(root: Path, tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    found = digests(root)
    assert sum(name.startswith(FOLDER) for name in found) == 26
    assert digests(write_letters(tmp_path / "again", per_letter=1, seed=3, workers=1)) == found
    assert write_letters(root, per_letter=1, seed=3, workers=1) == root and digests(root) == found
    with pytest.raises(SynthError, match="other synthetic letters"):
        write_letters(root, per_letter=2, seed=3, workers=1)


def test_the_real_adapter_reads_them_and_their_targets_are_what_was_rendered(root: Path, tmp_path: Path) -> None:
    spec, uri = load_spec("asl_alphabet_synth"), str(tmp_path / "set")
    adapter = open_adapter(spec, str(root), "letters_train")
    assert adapter.present() and len(adapter.plan().keys) == 26, "one of five is held out; here is one of each"
    build_shards(spec, str(root), "letters_train", uri)
    assert annotate_rendered(uri, root).count == 26
    rows = list(ShardSet.open(uri, (MANO,)))
    assert {row.sample.origin["sign"] for row in rows} == set("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    with np.load(root / POSES) as poses:
        by_path = dict(zip(poses["path"].tolist(), poses["pose_aa"], strict=True))
    mano = ManoLayer.from_default()
    for row in rows:
        entry = row.mano_target()
        assert entry is not None and entry.is_good
        np.testing.assert_allclose(entry.pose.pose_aa, by_path[row.sample.origin["path"]], atol=1e-6)
        mesh = mano.from_axis_angle(
            *(torch.from_numpy(getattr(entry.pose, k))[None] for k in ("pose_aa", "betas", "transl_cam_m"))
        )
        assert 0.1 < mesh.joints_m[0, :, 2].min() < mesh.joints_m[0, :, 2].max() < 5, "in front of the camera"


def corners(samples: list[ShardSample]) -> list[DetectedKeypoints | SampleError]:
    """Keypoints along the box's diagonal; none of the second sample's are seen."""
    entries: list[DetectedKeypoints | SampleError] = []
    for k, row in enumerate(samples):
        low, high = row.sample.box_xyxy_px.reshape(2, 2)
        share = np.linspace(0.1, 0.9, NUM_JOINTS)[:, None]
        points_px = (low + share * (high - low)).astype(np.float32)
        entries.append(DetectedKeypoints(points_px, np.full(NUM_JOINTS, float(k != 1), np.float32)))
    return entries


def test_a_models_predictions_become_targets(tmp_path: Path) -> None:
    uri, recipe = str(tmp_path / "set"), small_recipe()
    ModelBundle.save(tmp_path / "model", small_model(recipe), recipe, {})
    *hands, last = make_samples(6, sides=("right", "left"))
    broken = dataclasses.replace(last, image=last.image[:60] + b"IEND\xaeB`\x82")
    write_set(uri, [*hands, broken], shard_size=8)
    with pytest.raises(ShardError, match="keypoints"):
        annotate_by_model(uri, str(tmp_path / "model"))
    part = keypoint_part(recipe.data.keypoints.detector)
    build_sidecar(uri, part, Annotator("corners", "1"), corners)
    manifest = annotate_by_model(uri, str(tmp_path / "model"))
    assert manifest.annotator is not None and manifest.annotator["settings"]["model"]
    assert set(manifest.inputs) == {"images", part} and manifest.rejects == {"bad_image": 1}
    rows = list(ShardSet.open(uri, (MANO,)))
    rows = [row for row in rows if row.sample.key != broken.key]
    entries = [row.mano_target() for row in rows]
    assert [e.is_good for e in entries if e is not None] == [True, False, True, True, True]
    assert all(e is not None and e.source == "predicted" for e in entries)
    mano = ManoLayer.from_default()
    for row, entry in zip(rows, entries, strict=True):
        assert entry is not None and entry.mirrored == (row.sample.side == "left")
        pose, betas = (torch.from_numpy(getattr(entry.pose, name))[None] for name in ("pose_aa", "betas"))
        mesh = mano(axis_angle_to_matrix(pose), betas)
        assert mesh.vertices_m.isfinite().all() and entry.pose.transl_cam_m[2] > 0
    digest = manifest.annotator["settings"]["model"]
    seen = [row for row in ShardSet.open(uri, (part,)) if row.sample.key != broken.key]
    bare = [replace(row, sample=replace(row.sample, camera=None)) for row in seen]
    for row, assumed, entry in zip(seen, PredictedPoses(str(tmp_path / "model"), digest)(bare), entries, strict=True):
        assert row.sample.camera is not None and not isinstance(assumed, SampleError) and entry is not None
        longer = row.sample.camera.K_px[0, 0] / (FOCAL * max(row.sample.image_size_px))
        pose, betas = (torch.from_numpy(getattr(entry.pose, name))[None] for name in ("pose_aa", "betas"))
        middle = float(mano(axis_angle_to_matrix(pose), betas).joints_m[..., 2].mean())
        near, far = (float(e.pose.transl_cam_m[2]) + middle for e in (entry, assumed))
        assert near == pytest.approx(far * longer, rel=0.1)  # perspective is stronger nearby
    looked = inspect_set(uri, hands=2).statistics
    assert looked.targets == {"predicted": 5} and looked.residual_mm["predicted"].count == 0
