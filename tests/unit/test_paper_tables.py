"""The paper's tables as data, what a machine lacks for them, and the table that people read."""

from __future__ import annotations

import json
import pickle
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from maskhand.hand.model_file import HandModelError, default_hand_path, load_hand_model
from maskhand.paper import plan as planning
from maskhand.paper import results, run
from maskhand.paper.comparison import Comparison, Line, best_later, lines_of
from maskhand.paper.measures.generation import pca_hands, pca_poses
from maskhand.paper.orderings import Ordering, orderings_of, sentences
from maskhand.paper.requirements import missing
from maskhand.paper.tables import (
    ADDITIONS,
    CHOICES,
    CLAIMS,
    OUR_TABLES,
    PaperRow,
    TableError,
    TableName,
    later_results,
    paper_table,
    paper_tables,
    row_overrides,
    row_recipe,
    table_names,
)
from maskhand.progress import silent
from maskhand.recipe_files import recipe_names
from maskhand.scoring.benchmarks import benchmark_sets
from maskhand.training.run_identity import run_identity
from maskhand.workspace import Workspace
from support.hand_models import random_fields, random_model
from support.hand_sets import make_samples, write_set

ROWS = [(number, row) for number, table in paper_tables().items() for row in table.rows]


def ids(value: object) -> str:
    return value.id if isinstance(value, PaperRow) else str(value)


def test_all_seventeen_tables_and_every_recipe_of_the_paper_are_there() -> None:
    assert list(paper_tables()) == [*range(1, 18), *OUR_TABLES]
    used = {row.recipe for _, row in ROWS}
    assert {name for name in recipe_names() if name.startswith("paper/e")} <= used
    of_paper = {row.id.split()[0] for name, row in ROWS if name not in OUR_TABLES}
    assert of_paper == {f"E{k:02d}" for k in range(1, 38)}
    assert table_names("all") == [*range(1, 18)] and table_names("claims") == [CLAIMS] and table_names("7") == [7]
    known = "1 to 17, 'all' of them, and there are 'claims', 'choices', 'hypotheses', 'additions'"
    for unknown in ("18", "0", "-1", "every"):
        with pytest.raises(TableError, match=known):
            table_names(unknown)


@pytest.mark.parametrize(("name", "row"), ROWS, ids=ids)
def test_a_row_has_a_value_per_metric_and_a_base_that_is_there(name: TableName, row: PaperRow) -> None:
    table = paper_table(name)
    for benchmark, values in row.paper.items():
        assert len(values) == len(table.metrics_of(row))
        assert benchmark in benchmark_sets() or row.measure in ("seconds", "generation", "pca")
    assert set(table.base) <= {other.id for other in table.rows}
    assert not (row.claim and row.id in table.base)


@pytest.mark.parametrize(("number", "row"), [entry for entry in ROWS if not entry[1].small], ids=ids)
def test_a_row_keeps_what_it_varies_when_it_is_shrunk(number: int, row: PaperRow) -> None:
    full, small = (row_recipe(row, shrink, row_overrides(row, shrink)) for shrink in (False, True))
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
        recipe = row_recipe(row, True, row_overrides(row, shrink=True, budget_steps=7))
        assert recipe.training.optim.steps == recipe.tokenizer_training.optim.steps == 7
        return f"{recipe.name} {run_identity('transformer', recipe, {})}"

    same = [run("E01", 1), run("E09 T=1", 5), run("E10 T=5", 5), run("E19", 12), run("E22", 13), run("E34 4", 17)]
    assert len(set(same)) == 1
    assert run("E16", 12) == run("E29", 16) != same[0]


def test_a_bare_machine_is_told_each_thing_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASKHAND_MANO_DIR", raising=False)
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    (plan,) = planning.plans(home, 2, False, None, [])
    assert plan.runs == []
    said = " ".join(plan.missing["freihand"])
    for words in ("freihand/training", "freihand/evaluation", "maskhand shard freihand --split evaluation",
                  "ViTPose-H checkpoint", "MASKHAND_MANO_DIR", "4 GPUs"):  # fmt: skip
        assert words in said, words
    (small,) = planning.plans(home, 2, True, None, [])
    assert all("freihand_synth" in sentence for sentence in small.missing["freihand"])
    speed = {plan.row.id: plan.runs for plan in planning.plans(home, 5, False, None, [])}
    assert speed["E11 T=1"] == ["time"] and speed["E10 T=1"] == []
    text, with_pose = planning.plans(home, 6, False, None, [])
    assert text.missing == with_pose.missing
    said = " ".join(text.missing["asl"])
    for words in ("CLIP text encoder", "asl_alphabet/letters_train", "--split letters_test", "dexycb/s0_train",
                  "MASKHAND_MANO_DIR"):  # fmt: skip
        assert words in said, words
    assert "ViTPose" not in said


def test_the_table_holds_paper_ours_gap_protocol_and_later_work() -> None:
    table = paper_table(2)
    (row,) = table.rows
    lines = lines_of(table, row, {0: {"freihand": {"pa_mpjpe_mm": 6.0, "pa_f5": 0.75}}}, {}, ["a remark"])
    by_metric = {line.metric: line for line in lines}
    assert by_metric["pa_mpjpe_mm"].gap == pytest.approx(0.5) and by_metric["pa_f5"].gap == pytest.approx(-0.051)
    assert by_metric["pa_mpvpe_mm"].ours is None and by_metric["pa_mpvpe_mm"].gap is None
    assert by_metric["pa_mpjpe_mm"].later[0] == ("HandOS (CVPR 2025, arXiv 2412.01537, quoted)", 5.0)
    assert "a remark" in by_metric["pa_f5"].protocol
    absent = lines_of(table, row, {}, {"freihand": ["shard set x"]})
    comparison = Comparison(2, table.title, "somewhere.", tuple([*lines, *absent]))
    text = comparison.to_markdown()
    assert "| E02: MaskHand | FreiHAND | pa_mpjpe_mm | 5.50 | 6.00 | +0.500 | 5.00 HandOS" in text
    assert "Missing data, FreiHAND:\n\n* shard set x\n" in text and text.count("a remark") == 1
    assert comparison.missing_data() == [("FreiHAND", ["shard set x"])], "once, though many numbers lack it"
    assert all(row[-1].count(",") < 4 for row in comparison.cells()[0]), "notes are about protocol alone"
    values = json.loads(comparison.to_json())
    assert values["lines"][0]["gap"] == pytest.approx(0.5) and values["lines"][2]["higher_is_better"] is True


def test_what_several_benchmarks_lack_is_said_once(tmp_path: Path) -> None:
    lacks = {"A": ("weights", "set a"), "B": ("weights", "set b")}
    lines = [
        Line("row", name, metric, None, (), (), sentences_, ())
        for metric in ("x", "y")
        for name, sentences_ in lacks.items()
    ]
    found = Comparison(1, "t", "s.", tuple(lines)).missing_data()
    assert found == [("A, B", ["weights"]), ("A", ["set a"]), ("B", ["set b"])]


def test_steps_are_told_where_something_was_trained(tmp_path: Path) -> None:
    plans = planning.plans(Workspace(tmp_path, str(tmp_path / "shards")), 5, False, None, [])
    assert "nothing was trained" in results.compare(plans, []).setting
    ready = replace(plans[0], missing={})
    assert ready.row.trains and "transformer steps" in results.compare([ready, *plans[1:]], []).setting


def test_a_row_whose_recipe_names_a_tokenizer_takes_it_and_trains_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    plan = planning.plans(home, CLAIMS, True, 9, [])[0]
    taken: list[str] = []

    def trained(_: Workspace, recipe: str, changes: tuple[str, ...], tokenizer: str, *__: object) -> SimpleNamespace:
        taken.append(tokenizer)
        return SimpleNamespace(folder="x")

    monkeypatch.setattr(run.train, "check_before_tokenizer", lambda *_: None)
    monkeypatch.setattr(run.train, "train_transformer", trained)
    receipt = run.run_row(home, replace(plan, missing=dict.fromkeys(plan.row.paper, ("all",))), silent)
    assert taken == [plan.recipe.tokenizer_training.checkpoint] == ["open_model"]
    assert json.loads(Path(receipt.uri).read_text())["model"] == "x"


def test_rows_that_are_timed_take_turns(tmp_path: Path) -> None:
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    timed = {plan.row.id: plan.timed_iterations for plan in planning.plans(home, 5, False, None, [])}
    assert timed["E11 T=1"] == timed["E11 T=5"] == (1, 3, 5) and timed["E10 T=1"] == ()


def test_the_best_later_result_is_the_least_error_or_the_largest_share() -> None:
    assert best_later("dexycb", "pa_mpjpe_mm", None)[0][1] == 4.08
    assert best_later("hint_visor", "pck_010", "vis") == (("Hamba (NeurIPS 2024)", 89.6),)
    assert best_later("hint_visor", "pck_005", "vis") == ()
    assert set(later_results()) <= set(benchmark_sets())


def test_random_pca_hands_repeat_and_differ_from_each_other() -> None:
    hand = load_hand_model(default_hand_path("right"))
    first = pca_hands(hand, 4, seed=0)
    assert first == pca_hands(hand, 4, seed=0) != pca_hands(hand, 4, seed=1)
    with pytest.raises(HandModelError, match=rf"hand model {hand.digest}: no field 'hands_coeffs'"):
        pca_hands(replace(hand, hands_std=None), 4, seed=0)


def test_random_pca_poses_have_the_hand_models_own_spread() -> None:
    """Their coefficients, found again by projection, have its standard deviations; and so they are hands, not noise."""
    hand, count = random_model(), 4000
    poses = pca_poses(hand, count, seed=3)
    assert hand.hands_std is not None
    coefficients = (poses - hand.hands_mean_aa).reshape(count, 45) @ hand.hands_components.T
    standard = coefficients / hand.hands_std
    np.testing.assert_allclose(np.cov(standard.T), np.eye(45), atol=5 / np.sqrt(count))
    np.testing.assert_allclose(standard.mean(0), 0, atol=5 / np.sqrt(count))
    figures = pca_hands(load_hand_model(default_hand_path("right")), 60, seed=0)
    assert 15 < figures["apd_mm"] < 30 and figures["self_intersection_percent"] < 1


def test_a_hand_model_without_its_poses_is_named_as_what_the_pca_row_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = random_fields()
    del fields["hands_coeffs"]
    (tmp_path / "MANO_RIGHT.pkl").write_bytes(pickle.dumps(fields))
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(tmp_path))
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    lacks = {plan.row.id: plan.missing for plan in planning.plans(home, 11, True, None, [])}
    (sentence,) = lacks["E37 PCA"]["generation"]
    assert sentence.startswith(f"{tmp_path / 'MANO_RIGHT.pkl'}: no field 'hands_coeffs' (N, 45)")
    assert not any("hands_coeffs" in s for s in lacks["E37"]["generation"])


def test_reconstruction_by_a_tokenizer_that_loses_nothing_is_exact() -> None:
    from maskhand.hand.layer import ManoLayer
    from maskhand.loading.poses import PosePool
    from maskhand.paper.measures.tokenizer import reconstruction_errors

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


def test_rows_of_the_claims_differ_from_the_full_model_by_their_part_alone() -> None:
    table = paper_table(CLAIMS)
    recipes = {row.id: row_recipe(row, True, row_overrides(row, True, 50)).flat() for row in table.rows}
    parts = {
        "T = 1": {"sampler.iterations"},
        "without 2D pose": {"model.pose2d_tokens", "model.ref_points"},
        "without GAPR": {"model.gapr_blocks"},
        "without upsampler": {"model.feature_scales"},
        "masked-only loss": {f"training.losses.{name}" for name in ("theta", "joints_3d", "joints_2d")},
        "regression": {"model.decoder"},
        "lifter": {"model.decoder", "training.optim.lr"},
    }
    full = recipes.pop("full")
    assert recipes.keys() == parts.keys()
    for row, recipe in recipes.items():
        assert {key for key in full if recipe[key] != full[key]} == parts[row], row
    assert full["tokenizer_training.optim.steps"] == full["training.optim.steps"] == "50"
    for row in table.rows:  # at full size they are the paper's own rows
        assert row_recipe(row, False, row_overrides(row, False)).model.dim == 256


def test_rows_of_the_additions_differ_by_one_switch_from_the_training_that_the_claims_call_full() -> None:
    rows = paper_table(ADDITIONS).rows
    recipes = [row_recipe(row, True, row_overrides(row, True, 50)) for row in rows]
    full = paper_table(CLAIMS).rows[0]
    assert recipes[0] == row_recipe(full, True, row_overrides(full, True, 50))
    for row, recipe in zip(rows[1:], recipes[1:], strict=True):
        whole, flat = recipes[0].flat(), recipe.flat()
        assert [key for key in whole if whole[key] != flat[key]] == [row.overrides[0].split("=")[0]], row.id


def test_rows_of_the_open_choices_differ_by_their_switch_and_samplers_share_a_training() -> None:
    table = paper_table(CHOICES)
    recipes = {row.id: row_recipe(row, True, row_overrides(row, True, 50)) for row in table.rows}
    recommended = recipes["recommended"]
    changed = {
        row: {key for key, value in recommended.flat().items() if recipe.flat()[key] != value}
        for row, recipe in recipes.items()
    }
    samplers = {"greedy, codes": {"decode"}, "drawn, expectation": {"temperature"}}
    samplers |= {"drawn, codes": {"decode", "temperature"}}
    for row, keys in samplers.items():
        assert changed[row] == {f"sampler.{key}" for key in keys}
        assert run_identity("transformer", recipes[row], {}) == run_identity("transformer", recommended, {})
    assert changed["recommended"] == changed["21 2D tokens"] == set()
    assert changed.pop("lifter") == {"model.decoder", "training.optim.lr"}
    others = changed.keys() - samplers.keys() - {"recommended", "21 2D tokens"}
    assert all(len(changed[row]) == 1 for row in others) and len(others) == 4


def test_each_seed_trains_its_own_tokenizer_which_its_rows_share(tmp_path: Path) -> None:
    plans = planning.plans(Workspace(tmp_path, str(tmp_path)), CLAIMS, True, 50, ["seed=4"], seeds=3)
    count = len(paper_table(CLAIMS).rows)
    assert [plan.recipe.seed for plan in plans] == [4] * count + [5] * count + [6] * count
    identities = {(plan.recipe.seed, run_identity("tokenizer", plan.recipe, {})) for plan in plans}
    assert len(identities) == 3
    again = planning.plan(Workspace(tmp_path, str(tmp_path)), CLAIMS, plans[-1].row, True, 50, ["seed=4"], 2)
    assert again == plans[-1]


def test_a_row_is_known_by_its_recipe_and_its_own_text(tmp_path: Path) -> None:
    home = Workspace(tmp_path, str(tmp_path))
    row = next(row for row in paper_table(11).rows if not row.trains)

    def digests(changed: PaperRow = row, *overrides: str) -> dict[str, str]:
        return planning.digests(home, planning.plan(home, 11, changed, True, None, overrides))

    assert digests() == digests()
    assert digests(row, "seed=7")["recipe"] != digests()["recipe"]
    assert digests(row.model_copy(update={"metrics": ("apd_mm",)}))["row"] != digests()["row"]


def ordering(differences: list[float], paper: float | None, metric: str = "pa_mpjpe_mm", claim: str = "") -> Ordering:
    return Ordering("without", "full", "FreiHAND", metric, claim, paper, tuple(differences))


def test_an_ordering_is_decided_by_the_interval_of_its_paired_differences() -> None:
    from scipy.stats import ttest_1samp

    sure, open_ = ordering([0.5, 0.6, 0.55], 0.1), ordering([0.5, -0.2, 0.1], 0.1)
    for entry in (sure, open_):
        interval = ttest_1samp(entry.differences, 0.0).confidence_interval(0.95)
        assert entry.interval == pytest.approx((interval.low, interval.high))
    assert sure.verdict == "holds" and open_.verdict == "not decided"
    assert ordering([0.5, 0.6, 0.55], -0.1).verdict == "does not hold"
    assert ordering([0.5, 0.6, 0.55], None).verdict == ordering([0.5, 0.6], 0.0).verdict == "no ordering"
    assert ordering([0.5, 0.6, 0.55], None, claim="it helps").verdict == "holds"
    assert ordering([0.05, 0.06, 0.055], None, "pa_f5", claim="it helps").verdict == "does not hold"
    assert ordering([-3.0, -3.1, -3.2], None, "T1/pck_005", claim="it helps").verdict == "holds"
    single = ordering([0.5], 0.1)
    assert single.verdict == "not decided" and "one seed decides nothing" in sentences([single])[0]
    first, count = sentences([ordering([0.5, 0.6, 0.55], None, claim="it helps")])
    assert first.startswith("It helps: holds.") and "+0.550 ± 0.05 (3 seeds; +0.426 to +0.674)" in first
    assert count == "Of 1 orderings: 1 holds, 0 does not hold, 0 not decided."
    assert "Without is worse than full" in sentences([sure])[0]
    assert "Without is worse than full" in sentences([ordering([-0.1, -0.2], -0.1, "pa_f5")])[0]


def test_benchmarks_of_one_set_share_a_sentence_where_the_paper_orders_them_alike() -> None:
    alike = [ordering([0.5, 0.6], paper) for paper in (0.1, 0.2, -0.3)]
    named = [replace(entry, benchmark=name) for entry, name in zip(alike, ("A", "B", "C"), strict=True)]
    both, other, _ = sentences([*named, replace(named[0], metric="pa_mpvpe_mm")])
    assert "in the paper +0.100 on A, +0.200 on B." in both and "-0.300 on C." in other
    assert sentences([ordering([0.5, 0.6], 0.0)]) == []


def test_rows_are_paired_by_seed_whatever_their_order_and_number() -> None:
    table = paper_table(12)
    measured = {
        "E19": {1: {"ho3d_v3": {"pa_mpjpe_mm": 10.0}}, 0: {"ho3d_v3": {"pa_mpjpe_mm": 20.0}}},
        "E18": {
            0: {"ho3d_v3": {"pa_mpjpe_mm": 20.5}},
            1: {"ho3d_v3": {"pa_mpjpe_mm": 10.7}},
            2: {"ho3d_v3": {"pa_mpjpe_mm": 99.0}},
        },
        "E17": {0: {"ho3d_v3": {"pa_mpjpe_mm": float("nan")}}},
    }
    (only,) = orderings_of(table, measured)
    assert only.row == "E18: without GAPR" and only.base == "E19: full" and only.paper == pytest.approx(0.3)
    assert only.differences == pytest.approx((0.5, 0.7))
    line = next(line for line in lines_of(table, table.row("E18"), measured["E18"], {}) if line.values)
    assert line.values == (20.5, 10.7, 99.0) and line.spread == pytest.approx(np.std(line.values, ddof=1))
    comparison = Comparison(12, table.title, "somewhere.", (line,), (only,))
    text = comparison.to_markdown(level=2)
    assert text.startswith("## Table 12: Components") and "43.40 ± 48" in text
    assert "| E18: without GAPR − E19: full | HO-3D v3 | pa_mpjpe_mm | +0.300 | +0.600 ± 0.14 |" in text
    assert "Of 1 orderings: 0 holds, 0 does not hold, 1 not decided." in text
    assert "**not decided**" in text and "**" not in " ".join(sentences(comparison.orderings)), "markdown in files only"
    values = json.loads(comparison.to_json())
    assert values["orderings"][0]["verdict"] == "not decided" and values["lines"][0]["values"] == [20.5, 10.7, 99.0]


def test_every_base_is_compared_with_a_row_of_the_same_benchmark() -> None:
    for table in paper_tables().values():
        everything = {
            row.id: {0: {name: dict.fromkeys(table.metrics_of(row), 1.0) for name in row.paper}} for row in table.rows
        }
        found = orderings_of(table, everything)
        bases = {table.row(row).name for row in table.base}
        assert {o.base for o in found} == bases and not {o.row for o in found} & bases


def test_embedded_runs_detect_the_keypoints_that_they_read_after_masking_and_in_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Workspace(tmp_path, str(tmp_path))
    told: list[tuple] = []
    monkeypatch.setattr("maskhand.cluster.session.ray_session", nullcontext)
    monkeypatch.setattr(planning.data, "mask", lambda _, *about, **__: told.append(about[:3]))
    monkeypatch.setattr(planning.annotation, "annotate_keypoints", lambda _, *about, **__: told.append(about[:2]))
    planning.prepare(home, 4, True, [], silent)
    assert told == [], "without the set that they derive from there is nothing to make"
    write_set(home.shard_set("freihand_synth/evaluation"), make_samples(1))
    planning.prepare(home, 4, False, [], silent)
    planning.prepare(home, 2, True, [], silent)
    assert told == []
    planning.prepare(home, 4, True, [], silent)
    source = "freihand_synth/evaluation"
    assert told == [
        (source, 0.8, 0),
        (f"{source}-masked80", "litert-hand"),
        (source, 0.9, 0),
        (f"{source}-masked90", "litert-hand"),
    ]
    write_set(home.shard_set("freihand_synth/training"), make_samples(1))
    told.clear()
    planning.prepare(home, 2, True, [], silent)
    assert told == [("freihand_synth/training", "litert-hand")], "the quickstart simulates them"
    told.clear()
    planning.prepare(home, "claims", True, [], silent)
    assert told == [], "as do the claims"


def test_masked_rows_are_measured_on_the_published_masks_and_say_how_to_make_them(tmp_path: Path) -> None:
    home = Workspace(tmp_path, str(tmp_path))
    row = paper_table(4).row("E06")
    plan = planning.plan(home, 4, row, True, 5, [])
    assert set(plan.sets.values()) == {"freihand_synth/evaluation-masked90"}
    recipe = row_recipe(row, False, row_overrides(row, False))
    said = missing(row, recipe, ["hamer_eval/TEST_newdays_img_occ"], home, True, 8)
    derived = "hamer_eval/TEST_newdays_img_occ-masked90"
    (sentence,) = [s for s in said if derived in s]
    assert "`maskhand mask hamer_eval/TEST_newdays_img_occ --share 0.9`" in sentence
    assert f"`maskhand annotate keypoints {derived} --detector openpose-hand`" in sentence
    assert not any(derived in s for s in missing(row, recipe, ["hamer_eval/TEST_newdays_img_occ"], home, False, 8))
    plain = missing(paper_table(4).row("E04"), recipe, ["hamer_eval/TEST_newdays_img_occ"], home, True, 8)
    assert not any("masked hands" in s for s in plain)
