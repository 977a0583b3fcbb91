"""Joint confidence: sampled hands, calibration on held-out hands, the estimator, and where these are stored."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from sklearn.metrics import roc_auc_score

from maskhand.annotate.mano_targets import annotate_mano
from maskhand.config import Recipe
from maskhand.conventions import OPENPOSE_21
from maskhand.evaluation.calibrate import calibrate, fit
from maskhand.evaluation.errors import ErrorTable, error_table
from maskhand.evaluation.held_out import ESTIMATOR, HeldOutHands, TrainingSet, validation_metrics
from maskhand.evaluation.page.build import Measurement, page
from maskhand.evaluation.report import evaluation_sheet, shown_hands
from maskhand.evaluation.runner import evaluate
from maskhand.evaluation.summary import EvaluationSummary
from maskhand.evaluation.truth import ground_truth
from maskhand.loading.loader import eval_rows, eval_set, held_out_rows
from maskhand.metrics.calibration import JointConfidenceQuality
from maskhand.models.bundle import ModelBundle
from maskhand.models.bundle_records import BundleError
from maskhand.models.calibration import (
    Calibration,
    Candidate,
    DrawStatistics,
    JointCalibration,
    draw_features,
    estimator_of,
)
from maskhand.models.confidence import draw_statistics, joint_confidence, sample_joints
from maskhand.models.estimators import candidates, named_estimator, paper_procedure, passes
from maskhand.models.network import Context, HandNetwork
from maskhand.models.sampling import predict
from maskhand.progress import silent
from maskhand.promotion import Score
from maskhand.steps import evaluate as evaluate_step
from maskhand.steps import registration
from maskhand.steps.exported import calibrate_export
from maskhand.tracking import ModelVersion, Promotion, Tracker
from maskhand.workspace import Workspace
from support.hand_sets import make_samples, write_set
from support.model_parts import random_batch, small_model, small_recipe
from support.warned import warnings_of

DRAWS = 32
TIPS = {"right": None, "left": None}


def encoded(model: HandNetwork, count: int) -> Context:
    batch = random_batch(count)
    return model.encode(batch.image, batch.keypoints_2d)


def imagined(hands: int, seed: int = 0) -> tuple[np.ndarray, DrawStatistics, np.ndarray]:
    """Errors (mm) of hands whose joints are wrong by as much as they and their hand are hard, the evidence beside them,
    and the true probability to be within 10 mm. The draws are overconfident: they spread half as wide as the errors."""
    rng = np.random.default_rng(seed)
    scale = np.linspace(3, 9, 21) * np.exp(rng.normal(0, 0.4, (hands, 1)))
    errors = scale * np.linalg.norm(rng.normal(size=(hands, 21, 3)), axis=-1)
    drawn = 0.5 * scale[:, None] * np.linalg.norm(rng.normal(size=(hands, DRAWS, 21, 3)), axis=-1)
    other = scale[:, None] * np.linalg.norm(rng.normal(size=(hands, 4000, 21, 3)), axis=-1) if hands <= 50 else drawn
    evidence = DrawStatistics((drawn <= 10).mean(1), np.sqrt((drawn**2).mean(1)), DRAWS)
    return errors, evidence, (other <= 10).mean(1)


def test_evidence_is_that_of_single_hands_laid_over_each_other() -> None:
    rng = np.random.default_rng(0)
    reported = rng.normal(0, 0.03, (3, 21, 3))
    drawn = reported[:, None] + rng.normal(0, 0.006, (3, DRAWS, 21, 3))
    found = draw_statistics(drawn, reported)
    for hand in range(3):
        apart = []
        for draw in drawn[hand]:
            a, b = draw - draw.mean(0), reported[hand] - reported[hand].mean(0)
            turn, _ = Rotation.align_vectors(b, a)
            turned = turn.apply(a)
            scale = (turned * b).sum() / (turned**2).sum()
            apart.append(1e3 * np.linalg.norm(scale * turned - b, axis=1))
        np.testing.assert_allclose(found.fraction_within[hand], (np.array(apart) <= 10).mean(0))
        np.testing.assert_allclose(found.spread_mm[hand], np.sqrt((np.array(apart) ** 2).mean(0)), rtol=1e-6)


def test_where_and_how_large_a_drawn_hand_is_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    reported = rng.normal(0, 0.03, (2, 21, 3))
    turns = Rotation.random(2 * DRAWS, random_state=0).as_matrix().reshape(2, DRAWS, 3, 3)
    moved = 1.3 * reported[:, None] @ turns + rng.normal(size=(2, DRAWS, 1, 3))
    found = draw_statistics(moved, reported)
    assert (found.fraction_within == 1).all() and found.spread_mm.max() < 1e-6
    mirrored = draw_statistics(moved * [-1, 1, 1], reported)
    assert mirrored.fraction_within.min() < 0.5, "a mirrored hand is another hand"
    broken = draw_statistics(moved, np.where(np.arange(2)[:, None, None] == 1, np.nan, reported))
    assert (
        np.isnan(broken.fraction_within[1]).all()
        and np.isnan(broken.spread_mm[1]).all()
        and (broken.fraction_within[0] == 1).all()
    )


def test_hands_are_drawn_from_the_models_distribution() -> None:
    recipe = small_recipe()
    model, draws = small_model(recipe), 4000
    context = encoded(model, 1)
    masked = torch.full((1, model.num_tokens), model.mask_id)
    expected = model.logits(masked, context).softmax(-1)[0].detach().numpy()
    seen: list[torch.Tensor] = []
    decode = model.tokenizer.decode_codes
    model.tokenizer.decode_codes = lambda ids: seen.append(ids) or decode(ids)  # type: ignore[method-assign]
    joints = sample_joints(model, context, draws)
    ids = torch.cat(seen).numpy()
    shares = np.stack([np.bincount(column, minlength=20) for column in ids.T]) / draws
    assert joints.shape == (1, draws, 21, 3)
    assert np.abs(shares - expected).max() < 5 * np.sqrt(0.25 / draws)
    with torch.no_grad():
        again = model.mano(decode(torch.from_numpy(ids)), context.betas.expand(draws, -1)).joints_m
    torch.testing.assert_close(joints[0], again)


def test_a_hands_confidence_does_not_depend_on_its_neighbors() -> None:
    model = small_model()
    errors, evidence, _ = imagined(60)
    calibration = fit(errors, draw_features(evidence))
    batch = random_batch(5)
    reported = 0.05 * torch.randn(5, 21, 3, generator=torch.Generator().manual_seed(0))

    def confidence(rows: slice) -> np.ndarray:
        context = model.encode(batch.image[rows], batch.keypoints_2d[rows])
        found = joint_confidence(model, context, reported[rows], calibration)
        return np.stack([found.p_within_10mm, found.joint_error_mm])

    together = confidence(slice(0, 5))
    assert together.shape == (2, 5, 21) and (together == confidence(slice(0, 5))).all()
    np.testing.assert_allclose(confidence(slice(3, 5)), together[:, 3:], rtol=1e-6)


def test_a_network_without_tokens_has_nothing_to_draw_from() -> None:
    with pytest.raises(ValueError, match="no distribution to sample from"):
        sample_joints(torch.nn.Identity(), None)  # type: ignore[arg-type]


def test_the_calibration_is_honest_and_better_than_a_constant_per_joint() -> None:
    """Draws that are too sure are corrected, and what they know of the hand is added to what is known of the joint."""
    errors, evidence, _ = imagined(2000)
    calibration = fit(errors, draw_features(evidence))
    held, known, probability = imagined(50, seed=1)
    reported = calibration(draw_features(known))
    assert (
        np.abs(reported.p_within_10mm - probability).mean() < 0.06 < np.abs(known.fraction_within - probability).mean()
    )
    right = (held <= 10).ravel()
    sure, constant, share = (
        roc_auc_score(right, x.ravel()) for x in (reported.p_within_10mm, reported.p_by_joint, known.fraction_within)
    )
    assert sure > constant + 0.05 and sure > share
    assert np.corrcoef(reported.joint_error_mm.ravel(), held.ravel())[0, 1] > 0.5
    assert reported.joint_error_mm.mean() == pytest.approx(held.mean(), rel=0.1)
    for table in (calibration.within.table, calibration.error.table):
        assert (np.diff(np.array(table), axis=0) >= 0).all()
    assert reported.p_within_10mm.min() >= 0 and reported.p_within_10mm.max() <= 1
    np.testing.assert_allclose(calibration.within_by_joint, (errors <= 10).mean(0))


def test_joints_without_a_truth_and_hands_that_failed_are_left_out_of_the_calibration() -> None:
    errors, evidence, _ = imagined(300)
    errors[:100, 3] = np.nan
    holes = dataclasses.replace(
        evidence, spread_mm=np.where(np.arange(300)[:, None] >= 250, np.nan, evidence.spread_mm)
    )
    found = fit(errors, draw_features(holes))
    assert found.hands == 250
    np.testing.assert_allclose(found.within_by_joint[3], (errors[100:250, 3] <= 10).mean())


def test_what_confidence_is_worth() -> None:
    rng = np.random.default_rng(2)
    error = rng.uniform(0, 20, (400, 21))
    constant = np.tile(np.linspace(0.2, 0.8, 21), (400, 1))
    found = JointConfidenceQuality.of((error <= 10).astype(float), constant, error + 1, error, 10.0)
    assert (found.confidence_ece, found.confidence_auroc) == (0, 1)
    assert [found.confidence_error_spearman, found.confidence_hand_spearman] == pytest.approx([1, 1])
    assert found.confidence_auroc_by_joint == pytest.approx(roc_auc_score(error.ravel() > 10, -constant.ravel()))
    half = JointConfidenceQuality.of(np.full((400, 21), 0.75), constant, constant, error, 10.0)
    assert half.confidence_ece == pytest.approx(abs(0.75 - (error <= 10).mean())) and half.confidence_auroc == 0.5
    nothing = JointConfidenceQuality.of(constant, constant, constant, np.full((400, 21), 3.0), 10.0)
    assert np.isnan([nothing.confidence_auroc, nothing.confidence_error_spearman]).all()


def test_passes_are_counted_as_they_are_made() -> None:
    recipe = small_recipe()
    names = {t: named_estimator(recipe, paper_procedure(recipe.sampler, t)).name for t in (1, 3, 5, 16)}
    assert names == {
        1: "drawn codes, T=1",
        3: "drawn codes, T=3",
        5: "drawn codes, T=5 (4 passes)",
        16: "drawn codes, T=16 (13 passes)",
    }
    assert [passes(64, t) for t in (1, 3, 5)] == [1, 3, 5]
    by = lambda **changes: named_estimator(recipe, recipe.sampler.model_copy(update=changes))  # noqa: E731
    assert by().name == "expectation, T=5 (4 passes)" and by().key == "expectation_T5"
    assert by(decode="codes").key == "most_probable_codes_T5"
    assert by(temperature=0.5).name.startswith("expectation of drawn")
    assert by(decode="codes", temperature=0.5, iterations=1).key == "drawn_codes_at_0.5_T1"
    regression = recipe.model_copy(update={"model": recipe.model.model_copy(update={"decoder": "regression"})})
    assert named_estimator(regression, recipe.sampler).name == "regression"


def test_the_name_of_an_estimator_counts_its_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    from maskhand.models.sampling import sample

    model, calls = small_model(), []
    logits = model.logits
    monkeypatch.setattr(model, "logits", lambda *args: calls.append(1) or logits(*args))
    recipe = small_recipe()
    for iterations in (1, 2, 5, 16, 40):
        calls.clear()
        sample(model, encoded(model, 2), recipe.sampler.model_copy(update={"iterations": iterations}))
        assert len(calls) == passes(16, iterations)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    small = small_recipe()
    keypoints = small.data.keypoints.model_copy(update={"eval_source": "annotated"})
    changes = {"keypoints": keypoints, "held_out": 0.5, "train": {"freihand_synth/training": 1.0}}
    return small.model_copy(update={"data": small.data.model_copy(update=changes)})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """60 training and 20 evaluation hands."""
    folder = tmp_path_factory.mktemp("home")
    home = Workspace(folder, str(folder / "shards"))
    for name, count in (("freihand_synth/training", 60), ("freihand_synth/evaluation", 20)):
        write_set(home.shard_set(name), make_samples(count, sides=("right", "left"), seed=count), shard_size=16)
        annotate_mano(home.shard_set(name))
    return home


@pytest.fixture(scope="module")
def bundle(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    return ModelBundle.save(tmp_path_factory.mktemp("model") / "bundle", small_model(recipe), recipe, {})


@pytest.fixture(scope="module")
def calibration(bundle: ModelBundle, home: Workspace) -> Calibration:
    sets = [TrainingSet("freihand_synth/training", home.shard_set("freihand_synth/training"), 1.0, TIPS)]
    found = calibrate(bundle, sets)
    assert found is not None
    return found


def test_held_out_hands_are_read_as_an_evaluation_reads_them(home: Workspace, recipe: Recipe) -> None:
    uri = home.shard_set("freihand_synth/training")
    found = list(held_out_rows(recipe, uri, 8))
    places = [int(i) for rows in found for i in rows.hands.index]
    assert places == list(range(1, 60, 2)) and [len(rows.samples) for rows in found] == [8, 8, 8, 6]
    expected = eval_rows(recipe, [s for s in eval_set(recipe, uri) if s.index in places[:8]])
    for name in ("pixels", "keypoints_2d", "joints_3d_m", "crop_from_image"):
        assert torch.equal(getattr(found[0].hands, name), getattr(expected.hands, name))
    few = [int(i) for rows in held_out_rows(recipe, uri, 8, most=5) for i in rows.hands.index]
    assert few == places[:5]
    detected = recipe.data.keypoints.model_copy(update={"eval_source": "detected"})
    without = recipe.model_copy(update={"data": recipe.data.model_copy(update={"keypoints": detected})})
    assert torch.equal(next(held_out_rows(without, uri, 8)).hands.keypoints_2d, found[0].hands.keypoints_2d)


def test_a_validation_measures_what_an_evaluation_does_on_the_same_hands(
    home: Workspace, recipe: Recipe, bundle: ModelBundle
) -> None:
    uri, model = home.shard_set("freihand_synth/training"), bundle.model
    tips = {"right": "ho3d", "left": None}
    sets = [TrainingSet("freihand_synth/training", uri, 1.0, tips)]  # type: ignore[arg-type]
    tables = []
    for rows in held_out_rows(recipe, uri, 7):
        found = predict(model, rows.hands, ESTIMATOR)
        names = [tips[row.sample.side] for row in rows.samples]
        truth = ground_truth(rows.hands, rows.samples, model.mano)
        tables.append(error_table(found, truth, rows.samples, names, [""] * len(names)))
    expected = ErrorTable.concatenate(tables).errors.summary()
    sums = HeldOutHands.read(recipe, sets, model.mano, 200).sums(model)
    assert sums[0].tolist() == [30.0] * 22
    assert validation_metrics(sums) == {
        f"val/{name}": pytest.approx(expected[name], rel=1e-5) for name in ("pa_mpjpe_mm", "pa_mpvpe_mm")
    }
    shared = [HeldOutHands.read(recipe, sets, model.mano, 200, rank, 2) for rank in range(2)]
    assert [len(hands.batches) for hands in shared] == [1, 1]
    assert torch.equal(shared[0].sums(model) + shared[1].sums(model), sums), "for any number of ranks"
    few = HeldOutHands.read(recipe, [*sets, *sets], model.mano, 6).sums(model)
    assert few[0].tolist() == [6.0] * 22, "both sets count alike"


def test_the_best_estimator_on_held_out_hands_is_chosen(calibration: Calibration, recipe: Recipe) -> None:
    assert [c.sampler for c in calibration.candidates] == list(candidates(recipe.sampler))
    assert calibration.estimator.pa_mpjpe_mm == min(c.pa_mpjpe_mm for c in calibration.candidates)
    assert calibration.hands == {"freihand_synth/training": 30}
    assert calibration.joints.hands == 30 and 0 < np.mean(calibration.joints.within_by_joint) < 1


def test_too_few_held_out_hands_or_no_tokens_make_no_calibration(bundle: ModelBundle, home: Workspace) -> None:
    sets = [TrainingSet("freihand_synth/training", home.shard_set("freihand_synth/training"), 1.0, TIPS)]
    few = bundle.recipe.model_copy(update={"data": bundle.recipe.data.model_copy(update={"held_out": 0.2})})
    assert calibrate(dataclasses.replace(bundle, recipe=few), sets) is None
    assert calibrate(dataclasses.replace(bundle, model=torch.nn.Identity()), sets) is None


def with_choice(calibration: Calibration, place: int) -> Calibration:
    """The same, had candidate number `place` been the best."""
    ranked = [
        Candidate(name=c.name, sampler=c.sampler, pa_mpjpe_mm=float(k != place))
        for k, c in enumerate(calibration.candidates)
    ]
    return calibration.model_copy(update={"candidates": tuple(ranked)})


def test_the_row_that_counts_is_the_chosen_estimators_and_not_that_of_the_largest_t(
    bundle: ModelBundle, calibration: Calibration, home: Workspace
) -> None:
    uri = home.shard_set("freihand_synth/evaluation")
    first = dataclasses.replace(bundle, calibration=with_choice(calibration, 0))
    found = evaluate(first, uri)
    drawn = ["drawn codes, T=1", "drawn codes, T=3", "drawn codes, T=5 (4 passes)"]
    assert [row.name for row in found.rows] == [*drawn, "expectation, T=1"]
    row = found.estimator_row
    assert (row.name, row.key, row.passes) == ("expectation, T=1", "expectation_T1", 1)
    paper = evaluate(dataclasses.replace(bundle, calibration=with_choice(calibration, 2)), uri)
    assert [row.name for row in paper.rows] == drawn and paper.estimator_row.name == drawn[-1]
    assert paper.estimator_row.metrics["pa_mpjpe_mm"] == found.row(drawn[-1]).metrics["pa_mpjpe_mm"]
    assert "The model itself uses expectation, T=1: the best on held-out training hands" in found.to_markdown()
    for result in (found, paper):
        table = result.per_sample.set_index("predictor")
        reported = table[[f"p_within_10mm.{joint}" for joint in OPENPOSE_21]]
        assert (
            reported.loc[result.estimator].notna().to_numpy().all()
            and reported.drop(result.estimator).isna().to_numpy().all()
        )
        assert 0 <= result.estimator_row.metrics["confidence_ece"] <= 1

    otherwise = bundle.recipe.sampler.model_copy(update={"iterations": 2})
    calls = evaluate(first, uri, bundle.recipe.model_copy(update={"sampler": otherwise}))
    assert calls.estimator_row.name == "expectation, T=2", "other sampler settings are used as given"
    assert calls.per_sample.mean_p_within_10mm.isna().all() and "confidence_ece" not in calls.estimator_row.metrics


def test_joint_confidence_is_equal_for_any_number_of_workers(
    bundle: ModelBundle, calibration: Calibration, home: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    saved = ModelBundle.save(folder, bundle.model, bundle.recipe, {}).calibrate(folder, calibration)
    uri = home.shard_set("freihand_synth/evaluation")

    def backwards(work, batches, on_done):
        parts = [work(batch) for batch in batches[::-1]][::-1]
        for part in parts:
            on_done(part)
        return parts

    here, there = evaluate(saved, uri), evaluate(saved, uri, mapper=backwards, model_folder=str(folder))
    assert here.summary().to_json() == there.summary().to_json() and here.per_sample.equals(there.per_sample)


def test_images_and_page_show_the_joint_confidence(
    bundle: ModelBundle, calibration: Calibration, home: Workspace
) -> None:
    whole = dataclasses.replace(bundle, calibration=calibration)
    for model, is_known in ((whole, True), (bundle, False)):
        result = evaluate(model, home.shard_set("freihand_synth/evaluation"))
        hands = shown_hands(model, result, each=1, tile_px=48)
        assert all(hand.p_within_10mm.shape == (21,) for hand in hands)
        assert evaluation_sheet(result, hands, tile_px=48)
        text = page("model", model.digest, [Measurement(result, hands)], model.model.mano.faces.numpy())
        for reported in ("Reliability of confidence", "a constant per joint", "expected error"):
            assert (reported in text) == is_known
        assert ("not calibrated" in text) != is_known
        if is_known:
            table = result.per_sample[result.per_sample.predictor == result.estimator].set_index("key")
            assert hands[0].p_within_10mm.mean() == pytest.approx(table.mean_p_within_10mm[hands[0].key])


def test_a_bundle_keeps_its_calibration(bundle: ModelBundle, calibration: Calibration, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    plain = ModelBundle.save(folder, bundle.model, bundle.recipe, {"steps": 3})
    before = (folder / "bundle.json").read_bytes()
    whole = plain.calibrate(folder, calibration)
    loaded = ModelBundle.load(folder)
    assert loaded.calibration == calibration and loaded.metadata == {"steps": 3}
    assert loaded.digest == whole.digest != plain.digest, "other answers"
    assert (folder / "bundle.json").read_bytes() != before, "so that a flow measures it again"
    assert loaded.estimator == calibration.estimator.sampler and plain.estimator == bundle.recipe.sampler
    assert estimator_of(bundle.recipe.sampler.model_copy(update={"iterations": 2}), calibration).iterations == 2
    other = bundle.recipe.model_copy(update={"sampler": bundle.recipe.sampler.model_copy(update={"iterations": 2})})
    ModelBundle.with_inference_settings(folder, tmp_path / "other", other)
    assert ModelBundle.load(tmp_path / "other").calibration is None
    (folder / "calibration.json").write_text("{}")
    with pytest.raises(BundleError, match=r"calibration\.json: its sha256 is not the recorded one"):
        ModelBundle.load(folder)
    (folder / "calibration.json").unlink()
    with pytest.raises(BundleError, match=r"no calibration\.json"):
        ModelBundle.load(folder)


def test_a_calibration_names_what_it_lacks(calibration: Calibration) -> None:
    values = json.loads(calibration.model_dump_json())
    assert Calibration.model_validate(values) == calibration
    with pytest.raises(ValueError, match="joints"):
        Calibration.model_validate({name: value for name, value in values.items() if name != "joints"})
    short = values["joints"] | {"within_by_joint": [0.5] * 20}
    with pytest.raises(ValueError, match="at least 21"):
        JointCalibration.model_validate(short)


def test_a_training_calibrates_its_model_once(
    bundle: ModelBundle, home: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "export"
    ModelBundle.save(folder, bundle.model, bundle.recipe, {})
    calibrate_export(folder, bundle.recipe, home)
    made = (folder / "calibration.json").stat()
    assert ModelBundle.load(folder).calibration is not None
    calibrate_export(folder, bundle.recipe, home)
    assert (folder / "calibration.json").stat() == made
    few = bundle.recipe.model_copy(update={"data": bundle.recipe.data.model_copy(update={"held_out": 0.0})})
    ModelBundle.save(tmp_path / "few", bundle.model, few, {})
    told = warnings_of("maskhand.steps.exported", monkeypatch)
    calibrate_export(tmp_path / "few", few, home)
    assert len(told) == 1 and "fewer than 20 hands with 3D joints were held out (data.held_out=0)" in told[0]
    assert ModelBundle.load(tmp_path / "few").calibration is None


def test_the_gate_and_the_tracker_look_at_the_row_that_counts(
    bundle: ModelBundle, calibration: Calibration, home: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    ModelBundle.save(folder, bundle.model, bundle.recipe, {}).calibrate(folder, with_choice(calibration, 0))
    here = Workspace(tmp_path, home.shards_uri)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    receipt = evaluate_step.evaluate(here, str(folder), ["freihand_synth/evaluation"], silent)
    (result,) = EvaluationSummary.read(receipt.uri).sets.values()
    own = next(row for row in result.rows if row.name == "expectation, T=1").metrics
    calls: list[Score] = []
    version = ModelVersion("maskhand", 1)
    monkeypatch.setattr(Tracker, "register_model", lambda self, _, __, score, ___: calls.append(score) or version)
    monkeypatch.setattr(Tracker, "promote", lambda self, version: Promotion(version, ("challenger",), "why"))
    with monkeypatch.context() as patch:
        patch.setattr(registration, "track", lambda *_: "run")
        registration.register(here, str(folder), receipt.uri, "run")
    assert calls[0].error_mm == own["pa_mpjpe_mm"]
    registration.track(here, receipt)
    (run,) = Tracker.of(here).history("evaluation")
    for key in ("expectation_T1", "product"):
        assert run.metrics[f"eval/freihand_synth/evaluation/{key}/pa_mpjpe_mm"] == own["pa_mpjpe_mm"]
    assert {name.split("/")[3] for name in run.metrics} == {
        "drawn_codes_T1", "drawn_codes_T3", "drawn_codes_T5", "expectation_T1", "mean_pose", "product",
    }  # fmt: skip
