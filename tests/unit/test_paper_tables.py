"""The paper's tables as data, what a machine lacks for them, and the table that people read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from maskhand.config import recipe_names
from maskhand.evaluation.keypoints_2d import GRID, hidden_cells
from maskhand.steps import tables
from maskhand.tables.comparison import Comparison, best_later, lines_of
from maskhand.tables.rows import PaperRow, TableError, catalogue, later_results, paper_table, row_overrides, row_recipe
from maskhand.training.checkpoint import run_identity
from maskhand.workspace import Workspace

ROWS = [(number, row) for number, table in catalogue().tables.items() for row in table.rows]


def ids(value: object) -> str:
    return value.id if isinstance(value, PaperRow) else str(value)


def test_all_seventeen_tables_and_every_recipe_of_the_paper_are_there() -> None:
    assert list(catalogue().tables) == list(range(1, 18))
    used = {row.recipe for _, row in ROWS}
    assert {name for name in recipe_names() if name.startswith("paper/e")} <= used
    assert {row.id.split()[0] for _, row in ROWS} == {f"E{k:02d}" for k in range(1, 38)}
    with pytest.raises(TableError, match="1 to 17"):
        paper_table(18)


@pytest.mark.parametrize(("number", "row"), ROWS, ids=ids)
def test_a_row_has_a_value_per_metric_and_loads_at_both_sizes(number: int, row: PaperRow) -> None:
    metrics = paper_table(number).metrics_of(row)
    for benchmark, values in row.paper.items():
        assert len(values) == len(metrics)
        assert benchmark in catalogue().benchmarks or row.measure in ("seconds", "generation", "pca")
    full, small = (row_recipe(row, row_overrides(row, shrink)) for shrink in (False, True))
    data = "asl_alphabet_synth/letters_train" if row.measure == "text" else "freihand_synth/training"
    assert small.model.dim < full.model.dim and set(small.data.train) == {data}
    if row.measure == "text":
        for recipe in (full, small):  # 5 % of the codes
            assert recipe.sampler.top_k == round(0.05 * recipe.tokenizer.codebook_size)
    for keep in ("feature_scales", "pose2d_tokens", "gapr_blocks", "synth_layers"):
        assert getattr(small.model, keep) == getattr(full.model, keep)
    assert small.tokenizer.num_tokens == full.tokenizer.num_tokens
    assert small.tokenizer.codebook_size * 8 == full.tokenizer.codebook_size
    assert small.training.masking == full.training.masking and small.training.losses == full.training.losses


def test_rows_that_train_the_same_thing_share_one_run() -> None:
    def run(row_id: str, table: int) -> str:
        row = paper_table(table).row(row_id)
        recipe = row_recipe(row, row_overrides(row, shrink=True, budget_steps=7))
        assert recipe.training.optim.steps == recipe.tokenizer_training.optim.steps == 7
        return f"{recipe.name} {run_identity('transformer', recipe, {})}"

    same = [run("E01", 1), run("E09 T=1", 5), run("E10 T=5", 5), run("E19", 12), run("E22", 13), run("E34 4", 17)]
    assert len(set(same)) == 1
    assert run("E16", 12) == run("E29", 16) != same[0]


def test_a_bare_machine_is_told_each_thing_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASKHAND_MANO_DIR", raising=False)
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    (plan,) = tables.plans(home, 2, False, None, [])
    assert plan.runs == []
    said = " ".join(plan.missing["freihand"])
    for words in ("freihand/training", "freihand/evaluation", "maskhand shard freihand --split evaluation",
                  "ViTPose-H checkpoint", "MASKHAND_MANO_DIR", "4 GPUs"):  # fmt: skip
        assert words in said, words
    (small,) = tables.plans(home, 2, True, None, [])
    assert all("freihand_synth" in sentence for sentence in small.missing["freihand"])
    speed = {plan.row.id: plan.runs for plan in tables.plans(home, 5, False, None, [])}
    assert speed["E11 T=1"] == ["time"] and speed["E10 T=1"] == []
    text, with_pose = tables.plans(home, 6, False, None, [])
    assert text.missing == with_pose.missing
    said = " ".join(text.missing["asl"])
    for words in ("CLIP text encoder", "asl_alphabet/letters_train", "--split letters_test", "dexycb/s0_train",
                  "MASKHAND_MANO_DIR"):  # fmt: skip
        assert words in said, words
    assert "ViTPose" not in said


def test_the_table_holds_paper_ours_gap_protocol_and_later_work() -> None:
    table = paper_table(2)
    (row,) = table.rows
    lines = lines_of(table, row, {"freihand": {"pa_mpjpe_mm": 6.0, "pa_f5": 0.75}}, {}, ["a remark"])
    by_metric = {line.metric: line for line in lines}
    assert by_metric["pa_mpjpe_mm"].gap == pytest.approx(0.5) and by_metric["pa_f5"].gap == pytest.approx(-0.051)
    assert by_metric["pa_mpvpe_mm"].ours is None and by_metric["pa_mpvpe_mm"].gap is None
    assert by_metric["pa_mpjpe_mm"].later[0] == ("HandOS (CVPR 2025, arXiv 2412.01537, quoted)", 5.0)
    assert "a remark" in by_metric["pa_f5"].protocol
    absent = lines_of(table, row, {}, {"freihand": ["shard set x"]})
    comparison = Comparison(2, table.title, "somewhere.", tuple([*lines, *absent]))
    text = comparison.to_markdown()
    assert "| E02: MaskHand | FreiHAND | pa_mpjpe_mm | 5.50 | 6.00 | +0.500 | 5.00 HandOS" in text
    assert "missing: shard set x" in text and text.count("a remark") == 1
    values = json.loads(comparison.to_json())
    assert values["lines"][0]["gap"] == pytest.approx(0.5) and values["lines"][2]["higher_is_better"] is True


def test_the_best_later_result_is_the_least_error_or_the_largest_share() -> None:
    assert best_later("dexycb", "pa_mpjpe_mm", None)[0][1] == 4.08
    assert best_later("hint_visor", "pck_010", "vis") == (("Hamba (NeurIPS 2024)", 89.6),)
    assert best_later("hint_visor", "pck_005", "vis") == ()
    assert set(later_results()) <= set(catalogue().benchmarks)


@pytest.mark.parametrize("share", [0.8, 0.9])
def test_hidden_cells_are_so_many_seeded_and_differ_by_sample(share: float) -> None:
    cells = hidden_cells(share, 3, 0)
    assert cells.sum() == round(share * GRID * GRID)
    assert np.array_equal(cells, hidden_cells(share, 3, 0))
    assert not np.array_equal(cells, hidden_cells(share, 4, 0)) and not np.array_equal(cells, hidden_cells(share, 3, 1))


def test_random_pca_hands_repeat_and_differ_from_each_other() -> None:
    from maskhand.evaluation.generated import pca_hands
    from maskhand.hand.model_file import default_hand_path, load_hand_model

    hand = load_hand_model(default_hand_path("right"))
    first = pca_hands(hand, 4, seed=0)
    assert first == pca_hands(hand, 4, seed=0) != pca_hands(hand, 4, seed=1)
    assert first["apd_mm"] > 1 and 0 <= first["self_intersection_percent"] < 50


def test_reconstruction_by_a_tokenizer_that_loses_nothing_is_exact() -> None:
    from maskhand.evaluation.reconstruction import reconstruction_errors
    from maskhand.hand.layer import ManoLayer
    from maskhand.loading.poses import PosePool

    class Identity:
        def encode(self, rotmats: torch.Tensor) -> torch.Tensor:
            return rotmats

        decode_codes = encode

    class Upright(Identity):
        def decode_codes(self, rotmats: torch.Tensor) -> torch.Tensor:
            return torch.eye(3).expand_as(rotmats)

    rng = np.random.default_rng(0)
    poses = PosePool(rng.normal(0, 0.2, (5, 16, 3)).astype(np.float32), rng.normal(0, 1, (5, 10)).astype(np.float32))
    mano = ManoLayer.from_default()
    exact = reconstruction_errors(Identity(), mano, poses)  # type: ignore[arg-type]
    assert exact["mpjpe_mm"] == 0 and exact["pa_mpvpe_mm"] < 1e-3 and exact["pa_f5"] == 1
    assert reconstruction_errors(Upright(), mano, poses)["pa_mpjpe_mm"] > 1  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="annotate mano"):
        reconstruction_errors(Identity(), mano, PosePool(poses.pose_aa[:0], poses.betas[:0]))  # type: ignore[arg-type]
