"""Submission files: in the official formats and order, scored by `maskhand score` like the evaluation's own numbers."""

from __future__ import annotations

import dataclasses
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from maskhand.annotate.mano_targets import annotate_mano
from maskhand.catalog import load_spec
from maskhand.conventions import AXES_TO_OPENCV, JOINT_ORDERS
from maskhand.evaluation import worker
from maskhand.evaluation.page.build import Measurement, page
from maskhand.evaluation.report import shown_hands
from maskhand.evaluation.result import EvaluationResult
from maskhand.evaluation.runner import evaluate
from maskhand.hand.layer import ManoLayer
from maskhand.metrics.alignment import procrustes_align
from maskhand.models.build import build_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.estimators import named_estimator
from maskhand.models.network import HandNetwork
from maskhand.models.vq_mano import VQMano
from maskhand.progress import silent
from maskhand.promotion import Score
from maskhand.recipe_files import load_recipe
from maskhand.scoring.benchmarks import benchmark_sets
from maskhand.scoring.benchmarks import score_files as score
from maskhand.scoring.formats import FORMATS, load_format
from maskhand.scoring.predictions import Layout, Predictions, SubmissionError
from maskhand.shards.build import serial_map
from maskhand.steps import evaluate as evaluate_step
from maskhand.steps import registration
from maskhand.steps.reevaluate import VersionResult, evaluate_version
from maskhand.tracking import ModelVersion, Promotion, Tracker
from maskhand.workspace import Workspace
from support.hand_sets import make_samples, write_set

COUNT = 7
RECIPE = load_recipe(
    "tiny",
    [
        "data.keypoints.eval_source=annotated",
        "data.crop_px=64",
        "model.backbone.kwargs={embed_dim: 48, depth: 1, num_heads: 3}",
        "evaluate.batch=3",
        "evaluate.iterations=[2]",
        "sampler.temperature=1.0",
    ],
)
SAMPLES = [
    dataclasses.replace(
        hand,
        origin={"index": COUNT - 1 - k, "annotation": 10 + k // 2, "hand_type": "interacting" if k < 6 else "right"},
    )
    for k, hand in enumerate(make_samples(COUNT, sides=("right", "left"), seed=3))
]  # stored in another order than the official one


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> ModelBundle:
    torch.manual_seed(0)
    model = build_model(RECIPE, VQMano(RECIPE.tokenizer), ManoLayer.from_default())
    return ModelBundle.save(tmp_path_factory.mktemp("model") / "bundle", model.eval(), RECIPE, {})


@pytest.fixture(scope="module")
def set_uri(tmp_path_factory) -> str:
    uri = str(tmp_path_factory.mktemp("shards") / "freihand_synth" / "evaluation")
    write_set(uri, SAMPLES)
    annotate_mano(uri)
    return uri


@pytest.fixture(scope="module")
def result(bundle: ModelBundle, set_uri: str) -> EvaluationResult:
    return evaluate(bundle, set_uri)


CARDS = {
    "freihand": "freihand",
    "ho3d": "ho3d_v3",
    "dexycb": "dexycb",
    "hint": "hamer_eval",
    "interhand": "interhand26m",
}


def write(predictions: Predictions, format_name: str, planned: int = COUNT) -> dict[str, bytes]:
    return load_format(format_name).write(predictions, Layout.of_card(load_spec(CARDS[format_name]), planned))


def unpack(files: dict[str, bytes], folder: Path) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)


def in_official_order(values: list[np.ndarray]) -> np.ndarray:
    return np.stack(values)[::-1]


def test_the_cards_use_every_format_that_ships() -> None:
    assert {one.benchmark.format for one in benchmark_sets().values()} == {*FORMATS, None}


@pytest.mark.parametrize("benchmark", ["freihand", "ho3d"])
def test_mesh_files_score_as_the_evaluation_says(tmp_path: Path, result: EvaluationResult, benchmark: str) -> None:
    spec = load_spec(CARDS[benchmark])
    order, axes = list(JOINT_ORDERS[spec.joint_order]), AXES_TO_OPENCV[spec.axes]
    xyz = in_official_order([hand.joints_cam_m for hand in SAMPLES]) * axes
    stored = np.empty_like(xyz)
    stored[:, order] = xyz
    verts = in_official_order([hand.vertices_cam_m for hand in SAMPLES]) * axes
    (tmp_path / "evaluation_xyz.json").write_text(json.dumps(stored.tolist()))
    (tmp_path / "evaluation_verts.json").write_text(json.dumps(verts.tolist()))
    unpack(write(result.predictions, benchmark), tmp_path)
    found, own = score(benchmark, tmp_path, tmp_path / "pred.json").metrics, result.estimator_row.metrics
    names = {
        "pa_mpjpe_mm": "pa_mpjpe_mm",
        "pa_mpvpe_mm": "pa_mpvpe_mm",
        "mpjpe_mm": "absolute_mpjpe_mm",
        "f_5mm_aligned": "pa_f5",
        "f_15mm_aligned": "pa_f15",
        "auc_joints_aligned": "pa_auc_joints",
        "auc_vertices_aligned": "pa_auc_vertices",
    }
    for official, ours in names.items():
        assert found[official] == pytest.approx(own[ours], rel=2e-3, abs=1e-3), official


def test_dexycb_lines_score_as_the_evaluation_says(tmp_path: Path, result: EvaluationResult) -> None:
    joints = in_official_order([hand.joints_cam_m for hand in SAMPLES])
    np.savez(tmp_path / "gt.npz", image_id=np.arange(COUNT), joint_3d_m=joints)
    unpack(write(result.predictions, "dexycb"), tmp_path)
    found, own = score("dexycb", tmp_path / "gt.npz", tmp_path / "results.txt").metrics, result.estimator_row.metrics
    assert found["absolute_mpjpe_mm"] == pytest.approx(own["absolute_mpjpe_mm"], rel=1e-4)
    assert found["root_relative_mpjpe_mm"] == pytest.approx(own["mpjpe_mm"], rel=1e-3)
    assert found["pa_mpjpe_mm"] == pytest.approx(own["pa_mpjpe_mm"], rel=1e-3)


def test_frames_that_the_shards_left_out_are_lines_of_zeros_in_dexycb(tmp_path: Path, result: EvaluationResult) -> None:
    """Frame 3 and, beyond the last predicted one, frame 7: every frame with a hand needs a line to be scored."""
    joints = in_official_order([hand.joints_cam_m for hand in SAMPLES])
    np.savez(tmp_path / "gt.npz", image_id=np.arange(COUNT + 1), joint_3d_m=np.concatenate([joints, joints[:1]]))
    found = result.predictions
    kept = [k for k, origin in enumerate(found.origin) if origin["index"] != 3]
    few = dataclasses.replace(found, origin=tuple(found.origin[k] for k in kept), joints_cam_m=found.joints_cam_m[kept])
    unpack(write(few, "dexycb", planned=COUNT + 1), tmp_path)
    assert score("dexycb", tmp_path / "gt.npz", tmp_path / "results.txt").counts["samples"] == COUNT + 1
    lines = [line.split(",") for line in (tmp_path / "results.txt").read_text().splitlines()]
    assert [int(line[0]) for line in lines] == list(range(COUNT + 1))
    assert [set(line[1:]) == {"0.0000"} for line in lines] == [k in (3, 7) for k in range(COUNT + 1)]


def test_hint_keypoints_score_as_the_evaluation_says(tmp_path: Path, result: EvaluationResult) -> None:
    points = in_official_order([np.c_[hand.joints_2d_px, hand.joints_2d_conf] for hand in SAMPLES])
    size = in_official_order([np.ptp(hand.box_xyxy_px.reshape(2, 2), axis=0).max() for hand in SAMPLES])
    for state in ("all", "vis", "occ"):
        np.savez(tmp_path / f"TEST_{state}.npz", hand_keypoints_2d=points, scale=size)
    unpack(write(result.predictions, "hint"), tmp_path)
    found = score("hint", tmp_path, tmp_path / "pred.npz").metrics
    for name in ("pck_005", "pck_010", "pck_015"):
        assert found[f"{name}_all"] == pytest.approx(result.estimator_row.metrics[name], abs=1e-9)
    assert found["epe_all_px"] == pytest.approx(result.estimator_row.metrics["epe_px"], rel=1e-5)


def test_a_benchmark_of_2d_keypoints_alone_is_re_evaluated_by_its_pck(
    bundle: ModelBundle, result: EvaluationResult, tmp_path: Path
) -> None:
    flat = [
        dataclasses.replace(hand, joints_cam_m=None, joints_3d_valid=None, vertices_cam_m=None, mano=None)
        for hand in SAMPLES
    ]
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    write_set(home.shard_set("hamer_eval/TEST_newdays_img_all"), flat)
    folder = tmp_path / "model"
    ModelBundle.save(folder, bundle.model, RECIPE, {})
    receipt = evaluate_version(home, str(folder), "hint_newdays", "hamer_eval/TEST_newdays_img_all", silent)
    found = VersionResult.of(receipt)
    assert found.samples_uri is None and found.mean_pose == {}
    assert "pa_mpjpe_mm" not in found.metrics
    assert 0 < found.metrics["pck_015"] < 1 and np.isfinite(found.metrics["epe_px"])


def test_a_set_of_2d_keypoints_alone_is_evaluated_and_its_model_registered(
    bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = [
        dataclasses.replace(hand, joints_cam_m=None, joints_3d_valid=None, vertices_cam_m=None, mano=None)
        for hand in SAMPLES
    ]
    home, name = Workspace(tmp_path, str(tmp_path / "shards")), "hamer_eval/TEST_newdays_img_all"
    write_set(home.shard_set(name), flat)
    folder = tmp_path / "model"
    ModelBundle.save(folder, bundle.model, RECIPE, {})
    receipt = evaluate_step.evaluate(home, str(folder), [name], silent)
    assert receipt.facts == {"samples": COUNT}
    assert evaluate_step.table(receipt)[1] == [
        [name, row, *["–"] * 5] for row in ("drawn codes, T=2", "expectation of drawn codes, T=5 (4 passes)")
    ]
    sections = Path(evaluate_step.page_uri(receipt)).read_text().partition("<script>")[0]
    assert not re.search(r"[> ]nan[ <]", sections) and "EPE" in sections
    assert Path(receipt.folder, name, "submission", "pred.npz").is_file()

    for place in ("s3://bucket/v1/synthetic/evaluation", str(home.shard_set(name)), "synthetic"):
        with pytest.raises(ValueError, match="expected DATASET/SPLIT"):
            evaluate_step.evaluate(home, str(folder), [place], silent)

    asked: list[Score] = []
    version = ModelVersion("maskhand", 1)
    monkeypatch.setattr(Tracker, "register_model", lambda self, _, __, score, ___: asked.append(score) or version)
    monkeypatch.setattr(Tracker, "promote", lambda self, version: Promotion(version, ("challenger",), "not a number"))
    monkeypatch.setattr(registration, "track", lambda *_: "run")
    registered, is_new = registration.register(home, str(folder), receipt.uri, "run")
    numbers = asked[0].as_numbers()
    assert is_new and all(np.isnan(value) for value in numbers.values()) and not set(numbers) & set(registered.facts)


def test_a_partial_benchmark_is_reported_without_its_submission(bundle: ModelBundle, tmp_path: Path) -> None:
    home, name = Workspace(tmp_path, str(tmp_path / "shards")), "dexycb/s0_test"
    write_set(home.shard_set(name), [dataclasses.replace(hand, origin={"index": None}) for hand in SAMPLES])
    folder = tmp_path / "model"
    ModelBundle.save(folder, bundle.model, RECIPE, {})
    receipt = evaluate_step.evaluate(home, str(folder), [name], silent)
    assert receipt.no_submission.startswith(f"{name}: a sample's origin has no index")
    assert Path(receipt.folder, name, "sheet.png").is_file() and Path(evaluate_step.page_uri(receipt)).is_file()
    assert not Path(receipt.folder, name, "submission").exists()
    asked = ("sampler.top_k=3", "evaluate.iterations=[1,4]")
    otherwise = evaluate_step.evaluate(home, str(folder), [name], silent, overrides=asked)
    assert otherwise.folder != receipt.folder, "another model, as its answers are"
    assert [row[1] for row in evaluate_step.table(otherwise)[1]] == [
        "drawn codes, T=1", "drawn codes, T=4", "expectation of drawn codes, T=5 (4 passes)",
    ]  # fmt: skip
    write_set(home.shard_set("dexycb/s0_val"), SAMPLES[:2])
    other = evaluate_step.evaluate(home, str(folder), ["dexycb/s0_val"], silent)
    assert len({receipt.folder, otherwise.folder, other.folder}) == 3, "no report writes over another"
    run_id = registration.track(home, receipt)
    (kept,) = Tracker.of(home).history("evaluation")
    assert kept.run_id == run_id and kept.metrics[f"eval/{name}/drawn_codes_T2/pa_mpjpe_mm"] > 0
    assert kept.tags["mlflow.runName"] == f"evaluation-{RECIPE.name}-{ModelBundle.load(folder).digest}"


def test_interhand_pairs_both_hands_of_an_annotation(tmp_path: Path, result: EvaluationResult) -> None:
    unpack(write(result.predictions, "interhand"), tmp_path)
    found = score("interhand", tmp_path / "truth.npz", tmp_path / "pred.npz")
    rows = np.load(tmp_path / "truth.npz")
    assert rows["annotation_id"].tolist() == [10, 11, 12, 13]
    assert rows["joint_valid"].sum(1).tolist() == [42, 42, 42, 21]
    apart = [SAMPLES[2 * k + 1].joints_cam_m[0] - SAMPLES[2 * k].joints_cam_m[0] for k in range(3)]
    np.testing.assert_allclose(
        rows["joint_cam_mm"][:3, 41] - rows["joint_cam_mm"][:3, 20], 1e3 * np.stack(apart), atol=1e-3
    )
    # The program averages each of the 42 joints by itself, so right and left hands weigh alike, however many of each
    # there are; our own mean weighs hands alike. Errors of single hands are the same.
    hands = result.per_sample[result.per_sample.predictor == result.estimator].set_index("index").mpjpe_mm
    right, left, single = hands[[0, 2, 4, 6]].mean(), hands[[1, 3, 5]].mean(), hands[6]
    assert found.metrics["mpjpe_all_mm"] == pytest.approx((right + left) / 2, rel=1e-5)
    assert found.metrics["mpjpe_single_mm"] == pytest.approx(single, rel=1e-5)
    interacting = (hands[[0, 2, 4]].mean() + hands[[1, 3, 5]].mean()) / 2
    assert found.metrics["mpjpe_interacting_mm"] == pytest.approx(interacting, rel=1e-5)
    assert result.estimator_row.metrics["mpjpe_mm"] == pytest.approx((4 * right + 3 * left) / 7, rel=1e-9)
    place = {int(index): k for k, index in enumerate(result.predictions.index)}
    wrists = [result.predictions.joints_cam_m[place[k], 0].astype(np.float64) for k in range(6)]
    off = [np.linalg.norm(wrists[2 * k + 1] - wrists[2 * k] - apart[k]) for k in range(3)]
    assert found.metrics["mrrpe_mm"] == pytest.approx(1e3 * np.mean(off), rel=1e-5)


def test_left_hands_are_written_as_left_hands(result: EvaluationResult) -> None:
    """Where a hand stands is nearly known from its crop, so a hand that was not mirrored back would be far away."""
    for k, hand in enumerate(SAMPLES):
        center = result.predictions.joints_px[list(result.predictions.index).index(k)].mean(0)
        reach = np.ptp(hand.box_xyxy_px.reshape(2, 2), axis=0).max()
        x0, y0, x1, y1 = hand.box_xyxy_px
        assert np.linalg.norm(center - [(x0 + x1) / 2, (y0 + y1) / 2]) < reach


def test_without_official_positions_there_is_a_sentence(result: EvaluationResult) -> None:
    bare = dataclasses.replace(result.predictions, origin=tuple({"index": None} for _ in range(COUNT)))
    with pytest.raises(SubmissionError, match="no index"):
        write(bare, "dexycb")


def test_any_number_of_workers_gives_the_same_bytes(bundle: ModelBundle, set_uri: str, result, tmp_path: Path) -> None:
    """Batches measured out of order, by a model loaded elsewhere, and drawn codes (temperature 1) alike."""
    folder = tmp_path / "model"
    ModelBundle.save(folder, bundle.model, RECIPE, {})

    def backwards(work, batches, on_done):
        assert isinstance(work, partial) and work.args[-2] == str(folder)
        return serial_map(work, batches[::-1], on_done=on_done)[::-1]

    other = evaluate(bundle, set_uri, mapper=backwards, model_folder=str(folder))
    assert other.summary().to_json() == result.summary().to_json()
    assert other.per_sample.equals(result.per_sample)
    assert write(other.predictions, "freihand") == write(result.predictions, "freihand")


def test_drawn_hands_do_not_depend_on_what_else_is_asked(bundle: ModelBundle, set_uri: str) -> None:
    """Codes are drawn: `re-evaluate` asks in one way, `evaluate` in several."""
    drawn = RECIPE.model_copy(update={"sampler": RECIPE.sampler.model_copy(update={"decode": "codes"})})
    sure = dataclasses.replace(bundle, model=_sure_model())
    samplers = [drawn.sampler.model_copy(update={"iterations": t}) for t in (1, 2, 3)]
    alone, last = (evaluate(sure, set_uri, drawn, samplers=asked).estimator_row for asked in (samplers[2:], samplers))
    assert alone.metrics == last.metrics
    other_seed = evaluate(sure, set_uri, drawn.model_copy(update={"seed": 1}), samplers=samplers[2:]).estimator_row
    assert other_seed.metrics["pa_mpjpe_mm"] != alone.metrics["pa_mpjpe_mm"], "the hands are drawn"


def _sure_model() -> HandNetwork:
    torch.manual_seed(0)
    model = build_model(RECIPE, VQMano(RECIPE.tokenizer), ManoLayer.from_default()).eval()
    for values in (*model.parameters(), *model.tokenizer.buffers()):  # else every code is as likely and decoded alike
        if values.is_floating_point():
            values.data += 0.1 * torch.randn(values.shape, generator=torch.Generator().manual_seed(values.numel()))
    return model


def test_a_image_that_cannot_be_decoded_counts_as_failed(bundle: ModelBundle, tmp_path: Path) -> None:
    broken = dataclasses.replace(SAMPLES[2], image=SAMPLES[2].image[:60] + b"IEND\xaeB`\x82")
    uri = str(tmp_path / "freihand_synth" / "evaluation")
    write_set(uri, [*SAMPLES[:2], broken, *SAMPLES[3:]])
    found = evaluate(bundle, uri)
    assert found.count == COUNT and found.estimator_row.failed == 1 and found.facts["failed"] == {"bad_image": 1}
    row = found.per_sample[found.per_sample.predictor == found.estimator].set_index("index").loc[2]
    assert row.failure == "bad_image" and np.isfinite(row.pa_mpjpe_mm) and np.isinf(row.epe_px)
    assert np.isfinite(found.estimator_row.metrics["epe_px"]) and found.estimator_row.metrics["pck_015"] < 1
    lists = json.loads(write(found.predictions, "freihand")["pred.json"])
    assert not np.any(lists[0][COUNT - 1 - 2]) and np.all(np.array(lists[0][0])[:, 2] > 0)
    asked = named_estimator(RECIPE, RECIPE.sampler)
    job = worker.EvalJob(uri, RECIPE, (asked,), asked, None, {"right": None, "left": None}, 3)
    assert worker.evaluate_chunk(job, bundle, range(0, 1)).without_pose == 0


def test_the_hands_of_a_report_are_those_that_were_measured(bundle: ModelBundle, set_uri: str) -> None:
    """Codes are drawn (temperature 1): a second prediction would be another hand than the one the error belongs to."""
    drawn = RECIPE.model_copy(update={"sampler": RECIPE.sampler.model_copy(update={"decode": "codes"})})
    sure = dataclasses.replace(bundle, model=_sure_model())
    found = evaluate(sure, set_uri, drawn)
    for hand in shown_hands(sure, found, drawn, each=2, tile_px=48):
        assert hand.truth_m is not None and hand.errors["key"] == hand.key
        moved = procrustes_align(hand.vertices_m[None], hand.truth_m[None])[0]
        error_mm = 1e3 * np.linalg.norm(moved - hand.truth_m, axis=-1).mean()
        assert error_mm == pytest.approx(hand.errors["pa_mpvpe_mm"], abs=0.01)


def test_a_image_that_cannot_be_decoded_is_shown_black(bundle: ModelBundle, tmp_path: Path) -> None:
    broken = dataclasses.replace(SAMPLES[2], image=SAMPLES[2].image[:60] + b"IEND\xaeB`\x82")
    uri = str(tmp_path / "freihand_synth" / "evaluation")
    write_set(uri, [*SAMPLES[:2], broken, *SAMPLES[3:]])
    found = evaluate(bundle, uri)
    hand = next(hand for hand in shown_hands(bundle, found, each=3, tile_px=48) if hand.key == broken.key)
    assert not hand.images[0].any() and np.isnan(hand.vertices_m).all()
    assert page("m", "d", [Measurement(found, [hand])], bundle.model.mano.faces.numpy())


def test_the_page_is_one_file_and_shows_what_was_found(bundle: ModelBundle, result: EvaluationResult) -> None:
    hands = shown_hands(bundle, result, each=1, tile_px=48)
    assert all(np.abs(h.images[2].astype(int) - h.images[0]).mean() > 1 for h in hands), "a mesh is drawn"
    text = page("models:/maskhand@x", bundle.digest, [Measurement(result, hands)] * 2, bundle.model.mano.faces.numpy())
    assert "http://" not in text and "https://" not in text and ' src="data:image/jpeg' in text
    assert f"{result.estimator_row.metrics['pa_mpjpe_mm']:.2f}" in text and "No sample failed." in text
    assert text.count("<canvas") == 2 * len(hands) and all(hand.key in text for hand in hands)
    for title in ("3D PCK", "Error by joint", "Errors of single hands", "Error by group"):
        assert text.count(title) == 2
    assert "nan" not in text.partition("<script>")[0].replace("nanoseconds", "")
    sentences = {"detected": "In 2 images the detector saw no hand", "none": "For 2 images no 2D pose was given."}
    for source in sentences:
        asked = dataclasses.replace(result, facts=result.facts | {"keypoints": source, "without_2d_pose": 2})
        text = page("model", bundle.digest, [Measurement(asked, [])], bundle.model.mano.faces.numpy())
        assert [said in text for said in sentences.values()] == [source == other for other in sentences]
