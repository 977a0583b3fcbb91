"""The glue of the steps: receipts that hold, fingerprints of raw data, rebuilding, names of things."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from maskhand.annotate.mano_targets import annotate_mano
from maskhand.catalog import catalog_dirs, load_spec
from maskhand.cluster.checkpoints import Checkpoints, LastCheckpoint
from maskhand.cluster.run_folder import FitResult, HeldRun, TrainingError, acquire, held_run
from maskhand.config import ConfigError
from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import OPEN_HAND_FOLDER
from maskhand.lock import LockedError
from maskhand.models.build import build_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.vq_mano import VQMano
from maskhand.progress import silent
from maskhand.recipe_files import load_recipe
from maskhand.shards.layout import ShardError
from maskhand.shards.mixture import held_out_places
from maskhand.steps import data, generate, models, registration, step_inputs, synthetic, train
from maskhand.steps.evaluate_set import evaluate_set
from maskhand.steps.names import TOKENIZER_FILE
from maskhand.steps.receipt import Receipt
from maskhand.steps.synthetic import with_hands_to_validate_on
from maskhand.storage import StorageError
from maskhand.tracking import Tracker, TrackingServerError, server_version
from maskhand.training.run_identity import Kind, run_identity
from maskhand.workspace import Workspace
from support.hand_sets import make_samples, write_set
from support.published_layouts import WRITERS
from support.published_layouts.hands import licensed_folder
from support.warned import warnings_of


def test_a_receipt_is_current_until_its_file_changes_or_goes(tmp_path: Path) -> None:
    path = tmp_path / "set" / "manifest.json"
    path.parent.mkdir()
    path.write_text("one")
    receipt = data.PartReceipt.of(str(path), samples=3, rejected=0, data_digest="d")
    assert receipt.is_current() and receipt.folder == str(path.parent)
    assert receipt.facts == {"samples": 3, "rejected": 0, "data_digest": "d"}
    path.write_text("two")
    assert not receipt.is_current()
    path.unlink()
    assert not receipt.is_current()
    with pytest.raises(StorageError, match="manifest"):
        Receipt.of(str(path))


def test_the_fingerprint_of_raw_data_follows_annotations_not_images(tmp_path: Path) -> None:
    (tmp_path / "annotations" / "train").mkdir(parents=True)
    label = tmp_path / "annotations" / "train" / "joints.json"
    label.write_text("{}")
    first = step_inputs.raw_fingerprint(str(tmp_path))
    (tmp_path / "image.jpg").write_bytes(b"x")
    assert step_inputs.raw_fingerprint(str(tmp_path)) == first
    os.utime(label, ns=(1, 1))
    second = step_inputs.raw_fingerprint(str(tmp_path))
    assert second != first
    (tmp_path / "more.json").write_text("{}")
    assert step_inputs.raw_fingerprint(str(tmp_path)) not in (first, second)


@pytest.mark.parametrize(
    ("name", "split", "deepest"),
    [
        ("hamer_tars", "freihand-train", "hamer_training_data/dataset_tars/freihand-train/*.tar"),
        ("ho3d_v2", "train", "train/*/meta/*.pkl"),
        ("dexycb", "s0_train", "*/*/*/labels_*.npz"),
    ],
)
def test_the_fingerprint_sees_every_label_file_of_a_published_layout(
    name: str, split: str, deepest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(licensed_folder(tmp_path / "mano")))
    spec = load_spec(name)
    root = WRITERS[spec.layout](tmp_path / "raw", spec, split, 6).raw_dir
    labels = [path for path in root.rglob("*.*") if path.suffix not in (".jpg", ".png") and path.is_file()]
    assert set(root.glob(deepest)) & set(labels)
    seen = {step_inputs.raw_fingerprint(str(root))}
    for path in labels:
        os.utime(path, ns=(1, 1))
        seen.add(step_inputs.raw_fingerprint(str(root)))
    assert len(seen) == len(labels) + 1


def test_the_fingerprint_follows_links_and_ends(tmp_path: Path) -> None:
    raw, elsewhere = tmp_path / "raw", tmp_path / "elsewhere"
    for folder in (raw, elsewhere):
        folder.mkdir()
    (elsewhere / "joints.json").write_text("{}")
    (raw / "train").symlink_to(elsewhere)
    (elsewhere / "above").symlink_to(raw)
    (raw / "gone.json").symlink_to(tmp_path / "nothing")
    first = step_inputs.raw_fingerprint(str(raw))
    (elsewhere / "joints.json").write_text("{ }")
    assert step_inputs.raw_fingerprint(str(raw)) != first


def test_what_shards_are_made_of_is_the_card_and_the_hand_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = step_inputs.source_digests("freihand")
    card = tmp_path / "catalog" / "freihand" / "card.yaml"
    card.parent.mkdir(parents=True)
    text = (catalog_dirs()[0] / "freihand" / "card.yaml").read_text()
    card.write_text(text.replace("units: m\n", "units: mm\n"))
    monkeypatch.setenv("MASKHAND_CATALOG", str(card.parents[1]))
    other_card = step_inputs.source_digests("freihand")
    assert other_card["card"] != own["card"] and other_card["hand_model"] == own["hand_model"]
    (tmp_path / "MANO_RIGHT.pkl").write_bytes((OPEN_HAND_FOLDER / "OPEN_HAND_RIGHT.pkl").read_bytes() + b"\n")
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(tmp_path))
    assert step_inputs.source_digests("freihand")["hand_model"] != own["hand_model"]


def test_a_training_asks_for_what_it_reads_alone(tmp_path: Path) -> None:
    home, uri = Workspace(tmp_path, str(tmp_path / "shards")), str(tmp_path / "shards" / "freihand_synth" / "training")
    write_set(uri, make_samples(2))
    annotate_mano(uri)
    recipe = load_recipe("tiny", ["data.train={freihand_synth/training: 1.0}", "data.mocap=false"])
    part, poses = "freihand_synth/training", {"hand_model", "code"}
    assert step_inputs.training_digests(home, "tokenizer", recipe).keys() == poses | {f"{part}/mano"}
    with pytest.raises(ShardError, match="keypoints"):
        step_inputs.training_digests(home, "transformer", recipe)
    annotated = load_recipe("tiny", ["data.keypoints.train_source=annotated"])
    found = step_inputs.training_digests(home, "transformer", annotated)
    assert found.keys() == poses | {f"{part}/images", f"{part}/mano"}


def test_targets_of_another_hand_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    _set_with_targets(home)
    (tmp_path / "MANO_RIGHT.pkl").write_bytes((OPEN_HAND_FOLDER / "OPEN_HAND_RIGHT.pkl").read_bytes() + b"\n")
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(tmp_path))
    recipe = load_recipe("tiny", ["data.mocap=false", "data.keypoints.train_source=annotated"])
    kinds: tuple[Kind, ...] = ("tokenizer", "transformer")
    for kind in kinds:
        with pytest.raises(ShardError, match=r"mano: .* hand model .*MASKHAND_MANO_DIR.*annotate mano .* --rebuild"):
            step_inputs.training_digests(home, kind, recipe)
    bundle: Any = SimpleNamespace(hand_digest=step_inputs.source_digests("freihand")["hand_model"])
    with pytest.raises(ShardError, match="the model has"):
        evaluate_set(home, bundle, "freihand_synth/training", silent, baseline=None)


def test_a_training_asks_for_the_shipped_files_and_detections_that_decide_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    _set_with_targets(home)
    (tmp_path / "weights.pt").write_bytes(b"")
    monkeypatch.setattr(step_inputs, "OPEN_WEIGHTS", tmp_path / "weights.pt")
    open_encoder = "model.backbone={name: hand_landmark, kwargs: {}, checkpoint: open}"
    simulated = ["data.keypoints.train_source=simulated", open_encoder]
    found = step_inputs.training_digests(home, "transformer", load_recipe("tiny", simulated))
    assert found["open_model"] == "e3b0c44298fc" and len(found["detector_errors"]) == 12

    validated, part = load_recipe("tiny", [*simulated, "training.validate_every=5"]), "keypoints.litert-hand"
    assert step_inputs.training_digests(home, "transformer", validated) == found
    monkeypatch.setattr(step_inputs, "find_manifest", lambda uri, _: SimpleNamespace(digest=uri))
    assert step_inputs.training_digests(home, "transformer", load_recipe("tiny", simulated)) == found
    seen = step_inputs.training_digests(home, "transformer", validated)
    uri = home.shard_set("freihand_synth/training")
    assert seen == found | {f"freihand_synth/training/{part}": uri}


def _set_with_targets(home: Workspace) -> None:
    uri = home.shard_set("freihand_synth/training")
    write_set(uri, make_samples(2))
    annotate_mano(uri)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ([], r"no keypoints.litert-hand shards here"),
        (["data.keypoints.detector=openpose-hand"], r"no keypoints.openpose-hand shards here"),
        (["model.backbone.name=vit_tny"], r"cannot build a vision transformer 'vit_tny'"),
        (["model.backbone.checkpoint=/tmp/none.pt"], r"no file /tmp/none\.pt"),
        (["training.start_from=/tmp/none"], r"no file /tmp/none/model\.pt"),
        (["training.start_from=here"], r"training\.start_from=here: write /.*/here; workers have"),
        (["model.backbone.checkpoint=vit.pt"], r"vit\.pt: write /.*/vit\.pt; workers have"),
        (["training.optim.batch=33"], r"training\.optim\.batch=33 does not divide over engine\.workers=2"),
        (["data.shard_streams=15"], r"data\.shard_streams=15 does not divide over engine\.workers=2"),
        (
            ["engine.workers=64", "training.optim.batch=64", "data.shard_streams=64"],
            r"engine\.workers=64 .* needs 64 CPUs",
        ),
        (["model.condition=text", "model.text.encoder=clip"], r"model\.text\.checkpoint is null"),
        (
            ["data.keypoints.train_source=annotated", "training.validate_every=1"],
            r"held_out=0\.05 of 2 hands of freihand_synth/training leaves none to validate on; .*held_out=0\.5 leaves",
        ),
    ],
)
def test_what_no_transformer_can_be_trained_with_is_found_before_its_tokenizer(
    changes: list[str], sentence: str, tmp_path: Path
) -> None:
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    _set_with_targets(home)
    with pytest.raises((ValueError, ShardError, TrainingError), match=sentence):
        train.check_before_tokenizer(home, "tiny", ["data.mocap=false", *changes])
    assert not home.runs.exists()


def test_a_label_that_is_no_part_of_a_path_is_refused_before_the_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"label '\.\./\.\./pwned': expected at most 120 letters"):
        train.check_before_tokenizer(Workspace(tmp_path, str(tmp_path / "shards")), "tiny", [], "../../pwned")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lacks", [0, 1])
def test_held_out_hands_without_3d_joints_are_found_before_the_tokenizer(lacks: int, tmp_path: Path) -> None:
    home, samples = Workspace(tmp_path, str(tmp_path / "shards")), make_samples(2)
    samples[lacks] = replace(samples[lacks], joints_cam_m=None, joints_3d_valid=None, vertices_cam_m=None)
    uri = home.shard_set("freihand_synth/training")
    write_set(uri, samples)
    annotate_mano(uri)
    changes = ["data.mocap=false", "data.keypoints.train_source=annotated", "training.validate_every=1"]
    ask = partial(train.check_before_tokenizer, home, "tiny", [*changes, "data.held_out=0.5"])
    if lacks == held_out_places(2, 0.5).item():
        with pytest.raises(ConfigError, match=r"held_out=0\.5: no hand that is held out of .*training has 3D joints"):
            ask()
    else:
        ask()


@pytest.mark.parametrize("hands", [8, 13, 16, 300])
def test_a_small_quickstart_has_hands_to_validate_on(hands: int) -> None:
    assert with_hands_to_validate_on(load_recipe("quick"), ["seed=1"], 2000) == ["seed=1"]
    changes = with_hands_to_validate_on(load_recipe("quick"), [], hands)
    assert changes == [] or hands < 20
    assert len(held_out_places(hands, load_recipe("quick", changes).data.held_out)) == max(1, hands // 20)
    with pytest.raises(ConfigError, match=r"data\.held_out=0\.001 of .* leaves none to validate on"):
        with_hands_to_validate_on(load_recipe("quick", few := ["data.held_out=0.001"]), few, hands)


def test_a_recipe_that_can_be_trained_passes(tmp_path: Path) -> None:
    home, changes = Workspace(tmp_path, str(tmp_path / "shards")), ["data.mocap=false"]
    _set_with_targets(home)
    train.check_before_tokenizer(home, "tiny", [*changes, "data.keypoints.train_source=annotated"])
    tokenizer = home.runs / f"tokenizer-tiny-{_tokenizer_identity(home, changes)}"
    (tokenizer / "export").mkdir(parents=True)
    (tokenizer / "finished.json").write_text('{"steps": 2, "metrics": {}, "restarts": 0}')
    train.check_before_tokenizer(home, "tiny", [*changes, "model.backbone.name=vit_tny"])  # not asked any more


def _tokenizer_identity(home: Workspace, changes: list[str]) -> str:
    recipe = load_recipe("tiny", changes)
    return run_identity("tokenizer", recipe, step_inputs.training_digests(home, "tokenizer", recipe))


def test_a_training_that_cannot_start_leaves_no_run(tmp_path: Path) -> None:
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    _set_with_targets(home)
    with pytest.raises(ConfigError, match=r"optim\.batch=129 does not divide over engine\.workers=2"):
        train.train_tokenizer(home, "tiny", ["data.mocap=false", "tokenizer_training.optim.batch=129"], "", silent)
    assert not list(home.runs.glob("*")) and not (tmp_path / "mlflow").exists()


@pytest.mark.parametrize("by", ["folder", "claim"])
def test_a_second_training_of_a_run_is_refused_before_mlflow_is_opened(by: str, tmp_path: Path) -> None:
    home = Workspace(tmp_path / "ours", str(tmp_path / "shards"), str(tmp_path / "checkpoints"))
    _set_with_targets(home)
    name = f"tokenizer-tiny-{_tokenizer_identity(home, changes := ['data.mocap=false'])}"
    theirs = home.runs if by == "folder" else tmp_path / "theirs"  # of another machine, with the same checkpoints
    told = rf"run {name}.*: process {os.getpid()} on .* is at it"
    with held_run(name, theirs, home.checkpoints), pytest.raises(LockedError, match=told):
        train.train_tokenizer(home, "tiny", changes, "", silent)
    assert not (home.root / "mlflow").exists() and not list(home.runs.glob("*"))


def test_other_code_is_another_training_and_other_remarks_are_not(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    losses, report = tmp_path / "training" / "losses.py", tmp_path / "report.py"

    def digest(source: str) -> str:
        losses.write_text(source)
        step_inputs.training_code_digest.cache_clear()
        return step_inputs.training_code_digest(tmp_path)

    first = digest('"""Losses."""\n\ndef loss(x):\n    """Squares."""\n    return x * x\n')
    assert digest("# Other words.\ndef loss(x):\n\n    return (x * x)  # of one\n") == first
    assert digest("def loss(x):\n    return x * x * x\n") != first
    report.write_text("print('not a part of training')\n")
    assert digest("def loss(x): return x * x\n") == first
    step_inputs.training_code_digest.cache_clear()


def test_a_pose_file_that_is_asked_for_and_absent_is_a_sentence(tmp_path: Path) -> None:
    home, recipe = Workspace(tmp_path, str(tmp_path / "shards")), load_recipe("tiny")
    with pytest.raises(FileNotFoundError, match=r"freihand_synth/mocap.npz: not found, but data.mocap is true"):
        step_inputs.mocap_files(home, recipe)
    path = home.raw / "freihand_synth" / "mocap.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert step_inputs.mocap_files(home, recipe) == (str(path),)
    assert step_inputs.mocap_files(home, load_recipe("tiny_text")) == ()


def test_a_training_that_ended_before_its_run_did_is_tracked_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    export = tmp_path / "run" / "export"
    export.mkdir(parents=True)
    (export / TOKENIZER_FILE).write_text("{}")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "train/loss": 0.5}\n')
    kept = FitResult(tmp_path / "run", export, {"train/loss": 0.5}, 1, 0, 0.1, reused=True)
    digests = {"freihand_synth/training/mano": "d"}
    monkeypatch.setattr(train, "fit", lambda *_, **__: kept)
    monkeypatch.setattr(step_inputs, "training_digests", lambda *_: digests)
    monkeypatch.setattr(step_inputs, "mocap_files", lambda *_: ())
    receipt = train.train_tokenizer(home, "tiny", [], "again", silent)
    (run,) = Tracker.of(home).history("tokenizer")
    assert run.run_id == receipt.run_id and run.tags["mlflow.runName"].endswith(" again")
    curves = tmp_path / "mlflow" / "artifacts" / run.run_id / "artifacts" / "curves.png"
    written_ns = curves.stat().st_mtime_ns
    assert train.train_tokenizer(home, "tiny", [], "again", silent) == receipt
    assert curves.stat().st_mtime_ns == written_ns, "a run that is finished is left as it is"


def test_a_stopped_training_is_killed_and_runs_again_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    _set_with_targets(home)
    seen: list[str] = []
    endings = ((SystemExit(143), "KILLED"), (TrainingError("a worker was lost"), "FAILED"))

    def status() -> str:
        (run,) = MlflowClient(home.mlflow_uri).search_runs(["1"])
        return run.info.status

    def fit(*_: object, **__: object) -> None:
        seen.append(status())
        raise endings[len(seen) - 1][0]

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(train, "fit", fit)
    for ending, left in endings:
        with pytest.raises(type(ending)):
            train.train_tokenizer(home, "tiny", ["data.mocap=false"], "", silent)
        assert status() == left
    assert seen == ["RUNNING"] * 2


def test_a_training_says_which_run_it_continues_or_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    _set_with_targets(home)
    warned = warnings_of(train.__name__, monkeypatch)

    def fit(_loop: object, _job: object, run: HeldRun, *, identity: str, decided_by: dict, **_: object) -> None:
        acquire(run.run_dir, identity, decided_by)
        raise TrainingError("a worker was lost")

    def told(*changes: str) -> list[str]:
        warned.clear()
        with pytest.raises(TrainingError, match="lost"):
            train.train_tokenizer(home, "tiny", ["data.mocap=false", *changes], "", silent)
        return list(warned)

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(train, "fit", fit)
    assert told() == []
    (words,) = told("tokenizer_training.optim.batch=16")
    assert "begins; it is another run than tokenizer-tiny-" in words and "which is unfinished: " in words
    assert words.endswith("tokenizer_training.optim.batch was 128 and is 16")
    monkeypatch.setattr(Checkpoints, "last", lambda self: LastCheckpoint(40, 4))
    (words,) = told()
    assert re.search(r"goes on with run tokenizer-tiny-\w+ from step 40 of \d+; engine.workers was 4, and is 2", words)


def test_a_tracker_that_is_gone_at_the_end_costs_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "server_version", partial(server_version, retries=0))
    done = FitResult(tmp_path, tmp_path / "export", {}, 8, 0, 1.0, reused=False)
    said = r"the training is done, its model is in .*export, and the MLflow server .* does not answer .* trains nothing"
    with pytest.raises(TrackingServerError, match=said) as lost:
        train._record(Tracker("http://127.0.0.1:9"), "run", done, done.export_dir, "tiny")
    assert lost.value.retryable


def test_a_tracker_that_is_gone_after_an_evaluation_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(registration, "server_version", partial(server_version, retries=0))
    monkeypatch.setattr(
        registration.EvaluationSummary, "read", lambda _: SimpleNamespace(model="models:/maskhand/1", model_digest="0")
    )
    with pytest.raises(TrackingServerError, match=r"the MLflow server at http://127.0.0.1:9 does not answer"):
        registration.track(Workspace(tmp_path, str(tmp_path)), Receipt("evaluation", str(tmp_path)), "a run")


def test_another_sampler_makes_another_model_of_the_same_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, recipe = Workspace(tmp_path, str(tmp_path / "shards")), load_recipe("open")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "train/loss": 0.5}\n')
    write_set(home.shard_set("freihand_synth/training"), make_samples(2))  # too few to calibrate with
    network = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default())
    ModelBundle.save(tmp_path / "run" / "export", network, recipe, {"steps": 1})
    names: list[str] = []

    def fit(_loop: object, _job: object, run: HeldRun, **_: object) -> FitResult:
        names.append(run.run_dir.name)
        return FitResult(tmp_path / "run", tmp_path / "run" / "export", {"train/loss": 0.5}, 1, 0, 0.1, reused=True)

    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setattr(step_inputs, "training_digests", lambda *_: {"freihand_synth/training/images": "d"})
    ask = lambda *changes: train.train_transformer(home, "open", changes, "open", "", silent)  # noqa: E731
    plain, longer = ask(), ask("sampler.iterations=9")
    assert len(set(names)) == 1, "one training"
    assert ask("sampler.iterations=9") == longer and ask() == ask("data.loader_workers=2") == plain
    assert plain.folder == str(tmp_path / "run" / "export")
    models = [ModelBundle.load(receipt.folder) for receipt in (plain, longer)]
    assert [model.recipe.sampler.iterations for model in models] == [5, 9]
    assert models[0].digest != models[1].digest and plain.digest != longer.digest
    shown = [run.tags["mlflow.runName"] for run in Tracker.of(home).history("transformer")]
    assert len(set(shown)) == 2, "told apart on the pages"
    assert {run.run_id for run in Tracker.of(home).history("transformer")} == {
        receipt.run_id for receipt in (plain, longer)
    }


def test_a_large_encoder_without_pretrained_weights_is_mentioned() -> None:
    assert "vit_huge_patch14_224 starts from random weights" in train.starts_from_nothing(load_recipe("base"))
    for recipe, changes in (("base", ["model.backbone.checkpoint=x.pth"]), ("tiny", []), ("tiny_text", [])):
        assert train.starts_from_nothing(load_recipe(recipe, changes)) == ""


def test_sets_are_named_or_given_by_uri(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "s3://bucket/shards")
    assert data.uri_of_set(workspace, "freihand/training") == "s3://bucket/shards/freihand/training"
    assert data.uri_of_set(workspace, "s3://other/x/y") == "s3://other/x/y"
    assert data.uri_of_set(workspace, str(tmp_path)) == str(tmp_path)


def test_a_mistyped_set_names_the_nearest_one(tmp_path: Path) -> None:
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    with pytest.raises(ShardError, match=r"rhd/training: no such shard set in .*shards; there are none"):
        data.uri_of_set(home, "rhd/training")
    write_set(home.shard_set("rhd/training"), make_samples(2))
    for typo in ("rhd/trainin", "rhd", "hrd/training"):
        with pytest.raises(ShardError, match="did you mean rhd/training"):
            data.uri_of_set(home, typo)
    assert data.uri_of_set(home, "rhd/training") == home.shard_set("rhd/training")
    with pytest.raises(ShardError, match="make them with `maskhand annotate mano rhd/training`"):
        step_inputs.training_digests(home, "tokenizer", load_recipe("tiny", ["data.train={rhd/training: 1.0}"]))


def test_what_was_left_out_is_said(tmp_path: Path) -> None:
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    fixture = WRITERS["freihand"](tmp_path / "raw", load_spec("freihand"), "training", 8)
    next(iter(fixture.truths.values())).image_path.write_bytes(b"")
    receipt = data.shard(home, "freihand", "training", str(fixture.raw_dir), silent)
    assert receipt.samples == 31 and receipt.rejected == 1
    assert receipt.left_out.startswith("1 bad_image; a sentence about each is in ")
    assert "130,240" in receipt.notes, "fewer than published"


def test_keys_of_the_transformer_are_refused_by_the_tokenizer() -> None:
    train.check_tokenizer_overrides(["tokenizer_training.optim.steps=5", "tokenizer.width=8", "data.mocap=false"])
    with pytest.raises(ConfigError, match=r"write tokenizer_training\.optim\.steps=60"):
        train.check_tokenizer_overrides(["training.optim.steps=60"])
    with pytest.raises(ConfigError, match="model is the transformer's"):
        train.check_tokenizer_overrides(["model.dim=8"])


def test_a_model_that_is_not_registered_is_named(tmp_path: Path) -> None:
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    with pytest.raises(LookupError, match=r"no such model .*`maskhand quickstart` trains one, measures it and reg"):
        models.model_folder(home, "models:/maskhand@champion")
    with pytest.raises(LookupError, match=r"`maskhand run train-maskhand -p recipe=tiny_text` trains one"):
        generate.generate(home, "", tmp_path / "out", "models:/maskhand@champion", 1, 0)
    assert not (tmp_path / "out").exists()
    export = home.runs / "transformer-tiny-abc" / "export"
    export.mkdir(parents=True)
    (export / "bundle.json").write_text("{}")
    with pytest.raises(LookupError, match=f"The newest training here is --model {export}$"):
        models.model_folder(home, "models:/maskhand@champion")
    assert models.model_folder(home, str(export)) == str(export)


def test_the_places_of_the_environment_hold_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for shards, found in (("", "home/shards"), ("sets/", "sets"), ("s3://bucket/x/", None)):
        monkeypatch.setenv("MASKHAND_WORKSPACE", "home")
        monkeypatch.setenv("MASKHAND_SHARDS", shards)
        workspace = Workspace.at()
        assert workspace.root == tmp_path / "home"
        assert workspace.shards_uri == (str(tmp_path / found) if found else "s3://bucket/x")
    monkeypatch.setenv("MASKHAND_WORKSPACE", "")
    assert Workspace.at().root == tmp_path / "workspace"


@pytest.mark.slow
def test_synthetic_data_asked_for_otherwise_needs_rebuild(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, str(tmp_path / "shards"))
    told: list[float] = []
    tell = lambda done, _total, _text="": told.append(done)  # noqa: E731
    ask = lambda hands, rebuild: synthetic.synthesize(workspace, hands, 0, 2, 0, tell, rebuild)  # noqa: E731
    first = ask(1, False)
    assert told == [1] and first.hands == 1
    assert ask(1, False) == first and told == [1], "a finished dataset is kept"
    with pytest.raises(ValueError, match="another"):
        ask(2, False)
    assert ask(2, True).digest != first.digest
