"""A benchmark is one card and, if its format is new, one file; both may lie outside of the repository."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from maskhand.catalog import CatalogError, catalog_dirs, load_spec
from maskhand.cli import app
from maskhand.hand.layer import ManoLayer
from maskhand.models.build import build_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.vq_mano import VQMano
from maskhand.progress import silent
from maskhand.recipe_files import load_recipe
from maskhand.scoring.benchmarks import benchmark_named, benchmark_sets, official_counts, score_files
from maskhand.scoring.formats import FORMATS, FormatError, load_format
from maskhand.steps import evaluate as evaluate_step
from maskhand.steps import reevaluate
from maskhand.steps.reevaluate import VersionResult
from maskhand.workspace import Workspace
from support.hand_sets import make_samples, write_set

COUNT = 3
RECIPE = load_recipe(
    "tiny",
    [
        "data.keypoints.eval_source=annotated",
        "data.crop_px=64",
        "model.backbone.kwargs={embed_dim: 48, depth: 1, num_heads: 3}",
        "evaluate.iterations=[1]",
    ],
)
SAMPLES = [
    dataclasses.replace(hand, origin={"index": COUNT - 1 - k}) for k, hand in enumerate(make_samples(COUNT, seed=5))
]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    torch.manual_seed(0)
    model = build_model(RECIPE, VQMano(RECIPE.tokenizer), ManoLayer.from_default())
    folder = tmp_path_factory.mktemp("model") / "export"
    ModelBundle.save(folder, model.eval(), RECIPE, {})
    return str(folder)


def add_card(folder: Path, monkeypatch: pytest.MonkeyPatch, **benchmark) -> None:
    """A card of a dataset stored as FreiHAND stores hands, in a catalog beside the repository's."""
    values = yaml.safe_load((catalog_dirs()[0] / "freihand" / "card.yaml").read_text())
    values |= {"name": "my_hands", "splits": {"evaluation": COUNT}, "images_per_annotation": {}, "benchmark": benchmark}
    card = folder / "my_hands" / "card.yaml"
    card.parent.mkdir(parents=True)
    card.write_text(yaml.safe_dump(values))
    monkeypatch.setenv("MASKHAND_CATALOG", os.pathsep.join([str(catalog_dirs()[0]), str(folder)]))


def re_evaluated(home: Workspace, model_folder: str, name: str) -> VersionResult:
    """What the nightly flow measures of a model on the benchmark, which it must find by itself."""
    set_name = reevaluate.benchmarks(home)[name]
    return VersionResult.of(reevaluate.evaluate_version(home, model_folder, name, set_name, silent))


def test_a_card_alone_adds_a_benchmark_of_a_known_format(
    model_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_card(tmp_path / "cards", monkeypatch, title="My hands", format="freihand", splits=["evaluation"])
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    assert reevaluate.benchmarks(home) == {}, "no shards are here yet"
    write_set(home.shard_set("my_hands/evaluation"), SAMPLES)
    assert reevaluate.benchmarks(home) == {"my_hands": "my_hands/evaluation"}
    assert official_counts("freihand") == {"freihand evaluation": 3960, "my_hands evaluation": COUNT}

    sets = evaluate_step.benchmark_sets(home, "my_hands")
    receipt = evaluate_step.evaluate(home, model_folder, sets, silent)
    assert Path(receipt.folder, "my_hands/evaluation/submission/pred.json").is_file()
    found = re_evaluated(home, model_folder, "my_hands")
    assert found.benchmark == "my_hands" and found.metrics["pa_mpjpe_mm"] > 0


def test_a_card_and_one_file_add_a_benchmark_of_a_new_format(
    model_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "wrist_lines:WRISTS"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "wrist_lines.py").write_text(Path(__file__).with_name("own_format.py").read_text())
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    about = {"title": "Wrists", "protocol": "as seen", "name": "wrists", "aliases": ["mine"], "splits": ["evaluation"]}
    add_card(tmp_path / "cards", monkeypatch, format=name, **about)
    home = Workspace(tmp_path, str(tmp_path / "shards"))
    write_set(home.shard_set("my_hands/evaluation"), SAMPLES)

    assert evaluate_step.benchmark_sets(home, "mine") == evaluate_step.benchmark_sets(home, "wrists")
    receipt = evaluate_step.evaluate(home, model_folder, ["my_hands/evaluation"], silent)
    pred, labels = Path(receipt.folder, "my_hands/evaluation/submission/wrists.csv"), tmp_path / "labels.csv"
    wrists = np.stack([hand.joints_cam_m[0] for hand in SAMPLES[::-1]])
    np.savetxt(labels, wrists, delimiter=",")
    scores = score_files(name, labels, pred)
    error_mm = 1e3 * np.linalg.norm(np.loadtxt(pred, delimiter=",") - wrists, axis=1).mean()
    assert scores.metrics["wrist_mm"] == pytest.approx(error_mm) and scores.warnings == []
    shown = CliRunner().invoke(app, ["score", name, "--gt", str(labels), "--pred", str(pred)])
    assert shown.exit_code == 0 and "wrist_mm" in shown.output

    found = re_evaluated(home, model_folder, "wrists")
    assert found.set_name == "my_hands/evaluation" and found.metrics["mpjpe_mm"] > 0


def test_two_benchmarks_of_one_name_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_card(tmp_path / "cards", monkeypatch, title="My hands", splits=["evaluation"], name="dexycb")
    with pytest.raises(CatalogError, match="the card of dexycb has a benchmark 'dexycb' too; give it a name"):
        benchmark_sets()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "freihnd"}, r"benchmark.format: .*format 'freihnd' not known; known are freihand, ho3d, dexycb"),
        ({"splits": ["test"]}, r"benchmark.splits.test: known: evaluation"),
        ({"subsets": {"occ": "hidden"}}, r"benchmark.splits.hidden: known: evaluation"),
        ({"titel": "x"}, r"benchmark.titel: unknown key; did you mean 'title'\?"),
    ],
)
def test_a_wrong_benchmark_is_a_sentence(
    changes: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_card(tmp_path / "cards", monkeypatch, **{"title": "My hands", "splits": ["evaluation"]} | changes)
    with pytest.raises(CatalogError, match=message):
        load_spec("my_hands")


def test_a_format_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(FormatError, match="No module named 'no_such_module'; is its folder on PYTHONPATH"):
        load_format("no_such_module:FORMAT")
    with pytest.raises(FormatError, match=r"maskhand.scoring.hint has no FORMAT"):
        load_format("maskhand.scoring.hint:FORMAT")
    assert load_format(FORMATS["hint"]) is load_format("hint")


def test_numbers_are_kept_under_the_names_that_they_have_always_had() -> None:
    sets = {name: one.shard_set for name, one in benchmark_sets().items()}
    assert next(iter(sets)) == "synthetic"
    kept = {
        "synthetic": "freihand_synth/evaluation",
        "freihand": "freihand/evaluation",
        "ho3d_v3": "ho3d_v3/evaluation",
        "dexycb": "dexycb/s0_test",
        "hint_newdays": "hamer_eval/TEST_newdays_img_all",
        "hint_visor": "hamer_eval/TEST_epick_img_all",
        "hint_ego4d": "hamer_eval/TEST_ego4d_img_all",
        "asl": "asl_alphabet/letters_test",
    }
    assert kept.items() <= sets.items() and sets["dexycb_s1_test"] == "dexycb/s1_test"
    assert [one.name for one in benchmark_named("hint")] == ["hint_newdays", "hint_visor", "hint_ego4d"]
    assert benchmark_named("synthetic") == benchmark_named("freihand_synth")
    assert benchmark_sets()["hint_visor"].subset("occ") == "hamer_eval/TEST_epick_img_occ"
