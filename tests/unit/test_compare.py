"""Runs beside each other: paired differences against closed forms, and what a person may call a run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest

from maskhand.annotate.mano_targets import annotate_mano
from maskhand.cli import main
from maskhand.comparison.compare import compare, differing, hand_auc
from maskhand.comparison.records import ComparedRun, ComparisonError, MeasuredSet
from maskhand.comparison.tables import notes, to_json, to_markdown
from maskhand.conventions import OPENPOSE_21
from maskhand.evaluation.report import write_report
from maskhand.evaluation.result import MAIN_COLUMNS, EvaluationResult, EvaluationRow
from maskhand.evaluation.summary import SUMMARY, EvaluationSummary
from maskhand.metrics.accumulate import PointErrors, row_means
from maskhand.metrics.paired import mean_interval
from maskhand.scoring.predictions import Predictions
from maskhand.shards.layout import IMAGES
from maskhand.shards.manifest import read_manifest
from maskhand.shards.reader import ShardSet
from maskhand.steps import compare as step
from maskhand.steps import registration
from maskhand.steps.compared_runs import compared_run
from maskhand.steps.receipt import Receipt
from maskhand.tracking import MODEL, Tracker
from maskhand.workspace import Workspace
from support.hand_sets import make_samples, write_set
from support.training_fakes import small_recipe

SET = "freihand_synth/evaluation"
COUNT = 7
RECIPE = small_recipe("data.keypoints.eval_source=annotated")


def frame(errors_mm: np.ndarray, keys: list[str] | None = None, **columns: Any) -> pd.DataFrame:
    """The rows of one predictor whose joints have these errors (N, 21)."""
    count = len(errors_mm)
    joints = {f"pa_mm.{name}": errors_mm[:, j] for j, name in enumerate(OPENPOSE_21)}
    known = {
        "predictor": "product",
        "index": np.arange(count),
        "key": keys or [f"hand-{k:04d}" for k in range(count)],
        "side": "right",
        "failure": "",
        "box_px": 100.0 + np.arange(count),
        "pa_mpjpe_mm": row_means(errors_mm),
    }
    return pd.DataFrame(known | columns | joints)


def run(
    label: str, sets: Mapping[str, pd.DataFrame | None] | None = None, digest: str = "d", **more: Any
) -> ComparedRun:
    measured = {
        name: MeasuredSet(name, f"/shards/{name}", digest, COUNT, "product", {"pa_mpjpe_mm": 9.0}, hands)
        for name, hands in (sets or {}).items()
    }
    return ComparedRun(label, "a test", more.pop("parameters", {}), more.pop("circumstances", {}), measured, **more)


@pytest.fixture
def errors() -> np.ndarray:
    return np.random.default_rng(3).uniform(2.0, 60.0, (200, 21))


def test_the_paired_difference_is_that_of_the_hands(errors: np.ndarray) -> None:
    shift = np.random.default_rng(4).normal(-1.0, 2.0, (200, 1))
    found = compare([run("a", {SET: frame(errors)}), run("b", {SET: frame(errors + shift)})], changed=5)
    (pair,) = found.sets[0].pairs
    joints = next(one for one in pair.metrics if one.metric == "pa_mpjpe_mm")
    assert joints.count == found.sets[0].shared == 200 and joints.verdict == "better"
    assert joints.difference == pytest.approx(shift.mean()) and joints.reference == pytest.approx(errors.mean())
    half = 1.96 * shift.std() / np.sqrt(200)  # the normal interval, which pairing makes narrow: errors spread by 17 mm
    assert [joints.low, joints.high] == pytest.approx([shift.mean() - half, shift.mean() + half], abs=0.15 * half)
    most = np.argsort(-np.abs(shift[:, 0]))[:5]
    assert [hand.key for hand in pair.changed] == [f"hand-{k:04d}" for k in most]
    assert [hand.change for hand in pair.changed] == pytest.approx(shift[most, 0])
    same = compare([run("a", {SET: frame(errors)}), run("b", {SET: frame(errors)})])
    assert same.sets[0].pairs[0].changed == (), "what did not change is not listed"


def test_a_constant_change_has_an_interval_of_no_width_and_more_of_a_share_is_better(errors: np.ndarray) -> None:
    before = frame(errors, pa_f5=0.4)
    found = compare([run("a", {SET: before}), run("b", {SET: frame(errors + 2.0, pa_f5=0.5)}), run("c", {SET: before})])
    worse, same = ({one.metric: one for one in pair.metrics} for pair in found.sets[0].pairs)
    assert (worse["pa_mpjpe_mm"].low, worse["pa_mpjpe_mm"].high) == pytest.approx((2.0, 2.0))
    assert (worse["pa_mpjpe_mm"].verdict, worse["pa_f5"].verdict) == ("worse", "better")
    assert worse["pa_auc_joints"].verdict == "worse"
    assert {one.verdict for one in same.values()} == {"undecided"} and same["pa_f5"].difference == 0
    assert np.isnan(mean_interval(np.empty(0))).all() and np.isnan(mean_interval(np.array([1.0, np.inf]))).all()


def test_the_area_of_hands_averages_to_that_of_the_set(errors: np.ndarray) -> None:
    edges = np.concatenate([errors, np.full((1, 21), 0.0), np.full((1, 21), 50.0), np.full((1, 21), 51.0)])
    assert hand_auc(edges).mean() == pytest.approx(PointErrors.of(edges / 1e3).pck_auc, abs=1e-12)
    assert np.isnan(hand_auc(np.full((1, 21), np.nan))).all()


def test_only_shared_hands_are_compared_and_the_others_are_told(errors: np.ndarray) -> None:
    first = frame(errors[:6], list("abcdef"))
    second = frame(errors[1:7] + 1.0, list("bcdefg"), box_px=101.0 + np.arange(6))
    second.loc[0, "side"], second.loc[1, "box_px"] = "left", 5.0  # b and c are other hands of the same key
    second.loc[2, "pa_mpjpe_mm"] = np.nan  # d failed
    runs = [run("a", {SET: first, "x/y": first}), run("b", {SET: second, "x/z": first}, digest="other"), run("c")]
    found = compare(runs)
    (one,) = found.sets
    metrics = {m.metric: m for m in one.pairs[0].metrics}
    assert one.shared == 3 and metrics["pa_mpjpe_mm"].count == 2 and metrics["pa_auc_joints"].count == 3
    assert metrics["pa_mpjpe_mm"].reference == pytest.approx(errors[4:6].mean())
    told = "\n".join(notes(found))
    for words in (
        f"{SET}: measured on different data (a on d, b on other)", "that not all runs have are left out: a 1, b 1",
        "2 hands of the same key have another side or box", "x/y: not measured for b", "x/z: not measured for a",
        "c was never measured",
    ):  # fmt: skip
        assert words in told
    apart = compare([run("a", {SET: first}), run("b", {SET: frame(errors[:2], ["x", "y"])}), run("c", {SET: None})])
    assert apart.sets[0].shared == 0 and apart.sets[0].unpaired["pa_mpjpe_mm"] == {"a": 9.0, "b": 9.0, "c": 9.0}
    told = "\n".join(notes(apart))
    assert "no hand in common" in told and "no rows per hand were kept of c" in told
    assert "numbers of the sets, not of the same hands" in to_markdown(apart)
    with pytest.raises(ComparisonError, match="name two or more"):
        compare(runs[:1])


def test_parameters_that_differ_and_only_those() -> None:
    assert differing([{"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}]) == {"b": ("2", "3"), "c": (None, "4")}
    told = [{"code": "x", "kind": "t"}, {"code": "y"}, {"code": "x"}]
    found = compare([run(str(k), parameters={"p": "1"}, circumstances=one) for k, one in enumerate(told)])
    assert found.circumstances == {"code": ("x", "y", "x")}, "what is not recorded is not another value"
    assert found.parameters == {} and "all 1 parameters are the same" in notes(found)
    assert json.loads(to_json(found))["circumstances"] == {"code": ["x", "y", "x"]}


# --- runs by name --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Two trainings, each with an evaluation that its run keeps; the first one's model is the champion."""
    root = tmp_path_factory.mktemp("workspace")
    workspace = Workspace(root, str(root / "shards"))
    write_set(workspace.shard_set(SET), make_samples(COUNT, sides=("right", "left")))
    annotate_mano(workspace.shard_set(SET))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracker = Tracker.of(workspace)
        for name, shift_mm in (("first", 0.0), ("second", -3.0)):
            recipe = RECIPE.model_copy(update={"seed": len(name)})
            run_id = tracker.start_run("transformer", recipe, {"identity": name}, run_name=name)
            for place in (10, 20, 30):
                tracker.log_metrics(run_id, {"train/loss": 1 / place}, place)
            registration.track(workspace, Receipt.of(report(workspace, name, shift_mm)), run_id)
            tracker.end_run(run_id)
        client = mlflow.MlflowClient(tracker.uri, tracker.uri)
        client.create_registered_model(MODEL)
        (made_by,) = tracker.named("first")
        client.create_model_version(MODEL, source=root.as_uri(), run_id=made_by.run_id)
        client.set_registered_model_alias(MODEL, "champion", "1")
        yield workspace


def report(home: Workspace, name: str, shift_mm: float) -> str:
    """URI of the evaluation.json of a report whose hands are off by 10 mm and more, `shift_mm` added."""
    uri = home.shard_set(SET)
    rows = [row.sample for row in ShardSet.open(uri).between(0, COUNT)]
    hands = frame(
        10.0 + shift_mm + np.arange(COUNT)[:, None] * np.ones(21),
        [row.key for row in rows],
        side=[row.side for row in rows],
        box_px=[np.ptp(row.box_xyxy_px.reshape(2, 2), axis=0).max() for row in rows],
    )
    joints_px = np.stack([row.joints_2d_px for row in rows]) + shift_mm
    joints_px[-1] = np.nan  # a hand that failed
    unknown = dict.fromkeys(MAIN_COLUMNS, math.nan)
    result = EvaluationResult(
        set_uri=uri,
        data_digest=read_manifest(uri, IMAGES).digest,
        model_digest=f"weights-{name}",
        count=COUNT,
        with_joints=COUNT,
        with_mesh=0,
        rows=(EvaluationRow("product", "product", 1, unknown | {"pa_mpjpe_mm": 13.0 + shift_mm, "pck_005": 0.5}, 0),),
        per_sample=hands,
        errors={},
        predictions=Predictions(
            index=np.arange(COUNT),
            origin=({},) * COUNT,
            side=tuple(row.side for row in rows),
            joints_cam_m=np.zeros((COUNT, 21, 3), np.float32),
            vertices_cam_m=np.zeros((COUNT, 778, 3), np.float32),
            joints_px=joints_px.astype(np.float32),
            truth_cam_m=np.zeros((COUNT, 21, 3), np.float32),
        ),
        estimator="product",
        facts={"sampler": RECIPE.sampler.model_dump(mode="json"), "detector": f"of-{name}", "failed": {name: 1}},
    )
    folder = home.reports / f"evaluation-tiny-weights-{name}-0"
    files = write_report(result, str(folder / SET))
    summary = EvaluationSummary(
        model=f"/gone/{name}",
        model_digest=f"weights-{name}",
        page=files["table.md"],
        sets={SET: result.summary().model_copy(update={"files": files})},
    )
    (folder / SUMMARY).write_bytes(summary.to_json())
    return str(folder / SUMMARY)


def test_a_run_is_found_by_id_name_alias_and_report(home: Workspace) -> None:
    (second,) = Tracker.of(home).named("second")
    by_id = compared_run(home, second.run_id)
    assert by_id.label == compared_run(home, "second").label == "second"
    assert by_id.curves == {"train/loss": [(10, 0.1), (20, 0.05), (30, 1 / 30)]} and by_id.recipe is not None
    assert by_id.parameters["seed"] == "6" and by_id.circumstances["model_digest"] == "weights-second"
    champion = compared_run(home, "models:/maskhand@champion")
    assert champion.label == "models:/maskhand/1" and champion.sets[SET].data_digest == by_id.sets[SET].data_digest
    folder = home.reports / "evaluation-tiny-weights-first-0"
    for place in (folder, folder / SUMMARY, f"{folder}/"):
        found = compared_run(home, str(place))
        assert found.label == folder.name and found.sets[SET].metrics == {"pa_mpjpe_mm": 13.0, "pck_005": 0.5}
        assert "no longer there" in found.source and found.parameters == {}


def test_what_is_no_run_is_told(home: Workspace, tmp_path: Path) -> None:
    for text, words in (
        ("nobody's", "no such run or folder; expected the id or name"), (str(tmp_path), "neither a report nor an"),
    ):  # fmt: skip
        with pytest.raises(ComparisonError, match=words):
            compared_run(home, text)
    with pytest.raises(LookupError, match="there are maskhand@champion"):
        compared_run(home, "models:/maskhand@nobody")
    tracker = Tracker.of(home)
    twice = [tracker.start_run("transformer", RECIPE, {}, run_name="twice") for _ in range(2)]
    with pytest.raises(ComparisonError, match=r"2 runs have this name; name one by its id: \w{32}") as error:
        compared_run(home, "twice")
    assert all(run_id in str(error.value) for run_id in twice)
    (tmp_path / SUMMARY).write_text('{"model": "of another version"}')
    with pytest.raises(ValueError, match=f"{tmp_path}.*: Field required; it was written by another version"):
        compared_run(home, str(tmp_path))


def test_the_command_draws_the_hands_that_changed(
    home: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_first = str(home.reports / "evaluation-tiny-weights-first-0")
    with pytest.raises(SystemExit) as end:
        main(["compare", "second", report_first, "-w", str(home.root), "--out", str(tmp_path / "out"), "--hands", "3"])
    said = capsys.readouterr().out
    assert end.value.code == 0, said
    assert "+3.00 (+3.00 to +3.00) worse" in said and "of-first" in said and "seed" not in said
    found = json.loads((tmp_path / "out" / "comparison.json").read_bytes())
    (pair,) = found["sets"][0]["pairs"]
    assert len(pair["changed"]) == 3 and {hand["change"] for hand in pair["changed"]} == {3.0}
    assert found["sets"][0]["unpaired"]["pck_005"] == {"second": 0.5, Path(report_first).name: 0.5}
    sheet = cv2.imread(str(tmp_path / "out" / f"changed-{SET.replace('/', '-')}-2.png"))
    assert sheet is not None and sheet.shape[1] > 4 * 224, "image, truth and the joints of both"
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert page.count("data:image/jpeg") == 12 and "http" not in page and "<polyline" in page


def test_without_shards_the_hands_are_told_but_not_drawn(home: Workspace, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(home, shards_uri=str(tmp_path / "none"))
    comparison = step.compare_runs(elsewhere, ["first", "second", "first"], 2)
    assert [found.label for found in comparison.runs] == ["first (1)", "second", "first (2)"]
    moved = [
        dataclasses.replace(found, sets={SET: dataclasses.replace(found.sets[SET], data_digest="of other shards")})
        for found in comparison.runs
    ]
    receipt, told = step.write_comparison(elsewhere, compare(moved), str(tmp_path / "out"))
    assert "no shards of it with the data of other shards" in told[0] and receipt.uri.endswith("comparison.json")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["comparison.html", "comparison.json"]


def test_a_registration_keeps_how_the_run_stands_to_the_champion(home: Workspace) -> None:
    tracker = Tracker.of(home)
    for name, expected in (("second", True), ("first", False)):
        (made,) = tracker.named(name)
        registration._keep_against_champion(home, tracker, MODEL, made.run_id)
        kept = tracker.download(made.run_id, "comparison")
        assert (kept is not None) is expected, "a champion is not compared with itself"
        if kept is not None:
            (pair,) = json.loads((kept / "champion.json").read_bytes())["sets"][0]["pairs"]
            assert pair["metrics"][0]["difference"] == -3.0
            assert "-3.00 (-3.00 to -3.00) better" in (kept / "champion.md").read_text()
    assert tracker.named("second")[0].tags["model_digest"] == "weights-second"
