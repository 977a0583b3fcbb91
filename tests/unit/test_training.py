"""The training loops in one process: they learn, resume exactly, and leave frozen what is frozen."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from maskhand.config import INFERENCE_SETTINGS, ConfigError, EngineConfig, OptimConfig
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import geodesic_rad
from maskhand.models.build import build_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.initial_weights import load_initial
from maskhand.models.tokenizer_files import TokenizerFileError, load_tokenizer, tokenizer_digest
from maskhand.training import tokenizer_loop, transformer_loop
from maskhand.training.engine import learning_rate_factor
from maskhand.training.run_identity import deciding_values, inference_digest, run_identity
from maskhand.training.worker import WorkerContext
from support.training_fakes import FolderStore, batches, new_tokenizer, poses, small_recipe, untimed

Curve = dict[int, dict[str, float]]


class _Killed(Exception):
    pass


def _worker(folder: Path, curve: Curve, die_after: int | None = None) -> WorkerContext:
    def report(step: int, metrics: Mapping[str, float]) -> None:
        curve[step] = dict(metrics)
        if die_after is not None and step >= die_after:
            raise _Killed

    return WorkerContext(0, 1, report, FolderStore(folder))


def _train(kind: str, recipe, folder: Path, die_after: int | None = None) -> Curve:
    curve: Curve = {}
    worker = _worker(folder, curve, die_after)
    mano = ManoLayer.from_default()
    if kind == "tokenizer":
        tokenizer_loop.train(recipe, mano, poses(recipe), worker)
    else:
        transformer_loop.train(recipe, new_tokenizer(recipe), mano, batches(recipe), worker)
    return curve


@pytest.mark.parametrize("kind", ["tokenizer", "transformer"])
def test_the_loss_falls_and_all_metrics_are_reported(kind: str, tmp_path: Path) -> None:
    section = "tokenizer_training" if kind == "tokenizer" else "training"
    recipe = small_recipe(f"{section}.optim.steps=60", f"{section}.optim.log_every=10")
    curve = _train(kind, recipe, tmp_path)
    assert sorted(curve) == [10, 20, 30, 40, 50, 60]
    first, last = curve[10], curve[60]
    if kind == "tokenizer":
        assert last["train/loss"] < 0.8 * first["train/loss"]
    else:  # images of noise: the projected pose can be learned, the untrained tokenizer's codes hardly
        assert (
            last["train/loss"] < 0.95 * first["train/loss"] and last["train/joints_2d"] < 0.8 * first["train/joints_2d"]
        )
    assert {"train/lr", "train/grad_norm", "train/samples_per_s", "train/loss"} <= curve[60].keys()
    if kind == "tokenizer":
        assert 1 < last["train/perplexity"] <= recipe.tokenizer.codebook_size and 0 <= last["train/dead_share"] < 1
    assert curve[60]["train/grad_norm"] > 0


@pytest.mark.parametrize("kind", ["tokenizer", "transformer"])
def test_a_killed_run_resumes_to_the_same_losses_and_weights(kind: str, tmp_path: Path) -> None:
    # log_every 5 with checkpoints every 4 steps: a checkpoint falls between two reports and must carry half a mean
    section = "tokenizer_training" if kind == "tokenizer" else "training"
    recipe = small_recipe(f"{section}.optim.log_every=5")
    whole = _train(kind, recipe, tmp_path / "whole")
    with pytest.raises(_Killed):
        _train(kind, recipe, tmp_path / "cut", die_after=10)
    resumed = _train(kind, recipe, tmp_path / "cut")
    assert sorted(resumed) == [10, 12]
    expected = untimed(whole)
    assert untimed(resumed) == {step: expected[step] for step in resumed}
    if kind == "tokenizer":  # every checkpoint has an export
        for step in (8, 12):
            about = json.loads((tmp_path / "whole" / f"step-{step:09d}" / "export" / "tokenizer.json").read_text())
            assert about["steps"] == step
    ours, theirs = (tmp_path / run / "step-000000012" / "export" for run in ("whole", "cut"))
    names = sorted(path.name for path in ours.iterdir())
    assert len(names) >= 2 and names == sorted(path.name for path in theirs.iterdir())
    for name in names:  # digests of them decide what is trained next, so nothing of the clock is in them
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def test_stages_and_precisions_train_alike(tmp_path: Path) -> None:
    losses = {}
    for stage, precision in ((1, "fp32"), (2, "fp32"), (1, "bf16")):
        recipe = small_recipe(f"engine.zero_stage={stage}", f"engine.precision={precision}")
        folder = tmp_path / f"{stage}{precision}"
        curve = _train("tokenizer", recipe, folder)
        losses[stage, precision] = curve[12]["train/loss"]
        exported = load_tokenizer(folder / "step-000000012" / "export").state_dict()
        assert all(weight.dtype in (torch.float32, torch.int64) for weight in exported.values())
    assert losses[2, "fp32"] == pytest.approx(losses[1, "fp32"], rel=1e-6)
    assert losses[1, "bf16"] == losses[1, "fp32"], "the tokenizer is fp32 whatever the recipe"
    halves = [
        _train("transformer", small_recipe(f"engine.precision={precision}"), tmp_path / precision)[12]["train/loss"]
        for precision in ("fp32", "bf16")
    ]
    assert halves[1] == pytest.approx(halves[0], rel=0.02) and halves[1] != halves[0]


def test_fine_tuning_starts_from_the_weights_of_another_model(tmp_path: Path) -> None:
    first = _train("transformer", small_recipe(), tmp_path / "first")
    found = FolderStore(tmp_path / "first")
    with found.latest() as newest:
        assert newest is not None
        export = shutil.copytree(newest / "export", tmp_path / "export")
    tuned = small_recipe(f"training.start_from={export}")
    curve = _train("transformer", tuned, tmp_path / "tuned")
    assert curve[min(curve)]["train/loss"] < first[min(first)]["train/loss"]
    recipe, mano = small_recipe(), ManoLayer.from_default()
    model = build_model(recipe, new_tokenizer(recipe), mano)
    load_initial(model, str(export), "")
    stored = ModelBundle.load(export).model.state_dict()
    assert all(w.equal(stored[name]) for name, w in model.state_dict().items())

    other = new_tokenizer(recipe)
    with torch.no_grad():
        other.quantizer.codebook += 1
    with pytest.raises(ConfigError, match=r"it was trained on other tokens; give the tokenizer"):
        load_initial(build_model(recipe, other, mano), str(export), "")
    wider = small_recipe("model.dim=32")
    with pytest.raises(ConfigError, match=r"its weights do not fit .*of another shape: .* instead of \("):
        load_initial(build_model(wider, new_tokenizer(wider), mano), str(export), "")
    (export / "model.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"model\.pt"):
        load_initial(model, str(export), "")


def test_the_tokenizer_stays_as_it_was_while_the_transformer_trains(tmp_path: Path) -> None:
    recipe = small_recipe()
    tokenizer = new_tokenizer(recipe)
    before = copy.deepcopy(tokenizer.state_dict())
    transformer_loop.train(recipe, tokenizer, ManoLayer.from_default(), batches(recipe), _worker(tmp_path, {}))
    after = tokenizer.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    bundle = ModelBundle.load(tmp_path / "step-000000012" / "export")
    exported = bundle.model.tokenizer.state_dict()
    assert all(torch.equal(before[key], exported[key]) for key in before)
    assert bundle.metadata["steps"] == 12
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())


def test_the_exported_tokenizer_is_the_trained_one_and_damage_is_found(tmp_path: Path) -> None:
    recipe = small_recipe("tokenizer_training.optim.steps=40")
    _train("tokenizer", recipe, tmp_path)
    folder = tmp_path / "step-000000040" / "export"
    tokenizer = load_tokenizer(folder, expected=recipe.tokenizer)
    state = torch.load(folder.parent / "checkpoint" / "state.pt", weights_only=True)
    trained = torch.load(folder.parent / "checkpoint" / "rank-00000.pt", weights_only=True)
    for name, weight in tokenizer.state_dict().items():
        if name != "influence":  # measured for the export
            full = f"tokenizer.{name}"
            kept = state["buffers"][full] if full in state["buffers"] else trained[full]["weight"].view_as(weight)
            assert torch.equal(weight, kept), name
    rotmats = next(poses(recipe)(0))
    assert len(tokenizer.encode(rotmats).unique()) > 1
    assert not tokenizer.training and not any(p.requires_grad for p in tokenizer.parameters())

    again = tmp_path / "again"
    again.mkdir()
    (again / "tokenizer.pt").write_bytes((folder / "tokenizer.pt").read_bytes())
    about = json.loads((folder / "tokenizer.json").read_text()) | {"recipe": "other", "metrics": {}}
    (again / "tokenizer.json").write_text(json.dumps(about))
    assert tokenizer_digest(again) == tokenizer_digest(folder), "what it was called decides no token"
    (again / "tokenizer.json").write_text(json.dumps(about | {"sha256": "0" * 64}))
    assert tokenizer_digest(again) != tokenizer_digest(folder)

    with pytest.raises(TokenizerFileError, match="width"):
        load_tokenizer(folder, expected=recipe.tokenizer.model_copy(update={"width": 99}))
    weights = folder / "tokenizer.pt"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(TokenizerFileError, match=r"tokenizer\.pt.*sha256"):
        load_tokenizer(folder)
    with pytest.raises(TokenizerFileError, match="train one first"):
        load_tokenizer(tmp_path / "nowhere")


def test_hands_are_turned_as_a_whole_and_by_their_place_in_the_global_batch() -> None:
    recipe = small_recipe()
    settings = recipe.tokenizer_training
    rotmats = next(poses(small_recipe("tokenizer_training.optim.batch=64"))(0))
    slots = torch.arange(64)
    turned = tokenizer_loop.rotate_hands(rotmats, slots, 64, settings, seed=3, step=5)
    assert torch.equal(turned[:, 1:], rotmats[:, 1:]), "fingers do not move"
    assert torch.allclose(turned.det(), torch.ones(64, 16), atol=1e-5)

    half = tokenizer_loop.rotate_hands(rotmats[1::2], slots[1::2], 64, settings, seed=3, step=5)
    assert torch.equal(half, turned[1::2])
    assert not torch.equal(tokenizer_loop.rotate_hands(rotmats, slots, 64, settings, seed=3, step=6), turned)

    in_plane = settings.model_copy(update={"random_rotation": 0.0})
    turn = tokenizer_loop.rotate_hands(rotmats, slots, 64, in_plane, seed=3, step=5)[:, 0] @ rotmats[:, 0].mT
    assert torch.allclose(turn[:, 2], torch.tensor([0.0, 0.0, 1.0]).expand(64, 3), atol=1e-5), "about the viewing axis"
    angle_deg = geodesic_rad(turn, torch.eye(3)).rad2deg()
    assert angle_deg.max() <= 60.01 and angle_deg.max() > 45

    anywhere = settings.model_copy(update={"random_rotation": 1.0})
    turn = tokenizer_loop.rotate_hands(rotmats, slots, 64, anywhere, seed=3, step=5)[:, 0] @ rotmats[:, 0].mT
    assert geodesic_rad(turn, torch.eye(3)).rad2deg().median() > 100, (
        "a uniform rotation turns by 126.5 degrees on average"
    )


def test_learning_rate_warms_up_and_falls() -> None:
    optim = OptimConfig(steps=100, batch=1, lr=1.0, warmup_steps=10, schedule="cosine")
    factors = [learning_rate_factor(step, optim) for step in range(100)]
    assert factors[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert factors[10] == 1.0 and factors[55] == pytest.approx(0.505) and factors[99] == pytest.approx(0.01, abs=1e-3)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    constant = optim.model_copy(update={"schedule": "constant"})
    assert [learning_rate_factor(step, constant) for step in (9, 10, 99)] == [1.0, 1.0, 1.0]


def test_run_identity_knows_what_decides_a_training() -> None:
    recipe, inputs = small_recipe(), {"freihand_synth/training": "aaa"}
    identity = run_identity("transformer", recipe, inputs)
    other_settings = small_recipe("sampler.iterations=9", "evaluate.batch=3", "data.evaluate=[x/y]")
    assert identity == run_identity("transformer", other_settings, inputs)
    assert inference_digest(recipe) != inference_digest(other_settings)
    assert inference_digest(recipe) == inference_digest(small_recipe("model.dim=32", "data.loader_workers=1"))
    assert identity != run_identity("transformer", small_recipe("model.dim=32"), inputs)
    assert identity != run_identity("transformer", recipe, {"freihand_synth/training": "bbb"})
    assert identity != run_identity("tokenizer", recipe, inputs)
    assert run_identity("tokenizer", recipe, inputs) == run_identity("tokenizer", small_recipe("model.dim=32"), inputs)


def test_a_tokenizer_is_not_trained_again_for_what_it_never_reads() -> None:
    recipe = small_recipe()
    unread = (
        "data.evaluate=[x/y]", "data.loader_workers=3", "data.augment.scale=0.0", "data.crop_px=128",
        "data.keypoints.detector=openpose-hand", "engine.threads_per_worker=2", "engine.max_failures=0",
        "engine.precision=bf16", "engine.workers=4", "engine.zero_stage=2", "engine.use_gpu=true",
    )  # fmt: skip
    for change in unread:
        assert run_identity("tokenizer", small_recipe(change), {}) == run_identity("tokenizer", recipe, {}), change
    turned = f"data.mocap={str(not recipe.data.mocap).lower()}"
    for change in ("data.train_poses={x/y: 1.0}", turned, "seed=9"):
        assert run_identity("tokenizer", small_recipe(change), {}) != run_identity("tokenizer", recipe, {}), change
    spelled_out = small_recipe(f"data.train_poses={json.dumps(recipe.data.train)}")
    assert run_identity("tokenizer", spelled_out, {}) == run_identity("tokenizer", recipe, {})


def test_every_key_of_a_recipe_decides_a_training_or_is_known_to_decide_none() -> None:
    recipe = small_recipe()
    read = deciding_values("tokenizer", recipe).keys() | deciding_values("transformer", recipe).keys()
    unread = {key for key in recipe.flat().keys() - read if not f"{key}.".startswith(INFERENCE_SETTINGS)}
    through_pose_sets = {key for key in unread if key.startswith("data.train_poses")}
    shares = {f"engine.{name}" for name in EngineConfig.model_fields} - {"engine.precision"}
    assert unread - through_pose_sets == {"name", "data.evaluate", "data.loader_workers"} | shares
