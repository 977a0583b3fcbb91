"""The synthetic FreiHAND: official layout, labels that agree with each other and the images, repeatable bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import smplx
import torch
from scipy.spatial.transform import Rotation

from maskhand.conventions import FINGERTIP_VERTICES, OPENPOSE_FROM_MANO_AND_TIPS
from maskhand.hand import anatomy
from maskhand.hand.model_file import default_hand_path
from maskhand.synth import freihand_layout
from maskhand.synth.freihand_layout import SynthError, write_freihand_synth

TRAIN, EVALUATION, MOCAP = 6, 2, 30
COUNTS = {"train": TRAIN, "evaluation": EVALUATION, "mocap": MOCAP}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_freihand_synth(tmp_path_factory.mktemp("freihand"), **COUNTS, seed=3, versions=4, workers=1)


def labels(root: Path, split: str, field: str) -> np.ndarray:
    return np.array(json.loads((root / f"{split}_{field}.json").read_text()))


def digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_layout_is_freihands(root: Path) -> None:
    def names(folder: str) -> list[str]:
        return sorted(p.name for p in (root / folder).iterdir())

    assert names("training/rgb") == [f"{i:08d}.jpg" for i in range(4 * TRAIN)]
    assert names("training/mask") == [f"{i:08d}.jpg" for i in range(TRAIN)]
    assert names("evaluation/rgb") == [f"{i:08d}.jpg" for i in range(EVALUATION)]
    for split, count in (("training", TRAIN), ("evaluation", EVALUATION)):
        for field, shape in (("K", (3, 3)), ("mano", (1, 61)), ("scale", ()), ("verts", (778, 3)), ("xyz", (21, 3))):
            assert labels(root, split, field).shape == (count, *shape)
    assert not list(root.rglob("*.tmp")) and not (root / ".parts").exists()
    image = cv2.imread(str(root / "training/rgb/00000000.jpg"))
    assert image.shape == (224, 224, 3)


@pytest.mark.parametrize("split", ["training", "evaluation"])
def test_mesh_and_joints_follow_from_mano_by_freihands_recipe(root: Path, split: str) -> None:
    mano, K = labels(root, split, "mano")[:, 0], labels(root, split, "K")
    pose, betas, uv, scale = mano[:, :48], mano[:, 48:58], mano[:, 58:60], mano[:, 60]
    model = smplx.MANO(str(default_hand_path("right")), is_rhand=True, use_pca=False, flat_hand_mean=False)
    with torch.no_grad():
        out = model(
            global_orient=torch.tensor(pose[:, :3]).float(),
            hand_pose=torch.tensor(pose[:, 3:]).float(),
            betas=torch.tensor(betas).float(),
        )
    vertices, joints = out.vertices.numpy(), out.joints.numpy()[:, :16]
    joints = np.concatenate([joints, vertices[:, list(FINGERTIP_VERTICES["freihand"])]], 1)
    joints = joints[:, list(OPENPOSE_FROM_MANO_AND_TIPS)]
    focal = (K[:, 0, 0] + K[:, 1, 1]) / 2
    root_xyz = np.concatenate([uv - K[:, :2, 2], focal[:, None]], 1) / scale[:, None]
    move = (root_xyz - joints[:, 9])[:, None]
    np.testing.assert_allclose(vertices + move, labels(root, split, "verts"), atol=2e-6)
    np.testing.assert_allclose(joints + move, labels(root, split, "xyz"), atol=2e-6)
    xyz = labels(root, split, "xyz")
    np.testing.assert_allclose(labels(root, split, "scale"), np.linalg.norm(xyz[:, 9] - xyz[:, 10], axis=1), atol=1e-6)


def test_stored_poses_are_relative_to_the_mean_pose_and_anatomical(root: Path) -> None:
    model = smplx.MANO(str(default_hand_path("right")), is_rhand=True, use_pca=False, flat_hand_mean=False)
    stored = labels(root, "training", "mano")[:, 0, 3:48]
    absolute = (stored + model.hand_mean.numpy()).reshape(TRAIN, 15, 3)
    # the middle joints are hinges about the flexion axis
    flexion = anatomy.anatomical_axes()[2, anatomy.FLEXION]
    angle = absolute[:, 1] @ flexion
    np.testing.assert_allclose(absolute[:, 1], angle[:, None] * flexion, atol=1e-6)
    low, high = np.deg2rad(anatomy.pose_table().limits_deg[2, anatomy.FLEXION])
    assert (angle >= low - 1e-6).all() and (angle <= high + 1e-6).all()


def test_labels_land_on_the_mask(root: Path) -> None:
    K, verts, xyz = (labels(root, "training", f) for f in ("K", "verts", "xyz"))
    on_hand = []
    for i in range(TRAIN):
        mask = cv2.imread(str(root / f"training/mask/{i:08d}.jpg"), cv2.IMREAD_GRAYSCALE) > 127
        assert mask.sum() > 1000
        points = [(p[:, :2] / p[:, 2:]) for p in (verts[i] @ K[i].T, xyz[i] @ K[i].T)]
        drawn = np.zeros(mask.shape, np.uint8)
        for u, v in points[0]:
            cv2.circle(drawn, (round(u), round(v)), 7, 1, -1)
        # every visible bit of hand lies under projected vertices; joints lie on it unless something hides them
        assert drawn[mask].mean() > 0.99
        near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8))
        at = np.rint(points[1]).astype(int).clip(0, 223)
        on_hand.append(near[at[:, 1], at[:, 0]].mean())
        assert (points[1] > 0).all() and (points[1] < 224).all()
    assert np.mean(on_hand) > 0.8


def test_versions_show_the_same_hand_before_other_backgrounds(root: Path) -> None:
    images = [cv2.imread(str(root / f"training/rgb/{1 + k * TRAIN:08d}.jpg")).astype(float) for k in range(4)]
    mask = cv2.imread(str(root / "training/mask/00000001.jpg"), cv2.IMREAD_GRAYSCALE) > 127
    inside = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    outside = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    for other in images[1:]:
        assert np.abs(images[0] - other)[outside].mean() > 15
        hands = [p[inside].mean(1) for p in (images[0], other)]
        assert np.corrcoef(hands)[0, 1] > 0.6


def test_mocap_is_haMeRs_file_and_shares_no_pose_with_the_images(root: Path) -> None:
    mocap = np.load(root / "mocap.npz")
    assert mocap["hand_pose"].shape == (MOCAP, 48) and mocap["betas"].shape == (MOCAP, 10)
    fingers = Rotation.from_rotvec(mocap["hand_pose"][:, 3:].reshape(-1, 3)).magnitude()
    assert np.rad2deg(fingers).max() < 125
    assert len(np.unique(mocap["hand_pose"].round(5), axis=0)) == MOCAP
    shown = np.concatenate([labels(root, s, "mano")[:, 0, 48:58] for s in ("training", "evaluation")])
    assert np.abs(shown[:, None] - mocap["betas"]).max(-1).min() > 1e-3


def test_a_finished_set_is_left_alone_and_another_is_refused(root: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    write_freihand_synth(root, **COUNTS, seed=3, versions=4, workers=1)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    with pytest.raises(SynthError, match="seed: 3 there, 4 requested"):
        write_freihand_synth(root, **COUNTS, seed=4, versions=4, workers=1)


def test_interrupted_and_resumed_is_byte_identical(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freihand_layout, "CHUNK", 2)
    seen = []

    def stop_after_two(done: float, total: float, text: str = "") -> None:
        seen.append((done, total))
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_freihand_synth(tmp_path / "set", **COUNTS, seed=3, versions=4, workers=1, progress=stop_after_two)
    assert seen == [(2, TRAIN + EVALUATION), (4, TRAIN + EVALUATION)]
    assert not (tmp_path / "set" / "synth.json").exists()
    write_freihand_synth(tmp_path / "set", **COUNTS, seed=3, versions=4, workers=1)
    assert digests(tmp_path / "set") == digests(root)


@pytest.mark.slow
def test_bytes_do_not_depend_on_workers(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freihand_layout, "CHUNK", 3)
    write_freihand_synth(tmp_path / "set", **COUNTS, seed=3, versions=4, workers=2)
    assert digests(tmp_path / "set") == digests(root)


def test_negative_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SynthError, match="mocap=-1"):
        write_freihand_synth(tmp_path, train=1, evaluation=0, mocap=-1, seed=0, workers=1)
