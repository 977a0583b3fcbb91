"""Hands without image in a batch: their labels, what the networks make of them, and the token queries."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from maskhand.annotate.mano_targets import annotate_mano
from maskhand.batch import HandBatch
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.loading.loader import train_batches
from maskhand.loading.posed_hands import FOCAL_PX, SIZE_PX, PosedHands
from maskhand.loading.poses import PosePool, PosePools, read_pools
from maskhand.models.build import build_model
from maskhand.models.vq_mano import VQMano
from maskhand.training.seeds import global_slots
from maskhand.training.transformer_loop import TransformerObjective
from maskhand.training.worker import WorkerContext, no_report
from support.hand_sets import make_samples, write_set
from support.loading_parts import interleave, same, take, tiny
from support.model_parts import random_batch, random_poses, small_recipe
from support.training_fakes import FolderStore

SEEING = {
    "image_joints": True, "camera": "residual", "ref_points": "projected", "pose2d_tokens": 21,
    "pose2d_inputs": "xyz_world", "query_width": 24,
}  # fmt: skip


def supply(count: int = 40) -> PosedHands:
    rng = np.random.default_rng(0)
    pool = PosePool(rng.normal(0, 0.3, (count, 16, 3)).astype("f4"), rng.normal(0, 1, (count, 10)).astype("f4"))
    return PosedHands(
        PosePools(pool, np.array([count // 4, count - count // 4]), np.array([0.5, 0.5])), ManoLayer.from_default()
    )


def test_labels_are_posed_hands_of_the_pools_before_a_pinhole_camera() -> None:
    hands, count = supply(), 400
    labels = hands.labels(3, np.arange(count))
    rotmats = axis_angle_to_matrix(torch.from_numpy(labels.pose_aa).float())
    mesh = hands.mano(rotmats, torch.from_numpy(labels.betas).float())
    expected = (mesh.joints_m - mesh.joints_m[:, :1]).numpy()
    np.testing.assert_allclose(labels.joints_3d_m, expected, atol=1e-5)
    # from three joints at least the camera follows: x - c = f X / Z is linear in the wrist's position
    for joints, points in zip(labels.joints_3d_m[:5], labels.joints_2d_px[:5], strict=True):
        ray = (points - (SIZE_PX - 1) / 2) / FOCAL_PX
        rows = [[[1, 0, -x], [0, 1, -y]] for x, y in ray]
        right = [[x * z - a, y * z - b] for (x, y), (a, b, z) in zip(ray, joints, strict=True)]
        wrist, residual, *_ = np.linalg.lstsq(np.reshape(rows, (-1, 3)), np.reshape(right, -1), rcond=None)
        assert 0.2 < wrist[2] < 1.4 and residual[0] < 1e-10
    fingers = {row.tobytes() for row in hands.pools.poses.pose_aa[:, 1:].round(4)}
    assert all(row.astype("f4").round(4).tobytes() in fingers for row in labels.pose_aa[:20, 1:])
    first = np.linalg.norm(labels.pose_aa[:, None, 1:] - hands.pools.poses.pose_aa[None, :10, 1:], axis=(2, 3)).min(1)
    assert (first < 1e-3).mean() == pytest.approx(0.5, abs=0.08), "sources are drawn by their shares"
    # uniform rotations: the mean matrix is 0, and the mean angle is pi/2 + 2/pi
    orientation = rotmats[:, 0].numpy()
    assert np.abs(orientation.mean(0)).max() < 0.1
    assert np.linalg.norm(labels.pose_aa[:, 0], axis=1).mean() == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.1)


def test_batches_have_them_behind_the_images_whatever_the_workers(tmp_path) -> None:
    uri = str(tmp_path / "dots" / "training")
    write_set(uri, make_samples(12), shard_size=3)
    annotate_mano(uri)
    common = ("data.train={dots/training: 1.0}", "training.optim.batch=4", "data.crop_px=64", "data.upright=true")
    plain, recipe = tiny(*common), tiny(*common, "data.posed_hands=6", "data.keypoints.drop_pose=1")
    posed = PosedHands(read_pools(recipe, str(tmp_path), ()), ManoLayer.from_default())
    alone = take(train_batches(recipe, str(tmp_path), posed=posed), 2)
    for batch, seen in zip(alone, take(train_batches(plain, str(tmp_path)), 2), strict=True):
        assert len(batch.pixels) == len(batch.image) == 4 and len(batch.keypoints_2d) == 10
        assert torch.equal(batch.pixels, seen.pixels) and torch.equal(batch.rotmats[:4], seen.rotmats)
        assert not batch.keypoints_2d[:4].any() and batch.keypoints_2d[4:, :, 2].any(1).all(), "their pose is kept"
        assert batch.keypoints_2d[4:, :, 3:].any() and batch.has_mano[4:].all()
    assert not torch.equal(alone[0].rotmats[4:], alone[1].rotmats[4:])
    ranks = [take(train_batches(recipe, str(tmp_path), rank=r, world=2, posed=posed), 2) for r in range(2)]
    for step, expected in enumerate(alone):
        with_image = interleave([first_rows(r[step], 2) for r in ranks])
        without = interleave([first_rows(r[step], 5, start=2) for r in ranks])
        assert same(with_image.followed_by(without), expected, tolerance=1e-5)
    for other, given in ((recipe, None), (plain, posed)):
        with pytest.raises(ValueError, match=r"data.posed_hands=[06], and the hands are (not )?given"):
            train_batches(other, str(tmp_path), posed=given)
    with pytest.raises(ValueError, match=r"data.posed_hands=6 does not divide over 4"):
        train_batches(recipe, str(tmp_path), world=4, posed=posed)


@pytest.mark.parametrize("queries", ["position", "conditioned"])
@pytest.mark.parametrize("decoder", ["masked", "regression", "lifter"])
def test_images_and_hands_without_do_not_mix(decoder: str, queries: str) -> None:
    recipe = small_recipe(**SEEING, decoder=decoder, token_queries=queries)
    tokenizer = VQMano(recipe.tokenizer)
    tokenizer(random_poses(64))
    model = build_model(recipe, tokenizer, ManoLayer.from_default()).eval()
    whole, ids = random_batch(5), torch.full((5, model.num_tokens), model.mask_id)
    mixed, seen, unseen = first_rows(whole, 5, images=2), first_rows(whole, 2), first_rows(whole, 5, start=2, images=0)
    options = {"self_condition": True} if model.self_conditioned else {}
    together, alone = (model(model.condition(b), b.keypoints_2d, ids[: len(b.index)], **options) for b in (mixed, seen))
    for name in ("logits", "betas", "placement", "rotmats", "image_joints"):
        both, only = getattr(together, name), getattr(alone, name)
        assert (both is None) == (only is None)
        if both is not None:
            assert len(both) == 5 and torch.allclose(both[:2], only, atol=1e-5)
    other = mixed.pixels.flip(0) if decoder != "lifter" else mixed.pixels
    changed = dataclasses.replace(mixed, pixels=other)
    again = model(model.condition(changed), changed.keypoints_2d, ids, **options)
    assert torch.allclose(again.betas[2:], together.betas[2:]), "no image reaches a hand without"
    assert unseen.pixels.shape[0] == 0


def test_the_loss_is_the_mean_over_all_hands_and_asks_no_image_joints_of_those_without() -> None:
    recipe = small_recipe(**SEEING, token_queries="conditioned")
    tokenizer = VQMano(recipe.tokenizer)
    tokenizer(random_poses(64))
    objective = TransformerObjective(build_model(recipe, tokenizer, ManoLayer.from_default()).eval(), recipe)
    batch, slots = first_rows(random_batch(5), 5, images=2), torch.arange(5)
    loss, terms = objective(batch, slots, 0)
    loss.backward()
    assert all(p.grad is not None for p in objective.model.queries.parameters())
    _, alone = objective(first_rows(batch, 2), slots[:2], 0)
    torch.testing.assert_close(terms["image_joints"] * 5, alone["image_joints"] * 2)


def first_rows(batch: HandBatch, stop: int, start: int = 0, images: int | None = None) -> HandBatch:
    """Rows start..stop-1, of which the first `images` (None: as many as there are) have one."""
    with_image = slice(start, stop if images is None else start + images)
    rows = {f.name: getattr(batch, f.name)[start:stop] for f in dataclasses.fields(batch)}
    return HandBatch(**rows | {name: getattr(batch, name)[with_image] for name in ("pixels", "color_gain")})


def test_without_them_no_rank_has_rows_of_them() -> None:
    contexts = [WorkerContext(rank, 2, no_report, FolderStore(Path())) for rank in range(2)]
    assert [global_slots(0, context).tolist() for context in contexts] == [[], []]
    assert [global_slots(6, context).tolist() for context in contexts] == [[0, 2, 4], [1, 3, 5]]
