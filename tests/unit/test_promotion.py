"""The paired gate and the drift flags, on differences that are known."""

from __future__ import annotations

import math
from pathlib import Path

import mlflow
import numpy as np
import pytest

from maskhand.promotion import NOT_WORSE, PairedDifference, Score, judge_succession, paired_difference
from maskhand.steps import reevaluate
from maskhand.steps.reevaluate import VersionResult, drifts
from maskhand.tracking import Tracker
from maskhand.workspace import Workspace

GOOD = Score(6.0, 10.0, "a")


def errors(values: np.ndarray) -> dict[str, float]:
    return {f"hand-{k}": float(value) for k, value in enumerate(values)}


def pair(benchmark: str, low: float, high: float, champion: float = 10.0) -> PairedDifference:
    return PairedDifference(benchmark, 100, champion, champion + (low + high) / 2, low, high)


def test_a_constant_difference_has_no_spread() -> None:
    champion = np.random.default_rng(0).uniform(5, 15, 64).round(2)
    found = paired_difference("x", errors(champion), errors(champion - 0.5))
    assert found.low_mm == pytest.approx(-0.5) and found.high_mm == pytest.approx(-0.5) and found.is_better
    assert found.challenger_mm - found.champion_mm == pytest.approx(-0.5)
    assert not paired_difference("x", errors(champion), errors(champion)).is_better


def test_the_interval_of_normal_differences_is_the_textbooks() -> None:
    rng = np.random.default_rng(1)
    champion, change = rng.uniform(5, 15, 2500), rng.normal(0.3, 2.0, 2500)
    found = paired_difference("x", errors(champion), errors(champion + change))
    half = 1.96 * change.std(ddof=1) / math.sqrt(2500)
    assert found.low_mm == pytest.approx(change.mean() - half, abs=0.01)
    assert found.high_mm == pytest.approx(change.mean() + half, abs=0.01)


def test_pairs_are_joined_by_sample_whatever_their_order_and_repeat() -> None:
    rng = np.random.default_rng(2)
    champion, challenger = errors(rng.uniform(5, 15, 50)), errors(rng.uniform(5, 15, 50))
    shuffled = dict(sorted(challenger.items(), key=lambda item: item[1]))
    assert paired_difference("x", champion, challenger) == paired_difference("x", champion, shuffled)
    with pytest.raises(ValueError, match="x: 1 samples"):
        paired_difference("x", champion, challenger | {"another": 1.0})


def test_what_neither_could_be_measured_on_takes_no_part_but_one_sided_gaps_never_win() -> None:
    champion = {"a": 9.0, "b": 8.0, "c": math.nan}
    assert paired_difference("x", champion, {"a": 8.0, "b": 7.0, "c": math.nan}).count == 2
    broken = paired_difference("x", champion, {"a": 8.0, "b": math.nan, "c": math.nan})
    assert broken.may_be_worse and not broken.is_better


@pytest.mark.parametrize(
    ("candidate", "pairs", "wins", "because"),
    [
        (GOOD, [pair("a", -0.4, -0.1)], True, "surely better than v1 on a"),
        (GOOD, [pair("a", -0.4, -0.1), pair("b", -0.1, 0.19)], True, "nowhere worse"),
        (GOOD, [pair("a", -0.4, -0.1), pair("b", -0.1, 0.21)], False, "on b it may be more than 2 % worse"),
        (GOOD, [pair("a", -0.4, 0.0)], False, "not surely better"),
        (GOOD, [], False, "no benchmark was measured for both"),
        (Score(7.5, 10.0, "a"), [pair("a", -4, -3)], False, "30 % below it are required"),
        (Score(math.nan, 10.0, "a"), [pair("a", -4, -3)], False, "not a number"),
    ],
)
def test_the_succession(candidate: Score, pairs: list[PairedDifference], wins: bool, because: str) -> None:
    won, reason = judge_succession(candidate, pairs, "v1")
    assert won is wins and because in reason, reason


def test_the_margin_is_relative_to_the_champions_error() -> None:
    assert pair("a", -1, NOT_WORSE * 5 + 1e-6, champion=5.0).may_be_worse
    assert not pair("a", -1, NOT_WORSE * 5, champion=5.0).may_be_worse


def test_drift_is_flagged_with_its_possible_reason() -> None:
    before = {"eval/x/pa_mpjpe_mm": 10.0, "eval/x/pa_mpvpe_mm": 10.0, "eval/x/f5": 0.5, "eval/gone/pa_mpjpe_mm": 1.0}
    now = {"eval/x/pa_mpjpe_mm": 10.06, "eval/x/pa_mpvpe_mm": 9.96, "eval/x/f5": 0.9, "eval/y/pa_mpjpe_mm": 3.0}
    (flag,) = drifts(before, now, [], changed_code=False)
    assert flag == "x PA-MPJPE mm 10.000 -> 10.060 (same data and code: libraries or machine)."
    assert "the data changed and the code changed" in drifts(before, now, ["x"], changed_code=True)[0]
    assert drifts(before, before, [], changed_code=True) == []


def test_who_could_not_be_measured_everywhere_wins_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    client = mlflow.MlflowClient(tracker.uri, tracker.uri)
    client.create_registered_model("maskhand")
    models = []
    for _ in range(3):
        made = client.create_model_version("maskhand", source=tmp_path.as_uri())
        models.append(f"models:/maskhand/{made.version}")
    monkeypatch.setattr(Tracker, "of", lambda _: tracker)
    monkeypatch.setattr(reevaluate, "benchmarks", lambda _: {"x": "x/evaluation", "y": "y/evaluation"})

    def measured(name: str, error_mm: float) -> VersionResult:
        own, mean = {"pa_mpjpe_mm": error_mm}, {"pa_mpjpe_mm": 20.0}
        return VersionResult(name, f"{name}/evaluation", "d", own, mean, None, "T=5")

    found = {models[0]: [measured("x", 9.0), measured("y", 9.0)], models[1]: [measured("x", 5.0)], models[2]: []}
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    decisions = dict(reevaluate.decide(home, None, found, dict.fromkeys(models, "x/evaluation")))
    assert decisions[models[0]].startswith("Becomes champion: PA-MPJPE 9.00 mm")
    assert decisions[models[1]] == "Stays challenger: it could not be measured on y."
    assert decisions[models[2]] == "Stays challenger: it could not be measured on x, y."
    assert tracker.resolve("models:/maskhand@champion").uri == models[0]
    assert client.get_model_version("maskhand", "2").description == decisions[models[1]]
