"""The evaluation runner with predictors whose answers are known, and its report."""

from __future__ import annotations

import dataclasses
import html
import json
import math

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from maskhand.annotate.mano_targets import annotate_mano
from maskhand.batch import HandBatch, HandPrediction, PoseTokens
from maskhand.config import SamplerConfig
from maskhand.evaluation import runner, worker
from maskhand.evaluation.mean_pose import MeanPose, mean_pose_of_sets, nearest_rotation
from maskhand.evaluation.page.build import Measurement, page
from maskhand.evaluation.report import evaluation_sheet, shown_hands, write_report
from maskhand.evaluation.runner import EvaluationError, evaluate
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.models.build import build_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import load_recipe, override_inference
from maskhand.shards.layout import ShardError
from support.hand_sets import make_samples, write_set
from support.warned import warnings_of

COUNT = 11
FACES = np.zeros((1538, 3), np.int64)
RECIPE = load_recipe(
    "tiny",
    [
        "data.keypoints.eval_source=annotated",
        "data.crop_px=64",
        "model.backbone.kwargs={embed_dim: 48, depth: 1, num_heads: 3}",
        "evaluate.batch=4",
    ],
)


def asked(iterations: int) -> SamplerConfig:
    return RECIPE.sampler.model_copy(update={"iterations": iterations})


@pytest.fixture(scope="module")
def mano() -> ManoLayer:
    return ManoLayer.from_default()


@pytest.fixture(scope="module")
def set_uri(tmp_path_factory) -> str:
    """Eleven hands, left and right, in shards of four."""
    uri = str(tmp_path_factory.mktemp("shards") / "freihand_synth" / "evaluation")
    write_set(uri, make_samples(COUNT, sides=("right", "left")))
    annotate_mano(uri)
    return uri


class Oracle:
    """Stands in for a model: answers with the MANO targets of the batch, as the test changes them."""

    def __init__(self, monkeypatch, mano: ManoLayer) -> None:
        self.mano, self.encoded, self.decoded = mano, [], []
        self.answer = lambda prediction, hands: prediction
        self.hands: HandBatch | None = None
        real = worker.eval_range

        def remembered(*args, **kwargs):
            for rows in real(*args, **kwargs):
                self.hands = rows.hands
                yield rows

        monkeypatch.setattr(worker, "eval_range", remembered)
        monkeypatch.setattr(worker, "sample", self.sample)

    def parameters(self):
        yield torch.zeros(1)

    def condition(self, batch):
        return batch.image

    def encode(self, image, keypoints_2d):
        self.encoded.append(len(image))
        return "context"

    def sample(self, model, context, sampler, generator):
        assert context == "context"
        self.decoded.append(sampler.iterations)
        mesh = self.mano(self.hands.rotmats, self.hands.betas)
        rows = len(mesh.vertices_m)
        prediction = HandPrediction(
            rotmats=self.hands.rotmats,
            betas=self.hands.betas,
            camera=torch.ones(rows, 3),
            vertices_m=mesh.vertices_m,
            joints_m=mesh.joints_m,
            joints_2d=torch.zeros(rows, 21, 2),
            tokens=PoseTokens(torch.zeros(rows, 16, dtype=torch.int64), torch.ones(rows, 16)),
            token_confidence_of_joints=torch.ones(rows, 16),
            log_probability=-self.hands.index.float(),
            score=torch.zeros(rows),
        )
        return self.answer(prediction, self.hands)

    def bundle(self) -> ModelBundle:
        return ModelBundle(self, RECIPE, {}, "hand", "oracle")


@pytest.fixture
def oracle(monkeypatch, mano) -> Oracle:
    return Oracle(monkeypatch, mano)


def test_a_perfect_model_has_no_error_on_either_side(oracle, set_uri):
    result = evaluate(oracle.bundle(), set_uri)
    assert [row.name for row in result.rows] == [
        "drawn codes, T=1", "drawn codes, T=3", "drawn codes, T=5 (4 passes)", "expectation, T=5 (4 passes)",
    ]  # fmt: skip
    for row in result.rows:
        for name in ("mpjpe_mm", "pa_mpjpe_mm", "mpvpe_mm", "pa_mpvpe_mm"):
            assert row.metrics[name] < 1e-3
        assert row.metrics["f5"] == row.metrics["pa_f15"] == 1.0
        assert row.metrics["absolute_mpjpe_mm"] < 0.01 and row.metrics["epe_px"] < 0.01 and row.metrics["pck_005"] == 1
        assert row.failed == 0
    assert result.estimator_row.key == "expectation_T5" and result.baseline is None
    assert set(result.per_sample.side) == {"left", "right"}


def test_the_networks_own_camera_is_measured_beside_the_keypoints(oracle, set_uri):
    """A camera that sees a hand elsewhere and too small; the 2D pose puts it where it is."""

    def seen_too_small(prediction, hands):
        camera = torch.stack([torch.full((len(hands.index),), 9.0), *torch.zeros(2, len(hands.index))], dim=1)
        return dataclasses.replace(prediction, camera=camera)

    oracle.answer = seen_too_small
    result = evaluate(oracle.bundle(), set_uri, samplers=[asked(1)])
    metrics, table = result.estimator_row.metrics, result.per_sample
    assert metrics["absolute_mpjpe_mm"] < 0.01 and metrics["model_camera_absolute_mpjpe_mm"] > 20
    assert metrics["epe_px"] < 0.01 and metrics["model_camera_epe_px"] > 3
    assert metrics["pck_005"] == 1 > metrics["model_camera_pck_005"]
    assert table.model_camera_epe_px.mean() == pytest.approx(metrics["model_camera_epe_px"])
    text = html.unescape(page("tiny", "oracle", [Measurement(result, [])], FACES))
    assert "the network's own camera says, expectation, T=1 has absolute MPJPE mm" in text

    none = oracle.bundle().recipe.model_copy(
        update={
            "data": RECIPE.data.model_copy(
                update={"keypoints": RECIPE.data.keypoints.model_copy(update={"eval_source": "none"})}
            )
        }
    )
    metrics = evaluate(oracle.bundle(), set_uri, none, samplers=[asked(1)]).estimator_row.metrics
    for name in ("absolute_mpjpe_mm", "epe_px", "pck_005"):
        assert metrics[name] == metrics[f"model_camera_{name}"] == result.estimator_row.metrics[f"model_camera_{name}"]


def test_images_are_encoded_once_and_every_sample_counts_once(oracle, set_uri):
    result = evaluate(oracle.bundle(), set_uri, samplers=[asked(1), asked(3), asked(5)])
    assert oracle.encoded == [4, 4, 3]  # padding is not evaluated
    assert oracle.decoded == [1, 3, 5] * 3
    assert result.count == result.with_joints == result.with_mesh == COUNT
    assert result.per_sample.groupby("predictor").key.nunique().tolist() == [COUNT] * 3
    assert len(result.per_sample) == 3 * COUNT


def test_a_sample_seen_twice_is_an_error(oracle, set_uri, monkeypatch):
    remembered = worker.eval_range

    def twice(recipe, uri, start, stop, batch):
        return remembered(recipe, uri, start % 8, start % 8 + batch, batch)

    monkeypatch.setattr(worker, "eval_range", twice)
    with pytest.raises(EvaluationError, match="not each of 11 exactly once"):
        evaluate(oracle.bundle(), set_uri)


def plain_pa_mm(points: np.ndarray, target: np.ndarray) -> float:
    a, b = target - target.mean(0), points - points.mean(0)
    rotation, scale = orthogonal_procrustes(b, a)
    return 1e3 * float(np.linalg.norm(b @ rotation * scale / (b**2).sum() - a, axis=1).mean())


def test_the_mean_pose_stands_in_the_same_table(oracle, set_uri, mano):
    mean = mean_pose_of_sets({set_uri: 1.0})
    assert mean.count == COUNT
    result = evaluate(oracle.bundle(), set_uri, baseline=mean)
    mesh = mano(torch.tensor(mean.rotmats).float()[None], torch.tensor(mean.betas).float()[None])
    samples = make_samples(COUNT, sides=("right", "left"))
    # Alignment may reflect, so left hands need no mirroring here.
    joints = [plain_pa_mm(mesh.joints_m[0].double().numpy(), s.joints_cam_m.astype(np.float64)) for s in samples]
    vertices = [plain_pa_mm(mesh.vertices_m[0].double().numpy(), s.vertices_cam_m.astype(np.float64)) for s in samples]
    assert result.baseline.metrics["pa_mpjpe_mm"] == pytest.approx(np.mean(joints), abs=1e-3)
    assert result.baseline.metrics["pa_mpvpe_mm"] == pytest.approx(np.mean(vertices), abs=1e-3)
    table = result.per_sample[result.per_sample.predictor == "mean pose"].set_index("key").pa_mpjpe_mm
    for sample, expected in zip(samples, joints, strict=True):
        assert table[sample.key] == pytest.approx(expected, abs=1e-3)
    assert result.gain_over_baseline() == pytest.approx(1.0, abs=1e-3)


def test_the_global_orientation_of_the_mean_pose_does_not_matter(oracle, set_uri):
    mean = mean_pose_of_sets({set_uri: 1.0})
    turned = dataclasses.replace(mean, rotmats=np.concatenate([np.eye(3)[None], mean.rotmats[1:]]))
    here, there = (evaluate(oracle.bundle(), set_uri, baseline=m).baseline.metrics for m in (mean, turned))
    assert here["pa_mpvpe_mm"] == pytest.approx(there["pa_mpvpe_mm"], abs=1e-4)
    assert here["mpjpe_mm"] != pytest.approx(there["mpjpe_mm"], abs=0.1)


def test_left_hands_score_like_their_mirror_images(oracle, tmp_path):
    mean = MeanPose(np.tile(np.eye(3), (16, 1, 1)), np.zeros(10), 1)
    results = []
    for side in ("right", "left"):
        uri = str(tmp_path / side)
        write_set(uri, make_samples(4, sides=(side,)))
        annotate_mano(uri)
        results.append(evaluate(oracle.bundle(), uri, baseline=mean).baseline.metrics)
    assert results[0] == pytest.approx(results[1], abs=1e-3, nan_ok=True)


def test_failed_predictions_are_counted_and_scored_as_a_point(oracle, set_uri):
    def break_one(prediction, hands):
        vertices = prediction.vertices_m.clone()
        vertices[hands.index == 5, 100] = torch.nan
        return dataclasses.replace(prediction, vertices_m=vertices)

    oracle.answer = break_one
    result = evaluate(oracle.bundle(), set_uri, samplers=[asked(1)])
    assert result.estimator_row.failed == 1
    table = result.per_sample.set_index("index")
    truth = next(s for s in make_samples(COUNT, sides=("right", "left")) if s.key == table.key[5]).joints_cam_m
    spread = 1e3 * np.linalg.norm(truth - truth.mean(0), axis=1).mean()
    assert table.pa_mpjpe_mm[5] == pytest.approx(spread, abs=1e-3)
    assert table.pa_mpjpe_mm.drop(5).max() < 1e-3
    assert "expectation, T=1 1" in result.to_markdown()


def test_without_annotated_vertices_the_mano_target_is_the_truth(oracle, tmp_path):
    samples = [dataclasses.replace(s, vertices_cam_m=None) for s in make_samples(3, sides=("right", "left"))]
    samples.append(dataclasses.replace(samples[0], key="bare", mano=None))
    uri = str(tmp_path / "set")
    write_set(uri, samples)
    annotate_mano(uri)
    result = evaluate(oracle.bundle(), uri, samplers=[asked(1)])
    assert (result.with_joints, result.with_mesh) == (4, 3)
    assert result.estimator_row.metrics["pa_mpvpe_mm"] < 1e-3
    assert result.per_sample.set_index("key").mpvpe_mm.isna().to_dict()["bare"]


def test_an_annotated_wrist_alone_is_no_perfect_score(oracle, tmp_path):
    """HO-3D's evaluation split without the lists that were released later."""
    wrist = np.arange(21) == 0
    changes = {"vertices_cam_m": None, "mano": None, "joints_3d_valid": wrist, "joints_2d_conf": wrist.astype("f4")}
    write_set(str(tmp_path / "set"), [dataclasses.replace(s, **changes) for s in make_samples(3)])
    mean = MeanPose(np.tile(np.eye(3), (16, 1, 1)), np.zeros(10), 1)
    result = evaluate(oracle.bundle(), str(tmp_path / "set"), samplers=[asked(1)], baseline=mean)
    assert (result.with_joints, result.with_mesh) == (0, 0)
    for name in ("mpjpe_mm", "pa_mpjpe_mm", "auc_joints", "pa_auc_joints"):
        assert math.isnan(result.estimator_row.metrics[name])
    assert result.estimator_row.metrics["absolute_mpjpe_mm"] > 0 and np.isfinite(result.estimator_row.metrics["epe_px"])
    assert result.gain_over_baseline() is None and result.gain_sentences() == []


def test_there_is_no_gain_over_a_mean_pose_without_error(oracle, set_uri):
    result = evaluate(oracle.bundle(), set_uri, samplers=[asked(1)])
    perfect = dataclasses.replace(result.estimator_row, name="mean pose", metrics={"pa_mpjpe_mm": 0.0})
    assert dataclasses.replace(result, rows=(result.estimator_row, perfect)).gain_over_baseline() is None


def test_a_set_without_truth_is_refused(oracle, tmp_path):
    bare = [
        dataclasses.replace(
            s, vertices_cam_m=None, mano=None, joints_cam_m=None, joints_3d_valid=None, joints_2d_px=None
        )
        for s in make_samples(2)
    ]
    write_set(str(tmp_path / "set"), bare)
    with pytest.raises(EvaluationError, match="no sample has 3D joints, a mesh or 2D joints"):
        evaluate(oracle.bundle(), str(tmp_path / "set"))


@pytest.mark.parametrize("seen", [False, True])
def test_a_set_without_a_single_keypoint_is_told(oracle, tmp_path, monkeypatch, seen):
    told = warnings_of(runner.__name__, monkeypatch)
    confidence = np.full(21, 1.0 if seen else 0.0, "f4")
    first, *others = make_samples(3)
    write_set(
        str(tmp_path / "set"),
        [dataclasses.replace(first, joints_2d_conf=confidence)]
        + [dataclasses.replace(s, joints_2d_conf=0 * confidence) for s in others],
    )
    annotate_mano(str(tmp_path / "set"))
    result = evaluate(oracle.bundle(), str(tmp_path / "set"), samplers=[asked(1)])
    assert result.facts["without_2d_pose"] == 3 - seen
    assert any("not one of its 3 hands has a 2D keypoint" in warning for warning in told) is not seen


def test_the_data_sets_own_fingertips_are_compared(oracle, set_uri):
    """The oracle's joints are right for smplx's tips; FreiHAND's ring and little tips lie elsewhere on the mesh."""
    here = evaluate(oracle.bundle(), set_uri, samplers=[asked(1)])
    tips = {"right": "freihand", "left": "freihand"}
    there = evaluate(oracle.bundle(), set_uri, samplers=[asked(1)], fingertip_vertices=tips)
    assert here.estimator_row.metrics["mpjpe_mm"] < 1e-3 < 0.05 < there.estimator_row.metrics["mpjpe_mm"]


def test_confidence_is_related_to_error(oracle, set_uri):
    def worse_with_index(prediction, hands):
        generator = torch.Generator().manual_seed(int(hands.index[0]))
        noise = torch.randn(prediction.vertices_m.shape, generator=generator)
        moved = prediction.vertices_m + 2e-3 * (1 + hands.index[:, None, None]) * noise
        joints = prediction.joints_m + 2e-3 * (1 + hands.index[:, None, None]) * noise[:, :21]
        return dataclasses.replace(prediction, vertices_m=moved, joints_m=joints)

    oracle.answer = worse_with_index  # and the oracle's log probability falls with the index
    metrics = evaluate(oracle.bundle(), set_uri, samplers=[asked(1)]).estimator_row.metrics
    assert metrics["log_probability_rank_correlation"] > 0.9


def test_mean_of_rotations_is_found_again():
    center = Rotation.random(16, random_state=0)
    spread = Rotation.from_rotvec(np.random.default_rng(1).normal(0, 0.3, (4000, 16, 3)).reshape(-1, 3)).as_matrix()
    samples = center.as_matrix() @ spread.reshape(4000, 16, 3, 3)
    mean = nearest_rotation(samples.mean(0))
    np.testing.assert_allclose(mean @ mean.transpose(0, 2, 1), np.tile(np.eye(3), (16, 1, 1)), atol=1e-12)
    assert np.rad2deg((center.inv() * Rotation.from_matrix(mean)).magnitude()).max() < 2
    reflected = np.diag([1.0, 1.0, -0.1])
    np.testing.assert_allclose(np.linalg.det(nearest_rotation(reflected)), 1.0)


def test_mean_pose_weighs_sets_as_the_recipe_does(tmp_path):
    uris = []
    for n, count in enumerate((2, 5)):
        uris.append(str(tmp_path / f"set{n}"))
        write_set(uris[-1], make_samples(count, seed=n))
        annotate_mano(uris[-1])
    pairs = [make_samples(count, seed=n) for n, count in enumerate((2, 5))]
    betas = [np.mean([s.mano.betas for s in samples], axis=0) for samples in pairs]
    matrices = [axis_angle_to_matrix(torch.tensor(np.stack([s.mano.pose_aa for s in p]))).mean(0) for p in pairs]
    mean = mean_pose_of_sets({uris[0]: 3.0, uris[1]: 1.0})
    np.testing.assert_allclose(mean.betas, 0.75 * betas[0] + 0.25 * betas[1], atol=1e-6)
    expected = nearest_rotation((0.75 * matrices[0] + 0.25 * matrices[1]).double().numpy())
    np.testing.assert_allclose(mean.rotmats, expected, atol=1e-5)
    with pytest.raises(ShardError):
        mean_pose_of_sets({str(tmp_path / "nowhere"): 1.0})


def test_report_files(oracle, set_uri, tmp_path):
    result = evaluate(oracle.bundle(), set_uri, baseline=mean_pose_of_sets({set_uri: 1.0}))
    uris = write_report(result, str(tmp_path / "report"))
    assert list(uris) == ["table.md", "samples.parquet", "joints.npz", "result.json"]
    table = (tmp_path / "report" / "table.md").read_text()
    assert table.splitlines()[0].startswith("| predictor | PA-MPJPE mm | PA-MPVPE mm | F@5 |")
    assert (
        "| drawn codes, T=5 (4 passes) | 0.00 |" in table
        and "| mean pose | " in table
        and "100.0 % below the mean pose's" in table
    )
    values = json.loads((tmp_path / "report" / "result.json").read_text())
    assert [row["key"] for row in values["rows"]] == [
        "drawn_codes_T1", "drawn_codes_T3", "drawn_codes_T5", "expectation_T5", "mean_pose",
    ]  # fmt: skip
    assert values["product"] == "expectation, T=5 (4 passes)" in table
    assert values["rows"][0]["metrics"]["pa_f5"] == 1.0 and values["count"] == COUNT
    pd.testing.assert_frame_equal(pd.read_parquet(uris["samples.parquet"]), result.per_sample)


def test_missing_numbers_are_dashes_and_nulls(oracle, tmp_path):
    samples = [dataclasses.replace(s, vertices_cam_m=None, mano=None) for s in make_samples(2)]
    write_set(str(tmp_path / "set"), samples)
    mean = MeanPose(np.tile(np.eye(3), (16, 1, 1)), np.zeros(10), 1)
    result = evaluate(oracle.bundle(), str(tmp_path / "set"), samplers=[asked(1)], baseline=mean)
    assert math.isnan(result.estimator_row.metrics["pa_mpvpe_mm"])
    assert result.gain_over_baseline("pa_mpvpe_mm") is None and "NaN" not in result.summary().to_json().decode()
    assert "| – |" in result.to_markdown()
    assert json.loads(result.summary().to_json())["rows"][0]["metrics"]["pa_f5"] is None


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory, mano) -> ModelBundle:
    """A real model, untrained."""
    torch.manual_seed(0)
    model = build_model(RECIPE, VQMano(RECIPE.tokenizer), mano)
    return ModelBundle.save(tmp_path_factory.mktemp("model") / "bundle", model.eval(), RECIPE, {})


def test_other_inference_settings_reach_the_workers(small_bundle, set_uri, tmp_path):
    ModelBundle.save(tmp_path / "export", small_bundle.model, RECIPE, {})
    bundle = ModelBundle.load(tmp_path / "export")
    asked = override_inference(RECIPE, ["sampler.decode=codes", "evaluate.iterations=[2]"])
    here = evaluate(bundle.with_settings(asked), set_uri)
    there = evaluate(bundle.with_settings(asked), set_uri, model_folder=str(tmp_path / "export"))
    assert [row.key for row in here.rows] == [row.key for row in there.rows] and here.model_digest != bundle.digest
    assert here.estimator_row.metrics == there.estimator_row.metrics


def test_a_real_model_is_evaluated_deterministically_and_drawn(small_bundle, set_uri):
    result = evaluate(small_bundle, set_uri, baseline=mean_pose_of_sets({set_uri: 1.0}))
    again = evaluate(small_bundle, set_uri, baseline=mean_pose_of_sets({set_uri: 1.0}))
    assert result.summary().to_json() == again.summary().to_json()
    other_batches = evaluate(small_bundle, set_uri, batch=3)
    error_mm, other_mm = (one.estimator_row.metrics["pa_mpjpe_mm"] for one in (result, other_batches))
    assert other_mm == pytest.approx(error_mm, abs=0.05)
    assert result.gain_over_baseline() < 0 and "% above the mean pose's" in result.to_markdown()
    sheet = evaluation_sheet(result, shown_hands(small_bundle, result, each=2, tile_px=64), tile_px=64)
    image = cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[0] > 6 * 64 and image.shape[1] > 5 * 64
    # The ground truth column shows a mesh: it differs from the image's own column.
    gap = 6
    columns = [image[:, gap + c * (64 + gap) : gap + c * (64 + gap) + 64] for c in range(5)]
    assert np.abs(columns[0].astype(int) - columns[3]).mean() > 3
