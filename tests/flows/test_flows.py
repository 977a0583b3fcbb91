"""What the flows add to the steps: order, caching, retries, control data, artifacts and the event. Steps are faked."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from maskhand.cluster.run_folder import TrainingError
from maskhand.steps.receipt import Receipt

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("harness")]


PER_SPLIT = ("shard", "annotate_keypoints", "annotate_mano", "inspect")


class FakeSteps:
    """Steps that write one small file each and count how often they ran."""

    def __init__(self, root: Path) -> None:
        self.root, self.ran, self.order = root, Counter[str](), list[str]()

    def make(self, name: str, kind: type[Receipt] = Receipt, **facts: Any) -> Callable[..., Receipt]:
        def run(_workspace: Any, *arguments: Any, **_named: Any) -> Receipt:
            self.ran[name] += 1
            self.order.append(name)
            for report in filter(callable, arguments):
                report(1, 1, name)
            plain = [str(a) for a in arguments if not callable(a)]
            split = hashlib.sha256("".join(plain).encode()).hexdigest()[:6] if name in PER_SPLIT else ""
            path = self.root / name / split / ("tokenizer.json" if name == "tokenizer" else "done.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            made_of = [self.ran[name], *plain]
            path.write_text(json.dumps({"tokenizer": {}, "sha256": str(made_of)} if name == "tokenizer" else made_of))
            return kind.of(str(path), **facts)

        return run


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSteps:
    from maskhand.steps import evaluate, inspection, registration, step_inputs, train

    fake = FakeSteps(tmp_path / "results")
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"\x89PNG")
    monkeypatch.setattr(step_inputs, "training_digests", lambda *_: {"set/images": "d1"})
    monkeypatch.setattr(step_inputs, "source_digests", lambda _: {"card": "c1", "hand_model": "h1"})
    monkeypatch.setattr(step_inputs, "detector_version", lambda *_: "w1")
    monkeypatch.setattr(
        evaluate, "input_digests", lambda _, model, __: {"model": Receipt.of(f"{model}/done.json").digest}
    )
    monkeypatch.setattr(
        train, "train_tokenizer", fake.make("tokenizer", train.TrainingReceipt, run_id="r1", steps=3, restarts=0)
    )
    monkeypatch.setattr(
        train, "train_transformer", fake.make("transformer", train.TrainingReceipt, run_id="r2", steps=3, restarts=0)
    )
    monkeypatch.setattr(evaluate, "evaluate", fake.make("evaluate", evaluate.EvaluationReceipt, samples=4))
    monkeypatch.setattr(evaluate, "table", lambda _: (["set", "PA-MPJPE mm"], [["x", "1.0"]]))
    monkeypatch.setattr(evaluate, "sheets", lambda _: {"freihand_synth/evaluation": str(sheet)})
    monkeypatch.setattr(evaluate, "page_uri", lambda _: "report.html")
    monkeypatch.setattr(
        inspection, "inspect", fake.make("inspect", inspection.InspectionReceipt, read=4, sheet=str(sheet))
    )
    monkeypatch.setattr(inspection, "input_digests", lambda *_: {"images": "d1"})
    monkeypatch.setattr(inspection, "table", lambda _: [("hands in shards", "3")])
    monkeypatch.setattr(inspection, "sheet_as_data_url", lambda _: "data:image/jpeg;base64,")
    registered = fake.make(
        "register",
        registration.RegistrationReceipt,
        model="models:/maskhand/7",
        reason="because",
        evaluation_digest="e",
        run_id="r2",
    )
    monkeypatch.setattr(registration, "register", lambda *given: (registered(*given), fake.ran["register"] == 1))
    monkeypatch.setattr(registration, "standing", lambda *_: "models:/maskhand/7, challenger")
    monkeypatch.setattr(evaluate, "of_model", lambda _: "models:/maskhand/7 (w1)")
    return fake


@pytest.fixture
def data_steps(steps: FakeSteps, monkeypatch: pytest.MonkeyPatch) -> FakeSteps:
    """The steps that make shards and sidecars, too, of sets with one split."""
    from maskhand.steps import annotation, data, step_inputs

    monkeypatch.setattr(data, "splits", lambda *_: ["training"])
    monkeypatch.setattr(step_inputs, "data_digest", lambda *_: "d1")
    monkeypatch.setattr(data, "shard", steps.make("shard"))
    for name in ("annotate_keypoints", "annotate_mano"):
        monkeypatch.setattr(annotation, name, steps.make(name))
    return steps


def run(workspace: Path, **parameters: Any) -> Any:
    from maskhand.pipelines.train_maskhand import train_maskhand

    return train_maskhand(workspace=str(workspace), **{"recipe": "tiny"} | parameters)


def test_the_order_of_the_steps_and_a_rerun_that_computes_nothing(steps: FakeSteps, tmp_path: Path) -> None:
    first = run(tmp_path, recipe="tiny")
    assert steps.order == ["tokenizer", "transformer", "evaluate", "register"]
    again = run(tmp_path, recipe="tiny")
    assert again == first
    assert set(steps.ran.values()) == {1}
    run(tmp_path, recipe="tiny", overrides=["training.optim.steps=9"])
    assert steps.ran == {"tokenizer": 2, "transformer": 2, "evaluate": 2, "register": 2}
    run(tmp_path, recipe="quick")
    assert steps.ran == {"tokenizer": 2, "transformer": 3, "evaluate": 3, "register": 3}, "its tokenizer is given"


def test_an_edited_recipe_is_trained_again(steps: FakeSteps, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: tiny\nname: mine\n")
    run(tmp_path, recipe=str(recipe))
    recipe.write_text("base: tiny\nname: mine\ntraining: {optim: {lr: 0.5}}\n")
    run(tmp_path, recipe=str(recipe))
    assert steps.ran["transformer"] == 2


def test_another_card_or_hand_model_asks_for_shards_and_targets_again(
    data_steps: FakeSteps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskhand.pipelines.annotate_shards import annotate_shards
    from maskhand.pipelines.shard_datasets import shard_datasets
    from maskhand.steps import step_inputs

    for card in ("c1", "c1", "c2"):
        monkeypatch.setattr(step_inputs, "source_digests", lambda _, card=card: {"card": card})
        shard_datasets(workspace=str(tmp_path))
        annotate_shards(["freihand_synth/training"], workspace=str(tmp_path))
    assert data_steps.ran["shard"] == data_steps.ran["annotate_mano"] == 2 and data_steps.ran["annotate_keypoints"] == 1


def test_rejected_samples_and_another_detectors_weights_are_asked_for_again(
    data_steps: FakeSteps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskhand.pipelines.annotate_shards import annotate_shards
    from maskhand.pipelines.shard_datasets import shard_datasets
    from maskhand.steps import step_inputs

    for rejects, asked in ((False, 1), (True, 2), (True, 3), (False, 3)):
        monkeypatch.setattr(step_inputs, "has_rejects", lambda *_, rejects=rejects: rejects)
        shard_datasets(workspace=str(tmp_path))
        assert data_steps.ran["shard"] == asked
    for version, asked in (("w1", 1), ("w1", 1), ("w2", 2)):
        monkeypatch.setattr(step_inputs, "detector_version", lambda *_, version=version: version)
        annotate_shards(["freihand_synth/training"], workspace=str(tmp_path))
        assert data_steps.ran["annotate_keypoints"] == asked and data_steps.ran["annotate_mano"] == 1


def test_a_receipt_of_files_that_are_gone_is_not_believed(steps: FakeSteps, tmp_path: Path) -> None:
    first = run(tmp_path)
    Path(first.model.uri).unlink()
    again = run(tmp_path)
    assert again.model.is_current()
    # The fake's second model has other bytes, so what follows it is done again; what came before is not.
    assert steps.ran == {"tokenizer": 1, "transformer": 2, "evaluate": 2, "register": 2}


def test_persisted_results_are_control_data(steps: FakeSteps, tmp_path: Path) -> None:
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH

    receipts = run(tmp_path)
    stored = [json.loads(p.read_text()) for p in Path(PREFECT_LOCAL_STORAGE_PATH.value()).iterdir() if p.is_file()]
    results = [json.loads(record["result"]) for record in stored]
    mine = [r for r in results if r["data"]["uri"].startswith(str(tmp_path))]
    assert {r["data"]["uri"] for r in mine} >= {receipts.model.uri, receipts.evaluation.uri}
    assert all({"uri", "digest"} <= set(r["data"]) and len(json.dumps(r)) < 2000 for r in mine)


def test_artifacts_have_stable_keys_and_the_event_names_the_model(
    steps: FakeSteps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.artifacts import Artifact

    from maskhand.pipelines import train_maskhand

    events: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(train_maskhand, "emit_event", lambda name, **about: events.append((name, about["payload"])))
    receipts = run(tmp_path)
    payload = {"model": "models:/maskhand/7", "workspace": str(tmp_path)}
    assert events == [("maskhand.model.registered", payload)]
    run(tmp_path)  # cached
    Path(receipts.registered.uri).unlink()
    run(tmp_path)  # asked again, and found to be registered
    assert steps.ran["register"] == 2 and len(events) == 1, "what was registered before is no event"
    kinds = {
        "vq-mano": "table",
        "evaluation": "table",
        "contact-sheet-freihand-synth-evaluation": "image",
        "model-registered": "markdown",
        "progress-train-maskhand": "progress",
    }
    for key, kind in kinds.items():
        artifact = Artifact.get(key)
        assert artifact is not None and artifact.type == kind, key
    assert float(Artifact.get("progress-train-maskhand").data) == 100.0


@pytest.mark.parametrize("recipe", ["quick", "tiny"])
def test_the_quickstart_goes_through_every_stage_once_and_says_where_to_look(
    steps: FakeSteps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recipe: str
) -> None:
    from maskhand.pipelines import quickstart
    from maskhand.steps import annotation, data, step_inputs, synthetic

    monkeypatch.setattr(quickstart, "ray_session", nullcontext)
    monkeypatch.setattr(data, "splits", lambda *_: ["training", "evaluation"])
    monkeypatch.setattr(step_inputs, "data_digest", lambda *_: "d1")
    monkeypatch.setattr(synthetic, "synthesize", steps.make("synthesize"))
    monkeypatch.setattr(data, "shard", steps.make("shard"))
    for name in ("annotate_keypoints", "annotate_mano"):
        monkeypatch.setattr(annotation, name, steps.make(name))
    for _ in range(2):
        receipts = quickstart.quickstart(hands=8, evaluation_hands=8, recipe=recipe, workspace=str(tmp_path))
    both_splits = dict.fromkeys(PER_SPLIT, 2)
    once = dict.fromkeys(("synthesize", "tokenizer", "transformer", "evaluate", "register"), 1)
    if recipe == "quick":  # it takes a tokenizer that ships, and simulates the detections of its training hands
        both_splits["annotate_keypoints"] = 1
        del once["tokenizer"]
    assert steps.ran == once | both_splits
    assert steps.order[0] == "synthesize" and steps.order[-1] == "register"
    assert receipts.registered.model == "models:/maskhand/7"
    said = capsys.readouterr().out
    assert ("train VQ-MANO" in said) == (recipe == "tiny")
    for words in ("total", str(tmp_path / "sheet.png"), "mlflow server", "maskhand serve", "because"):
        assert words in said, words


def test_a_set_is_looked_at_again_when_it_has_changed(
    steps: FakeSteps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow
    from prefect.artifacts import Artifact

    from maskhand.pipelines import inspect_shards
    from maskhand.steps import inspection
    from maskhand.workspace import Workspace

    @flow
    def looking() -> Receipt:
        return inspect_shards.show(Workspace(tmp_path, str(tmp_path / "shards")), "toy/train")

    assert looking() == looking()
    assert steps.ran["inspect"] == 1
    monkeypatch.setattr(inspection, "input_digests", lambda *_: {"images": "d1", "mano": "d2"})
    looking()
    assert steps.ran["inspect"] == 2
    statistics, sheet = Artifact.get("statistics-toy-train"), Artifact.get("sheet-toy-train")
    assert statistics is not None and json.loads(statistics.data) == [{"what": "hands in shards", "value": "3"}]
    assert sheet is not None and sheet.type == "image"


def test_a_mistyped_override_stops_the_quickstart_before_any_work(steps: FakeSteps, tmp_path: Path) -> None:
    from maskhand.config import ConfigError
    from maskhand.pipelines.quickstart import quickstart

    with pytest.raises(ConfigError, match="steps"):
        quickstart(overrides=["training.optim.stepps=9"], workspace=str(tmp_path))
    assert steps.order == []


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (ValueError("wrong recipe"), 1),
        (LookupError("no such model"), 1),
        (TrainingError("ConfigError: wrong recipe"), 1),
        (TrainingError("workers lost", retryable=True), 3),
        (ConnectionError("lost"), 3),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, attempts: int, tmp_path: Path) -> None:
    from prefect import flow

    from maskhand.pipelines.step import step

    tried: list[int] = []

    @step("fails")
    def fails(text: str) -> Receipt:
        tried.append(1)
        raise error

    @flow
    def trying() -> None:
        fails.with_options(retry_delay_seconds=0)(str(tmp_path))

    with pytest.raises(type(error), match=str(error)):
        trying()
    assert len(tried) == attempts


def test_every_flow_takes_its_workspace_from_the_environment_or_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from maskhand.pipelines.runtime import workspace_for

    monkeypatch.delenv("MASKHAND_WORKSPACE", raising=False)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "x")
    with pytest.raises(ValueError, match="MASKHAND_WORKSPACE"):
        workspace_for(None)
    monkeypatch.setenv("MASKHAND_WORKSPACE", "/somewhere")
    assert str(workspace_for(None).root) == "/somewhere"
    assert str(workspace_for("/elsewhere").root) == "/elsewhere"


def test_a_re_evaluation_measures_every_model_on_every_benchmark_and_says_what_the_gate_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.artifacts import Artifact

    from maskhand.pipelines.re_evaluate import re_evaluate
    from maskhand.steps import reevaluate

    measured: list[tuple[str, str]] = []

    def measure(_workspace: Any, model: str, benchmark: str, set_name: str, _progress: Any) -> Receipt:
        measured.append((model, benchmark))
        if (model, benchmark) == (new, "y"):
            raise ValueError("it reads captions, not images")
        path = tmp_path / "result.json"
        facts = {"data_digest": "d", "metrics": {"pa_mpjpe_mm": 9.0}, "mean_pose": {"pa_mpjpe_mm": 20.0}}
        path.write_text(
            json.dumps(facts | {"benchmark": benchmark, "set_name": set_name, "samples_uri": None, "predictor": ""})
        )
        return Receipt.of(str(path))

    old, new = "models:/maskhand/1", "models:/maskhand/2"
    monkeypatch.setattr(reevaluate, "contenders", lambda *_: (old, [new]))
    monkeypatch.setattr(reevaluate, "benchmarks", lambda _: {"x": "x/evaluation", "y": "y/evaluation"})
    monkeypatch.setattr(reevaluate, "evaluate_version", measure)
    monkeypatch.setattr(reevaluate, "log", lambda _, model, __: ["x moved."] if model == old else [])
    monkeypatch.setattr(reevaluate, "home_set", lambda *_: "x/evaluation")
    monkeypatch.setattr(
        reevaluate,
        "decide",
        lambda _, __, found, ___: [(m, f"{m} has {len(of_m)} of 2.") for m, of_m in found.items()],
    )
    monkeypatch.setattr(reevaluate, "table", lambda _: [{"model": old, "PA-MPJPE mm": 9.0}])
    for _ in range(2):  # a cached answer would say nothing about today
        assert re_evaluate(workspace=str(tmp_path)) == {old: f"{old} has 2 of 2.", new: f"{new} has 1 of 2."}
    assert measured == 2 * [(old, "x"), (old, "y"), (new, "x"), (new, "y")]
    gate = Artifact.get("promotion-gate")
    assert gate is not None and f"{new} has 1 of 2." in gate.data and "x moved." in gate.data
    assert f"{new} on y: " in gate.data and "it reads captions, not images" in gate.data
    kept = Artifact.get("re-evaluation")
    assert kept is not None and json.loads(kept.data)[0]["model"] == old


def test_pictures_are_predicted_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.artifacts import Artifact

    from maskhand.pipelines.predict_photos import predict_photos
    from maskhand.steps import predict_shards
    from maskhand.steps.predict_shards import HandsReceipt
    from maskhand.steps.prepare_predict_shards import PreparedShardRun

    runs: list[tuple[Any, ...]] = []

    def predict_by_workers(run: PreparedShardRun, _progress: Any, *, workers: int | None) -> HandsReceipt:
        files = [source.path for source in run.sources.files]
        runs.append((files, run.out, run.request.options.every, workers))
        path = Path(run.out, "hands", "manifest.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        return HandsReceipt.of(str(path), hands=3, no_hand=1, unreadable=0)

    monkeypatch.setattr(predict_shards, "predict_by_workers", predict_by_workers)
    picture = tmp_path / "photos" / "a.png"
    picture.parent.mkdir()
    picture.write_bytes(b"one")
    inputs = [str(picture.parent)]
    for content, count in ((b"one", 1), (b"one", 1), (b"another", 2)):
        if picture.read_bytes() != content:
            picture.write_bytes(content)
        receipt = predict_photos(inputs=inputs, every=2, workspace=str(tmp_path))
        assert len(runs) == count
    assert receipt.hands == 3 and runs[0] == runs[1] == ([str(picture)], runs[0][1], 2, None)
    assert runs[0][1].startswith(f"{tmp_path}/predictions/")
    kept = Artifact.get("predict-photos")
    assert kept is not None and json.loads(kept.data)[0]["no_hand"] == 1
    with pytest.raises(ValueError, match="no inputs: name pictures"):
        predict_photos(workspace=str(tmp_path))


def test_every_table_is_written_with_what_ran_and_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workspace without data: only rows that read none run. Seeds are rows of their own; repeated, nothing is run."""
    from prefect.artifacts import Artifact

    from maskhand.paper.measures import generation, speed
    from maskhand.pipelines.reproduce_table import reproduce_table

    seeds: list[int] = []

    def hands(_hand: Any, _count: int, seed: int) -> dict[str, float]:
        seeds.append(seed)
        return {"apd_mm": 10.0 + seed, "self_intersection_percent": 1.0}

    monkeypatch.setattr(generation, "pca_hands", hands)
    monkeypatch.setattr(speed, "seconds_per_image", lambda _, iterations, __: {t: 0.1 * t for t in iterations})
    for _ in range(2):
        receipt = reproduce_table(table="all", embedded=True, seeds=2, workspace=str(tmp_path))
        assert seeds == [0, 1]
    text = Path(receipt.uri).read_text()
    assert receipt.tables == 17 and receipt.measured == 3 + 2
    assert text.count("\n## Table ") == 17 and "shard set freihand_synth/training" in text
    assert "| E37 PCA | generation | apd_mm | 16.30 | 10.50 ± 0.71 |" in text
    one = Artifact.get("paper-table-11-embedded")
    assert one is not None and "10.50 ± 0.71" in one.data
