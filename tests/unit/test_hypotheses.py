"""Hands drawn for one image: the table's numbers against brute force, and what each way of choosing means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hand_sets import make_samples, write_set
from model_parts import small_model, small_recipe

from maskhand.annotate.mano_targets import annotate_mano
from maskhand.evaluation.runner import MODEL_FINGERTIPS
from maskhand.evaluation.truth import ground_truth
from maskhand.loading.loader import eval_range
from maskhand.metrics.samples import sample_errors
from maskhand.models.sampling import sample
from maskhand.paper.measures import hypotheses
from maskhand.paper.measures.hypotheses import DrawnErrors, hypothesis_errors, within_images
from maskhand.paper.tables import HYPOTHESES, paper_table


def test_each_way_of_choosing_in_closed_form() -> None:
    errors = DrawnErrors(
        each=np.array([[4.0, 2.0, 9.0], [1.0, 5.0, 6.0]]),
        mean=np.array([3.0, 2.0]),
        score=np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]),
        log_probability=np.array([[-3.0, -2.0, -1.0], [-2.0, -1.0, -3.0]]),
    )
    assert errors.summary() == {
        "pa_mpjpe_mm": 4.5,
        "best_pa_mpjpe_mm": 1.5,
        "by_score_pa_mpjpe_mm": 2.5,
        "by_log_probability_pa_mpjpe_mm": 7.0,
        "mean_pa_mpjpe_mm": 2.5,
        "score_rank_correlation": pytest.approx((0.5 + 1.0) / 2),
        "log_probability_rank_correlation": pytest.approx((-0.5 + 0.5) / 2),
    }
    alike = np.ones((1, 3))
    assert math.isnan(within_images(alike, errors.each[:1])) and math.isnan(within_images(errors.score[:1], alike))


def test_the_measured_hands_are_those_that_the_sampler_draws(tmp_path, monkeypatch) -> None:
    uri = str(tmp_path / "freihand_synth" / "evaluation")
    write_set(uri, make_samples(5, sides=("right", "left")))
    annotate_mano(uri)
    recipe = small_recipe()
    keypoints = recipe.data.keypoints.model_copy(update={"eval_source": "annotated"})
    evaluate = recipe.evaluate.model_copy(update={"batch": 2})
    recipe = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"keypoints": keypoints}), "evaluate": evaluate}
    )
    model, drawn = small_model(recipe), []
    torch.nn.init.normal_(model.code_classifier.linear.weight, std=1.0)

    def remembered(*args):
        drawn.append(sample(*args))
        return drawn[-1]

    monkeypatch.setattr(hypotheses, "sample", remembered)
    monkeypatch.setattr(hypotheses, "COUNTS", (1, 6))
    values = hypothesis_errors(model, recipe, uri, MODEL_FINGERTIPS)
    assert values == hypothesis_errors(model, recipe, uri, MODEL_FINGERTIPS), "the same seed draws the same hands"
    assert set(values) == {"N1/pa_mpjpe_mm", *(f"N6/{name}" for name in DrawnErrors(*[np.zeros((1, 2))] * 4).summary())}

    best, first, likeliest, middle = [], [], [], []
    for rows, hands in zip(eval_range(recipe, uri, 0, 5, 2), drawn[1:6:2], strict=True):
        truth = ground_truth(rows.hands, rows.samples, model.mano)
        for k in range(len(rows.samples)):
            own = hands[slice(6 * k, 6 * k + 6)]
            joints = own.joints_m - own.joints_m[:, :1]
            upright = torch.stack([j @ r[0] for j, r in zip(joints, own.rotmats, strict=True)])

            def error_mm(guess: torch.Tensor, k: int = k, truth=truth) -> float:
                mesh = truth.vertices_m[k : k + 1]
                return sample_errors(guess[None], truth.joints_m[k : k + 1], mesh, mesh).summary()["pa_mpjpe_mm"]

            errors = [error_mm(hand) for hand in joints]
            best.append(min(errors))
            first.append(errors[0])
            likeliest.append(errors[int(own.tokens.confidence.log().mean(1).argmax())])
            middle.append(error_mm(upright.mean(0)))
    ways = ("best", "by_score", "by_log_probability", "mean")
    expected = {
        f"N6/{way}_pa_mpjpe_mm": np.mean(e) for way, e in zip(ways, (best, first, likeliest, middle), strict=True)
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_the_table_asks_for_what_is_measured() -> None:
    table = paper_table(HYPOTHESES)
    several = DrawnErrors(*[np.zeros((1, 2))] * 4).summary()
    known = {f"N{count}/{name}" for count in hypotheses.COUNTS for name in (several if count > 1 else ["pa_mpjpe_mm"])}
    assert set(table.metrics) <= known
    assert all(row.measure == "hypotheses" and row.trains for row in table.rows)
