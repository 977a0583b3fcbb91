"""Batches in their order: a pure function of seed and step, on any number of workers; evaluation, photos, poses."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from functools import partial

import cv2
import numpy as np
import pytest
import torch

from maskhand.annotate.mano_targets import annotate_mano
from maskhand.loading import collate
from maskhand.loading.loader import _StepsOfWorker, _TrainingBatches, eval_range, eval_rows, train_batches
from maskhand.loading.photo import photo_batch
from maskhand.loading.poses import pose_batches
from maskhand.recipe_files import load_recipe
from maskhand.shards import reader
from maskhand.shards.mixture import TrainingStream
from support.hand_sets import make_samples, write_set
from support.loading_parts import HARD_PHOTOS, interleave, same, take, tiny


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    uri = str(root / "dots" / "training")
    write_set(uri, make_samples(26, size=(96, 80), sides=("right", "left")), shard_size=3)
    annotate_mano(uri)
    return root


@pytest.fixture
def recipe():
    return tiny("data.train={dots/training: 1.0}", "training.optim.batch=8", "data.crop_px=64", "evaluate.batch=4")


@pytest.mark.parametrize("photos", [False, True])
def test_batches_do_not_depend_on_the_world_size(shards, recipe, photos):
    if photos:
        augment = recipe.data.augment.model_copy(update=HARD_PHOTOS)
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"augment": augment})})
    alone = take(train_batches(recipe, str(shards)), 5)
    for world in (2, 4):
        ranks = [take(train_batches(recipe, str(shards), rank=r, world=world), 5) for r in range(world)]
        for step, expected in enumerate(alone):
            assert same(interleave([r[step] for r in ranks]), expected), (world, step)


def test_training_resumes_exactly_at_any_step(shards, recipe):
    batches = take(train_batches(recipe, str(shards)), 9)
    for start in (1, 4, 8):
        assert same(take(train_batches(recipe, str(shards), start_step=start), 1)[0], batches[start])
    assert not same(batches[0], batches[1])
    assert not same(take(train_batches(recipe, str(shards), seed=1), 1)[0], batches[0])


def test_a_training_batch_has_the_documented_fields(shards, recipe):
    batch = take(train_batches(recipe, str(shards)), 1)[0]
    assert batch.pixels.shape == (8, 64, 48, 4) and batch.pixels.dtype == torch.uint8
    assert batch.image.shape == (8, 3, 64, 48) and batch.image.dtype == torch.float32
    assert batch.color_gain.shape == (8, 3) and (batch.color_gain - 1).abs().max() <= 0.2 and batch.color_gain.std() > 0
    assert batch.crop_from_image.dtype == torch.float64 and batch.is_left.dtype == torch.bool
    assert batch.keypoints_2d.shape == (8, 21, 7) and (batch.index == -1).all()
    assert batch.has_mano.all() and batch.image_size_px.tolist() == [[96, 80]] * 8
    assert torch.allclose(torch.linalg.det(batch.rotmats), torch.ones(8, 16), atol=1e-5)


def test_a_loader_process_keeps_to_one_thread(shards, recipe, monkeypatch):
    calls = {}
    for library, name in ((cv2, "setNumThreads"), (torch, "set_num_threads")):
        monkeypatch.setattr(library, name, partial(calls.__setitem__, name))
    next(iter(_StepsOfWorker(_TrainingBatches(recipe, str(shards), 0, 1, 0), 0)))
    assert calls == {"setNumThreads": 1, "set_num_threads": 1}


def test_no_image_is_decoded_for_a_network_that_sees_keypoints_alone(shards, recipe, monkeypatch):
    expected = take(train_batches(recipe, str(shards)), 1)[0]
    lifter = recipe.model_copy(update={"model": recipe.model.model_copy(update={"decoder": "lifter"})})
    monkeypatch.setattr(collate, "decode_for_crop", None)
    batch = take(train_batches(lifter, str(shards)), 1)[0]
    assert not batch.pixels[..., :3].any()
    assert same(dataclasses.replace(batch, pixels=expected.pixels), expected)


@pytest.mark.slow
def test_loader_processes_change_nothing(shards, recipe):
    expected = take(train_batches(recipe, str(shards), start_step=2), 5)
    parallel = recipe.model_copy(update={"data": recipe.data.model_copy(update={"loader_workers": 2})})
    for got, wanted in zip(take(train_batches(parallel, str(shards), start_step=2), 5), expected, strict=True):
        assert same(got, wanted)


def test_the_stream_of_a_loader_process_is_every_nth_run_of_the_whole(shards):
    stream = TrainingStream({str(shards / "dots" / "training"): 1.0}, ("mano",), rank=1, world=2)
    whole = [s.sample.key for s in itertools.islice(stream.iterate(5), 30)]
    for worker in range(3):
        part = [s.sample.key for s in itertools.islice(stream.iterate(5 + worker * 2, run=2, stride=3), 10)]
        assert part == [key for k, key in enumerate(whole) if k // 2 % 3 == worker]


def test_a_set_too_large_to_keep_gives_the_same_stream(shards, monkeypatch):
    stream = TrainingStream({str(shards / "dots" / "training"): 1.0}, ("mano",))
    kept = [s.sample.key for s in itertools.islice(stream.iterate(), 60)]
    monkeypatch.setattr("maskhand.shards.mixture.KEEP_BYTES", 0)
    assert [s.sample.key for s in itertools.islice(stream.iterate(), 60)] == kept


def test_the_batch_must_divide_over_the_workers(shards, recipe):
    with pytest.raises(ValueError, match="multiple of 3"):
        next(train_batches(recipe, str(shards), world=3))


@pytest.mark.parametrize("cuts", [[0, 26], [0, 8, 20, 26]])
def test_evaluation_gives_each_sample_once_however_it_is_cut(shards, recipe, cuts):
    uri = str(shards / "dots" / "training")
    pieces = [list(eval_range(recipe, uri, a, b, 4)) for a, b in itertools.pairwise(cuts)]
    assert [rows.hands.index.tolist() for piece in pieces for rows in piece] == [
        list(range(k, min(k + 4, 26))) for k in range(0, 26, 4)
    ]
    assert list(eval_range(recipe, uri, 26, 99, 4)) == []


def test_evaluations_that_follow_each_other_read_a_shard_once(shards, recipe, monkeypatch, tmp_path):
    read, real = [], reader.read_tar
    monkeypatch.setattr(reader, "read_tar", lambda part, entry: read.append((part, entry.name)) or real(part, entry))
    for copied in (tmp_path / "one", tmp_path / "two"):
        shutil.copytree(shards, copied)
        uri = str(copied / "dots" / "training")
        pieces = [eval_range(recipe, uri, start, start + 2, 2) for start in range(0, 26, 2)]
        assert [k for piece in pieces for rows in piece for k in rows.hands.index.tolist()] == list(range(26))
    assert len(read) == len(set(read)) == 2 * 2 * 9, "two sets of nine shards: images and targets"


def test_images_of_an_evaluation_are_decoded_once(shards, recipe, monkeypatch):
    samples = next(eval_range(recipe, str(shards / "dots" / "training"), 0, 4, 4)).samples
    decoded, real = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda *args: decoded.append(args) or real(*args))
    whole = eval_rows(recipe, samples)
    assert len(decoded) == 4 and not whole.unreadable.any()
    for broken in (b"", b"no image", samples[2].sample.image[:60]):
        damaged = dataclasses.replace(samples[2], sample=dataclasses.replace(samples[2].sample, image=broken))
        rows = eval_rows(recipe, [*samples[:2], damaged, samples[3]])
        assert rows.unreadable.tolist() == [False, False, True, False]
        assert not rows.hands.pixels[2, ..., :3].any()
        assert torch.equal(rows.hands.pixels[[0, 1, 3]], whole.hands.pixels[[0, 1, 3]])


def test_evaluation_rows_are_their_samples(shards, recipe):
    for rows in eval_range(recipe, str(shards / "dots" / "training"), 0, 26, 4):
        assert rows.hands.index.tolist() == [s.index for s in rows.samples]
        assert rows.hands.is_left.tolist() == [s.sample.side == "left" for s in rows.samples]
        assert torch.equal(rows.hands.keypoints_2d[..., :2], rows.hands.joints_2d) and not rows.unreadable.any()


def test_a_photo_takes_the_same_path(shards, recipe):
    uri = str(shards / "dots" / "training")
    rows = next(eval_range(recipe, uri, 0, 4, 4))
    batch, samples = rows.hands, rows.samples
    for row in (0, 1):
        sample = samples[row].sample
        image = cv2.cvtColor(cv2.imdecode(np.frombuffer(sample.image, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        photo = photo_batch(
            image,
            sample.box_xyxy_px[None],
            [sample.side],
            recipe.data,
            keypoints_px=sample.joints_2d_px[None],
            confidence=np.ones((1, 21)),
            K_px=sample.camera.K_px,
        )
        for name in ("image", "keypoints_2d", "crop_from_image", "is_left"):
            assert torch.allclose(getattr(photo, name)[0].double(), getattr(batch, name)[row].double()), name


# ---------------------------------------------------------------------------------------------------- poses


def test_pose_batches_share_rows_over_ranks_and_resume(shards, tmp_path):
    rng = np.random.default_rng(0)
    mocap = tmp_path / "mocap.npz"
    poses = rng.normal(0, 0.4, (50, 48))
    poses[:, 3:6] = 0  # an index finger that no hand of the set has
    np.savez(mocap, hand_pose=poses, betas=np.zeros((50, 10)))
    recipe = tiny("data.train={dots/training: 1.0}", "tokenizer_training.optim.batch=64")
    alone = take(pose_batches(recipe, str(shards), mocap=[str(mocap)]), 3)
    ranks = [take(pose_batches(recipe, str(shards), mocap=[str(mocap)], rank=r, world=2), 3) for r in range(2)]
    for step, rotmats in enumerate(alone):
        assert rotmats.shape == (64, 16, 3, 3) and rotmats.dtype == torch.float32
        assert torch.equal(torch.stack([r[step] for r in ranks], 1).flatten(0, 1), rotmats)
    resumed = next(pose_batches(recipe, str(shards), mocap=[str(mocap)], start_step=2))
    assert torch.equal(resumed, alone[2])

    def share_of_mocap(batches: list[torch.Tensor]) -> float:
        return (torch.cat(batches)[:, 1] == torch.eye(3)).flatten(1).all(1).float().mean().item()

    assert 0.35 < share_of_mocap(alone) < 0.65
    assert share_of_mocap(take(pose_batches(recipe, str(shards)), 3)) == 0


def test_a_pose_file_of_another_layout_is_named(shards, tmp_path):
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, hand_pose=np.zeros((4, 45)), betas=np.zeros((4, 10)))
    recipe = tiny("data.train={dots/training: 1.0}")
    with pytest.raises(ValueError, match=r"wrong\.npz.*\(4, 45\)"):
        next(pose_batches(recipe, str(shards), mocap=[str(wrong)]))


# ---------------------------------------------------------------------------------------------------- mixture, masks


def test_the_default_mixture_is_hamers():
    """Weights of HaMeR's `mix_all.yaml`; its MPIINZSL is two datasets here, in five parts."""
    data = load_recipe("base").data
    shares: dict[str, float] = {}
    for name, weight in data.train.items():
        family = name.split("/")[0]
        shares[family] = shares.get(family, 0.0) + weight
    shares["mpiinzsl"] = shares.pop("mpii_nzsl") + shares.pop("hand_labels_synth")
    assert shares == pytest.approx(
        {
            "freihand": 0.25, "interhand26m": 0.25, "mtc": 0.10, "coco_wholebody": 0.10, "rhd": 0.05, "halpe": 0.05,
            "mpiinzsl": 0.05, "ho3d_v2": 0.05, "h2o3d": 0.05, "dexycb": 0.05,
        }
    )  # fmt: skip
    assert sum(data.train.values()) == pytest.approx(1.0)
