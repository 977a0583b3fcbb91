"""The cards say what docs/formats.md says, and a wrong card is a sentence."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from maskhand import catalog
from maskhand.adapters import layout_of
from maskhand.catalog import CatalogError, load_spec


@pytest.fixture
def own_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "datasets"
    shutil.copytree(catalog.catalog_dirs()[0], folder)
    monkeypatch.setenv("MASKHAND_CATALOG", str(folder))
    return folder


def _edit(folder: Path, **changes) -> None:
    path = folder / "freihand" / "card.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def test_official_counts() -> None:
    assert load_spec("freihand").splits == {"training": 4 * 32560, "evaluation": 3960}
    interhand = load_spec("interhand26m").splits
    assert sum(n for n in interhand.values() if n) == 2_590_347
    assert load_spec("freihand_synth").splits == {"training": None, "evaluation": None}
    assert sum(n for n in load_spec("hand_labels_synth").splits.values() if n) == 14_261
    assert load_spec("asl_alphabet").splits == {
        "train": 29 * 3000, "test": 28, "letters_train": None, "letters_test": None,
    }  # fmt: skip
    hint = load_spec("hint").splits
    assert sum(n for split, n in hint.items() if split.startswith("TRAIN") and n) == 24_098
    assert sum(n for split, n in hint.items() if split.endswith("seq") and n) == 2320 + 6953


def test_only_our_own_data_is_open_and_closed_ones_say_how_to_get_them() -> None:
    specs = [load_spec(name) for name in catalog.names()]
    assert [spec.name for spec in specs if spec.open] == ["asl_alphabet_synth", "freihand_synth"]
    assert all(len(spec.how_to_get) > 60 and spec.license.name for spec in specs)


@pytest.mark.parametrize(("real", "ours"), [("freihand", "freihand_synth"), ("asl_alphabet", "asl_alphabet_synth")])
def test_a_synthetic_set_shares_the_layout_of_the_real_one(real: str, ours: str) -> None:
    facts = ("layout", "joint_order", "units", "axes", "handedness")
    assert all(getattr(load_spec(real), fact) == getattr(load_spec(ours), fact) for fact in facts)


def test_sets_without_3d_labels_say_so_and_have_no_meters() -> None:
    for name in ("coco_wholebody", "halpe", "hint", "mpii_nzsl", "hand_labels_synth", "hand143_panopticdb"):
        spec = load_spec(name)
        assert (spec.units, spec.axes, spec.mano, spec.fingertip_vertices) == (None,) * 4
        with pytest.raises(CatalogError, match="units: null"):
            spec.meters_per_unit  # noqa: B018


def test_cards_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load_spec("freihand").units = "mm"  # type: ignore[misc]


def test_the_digest_follows_facts_and_ignores_prose(own_catalog: Path) -> None:
    before = load_spec("freihand").digest()
    _edit(own_catalog, errata=["a new remark"], how_to_get="elsewhere", default_splits=["training"])
    assert load_spec("freihand").digest() == before
    _edit(own_catalog, units="mm")
    assert load_spec("freihand").digest() != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shardsize": 10}, r"card.yaml: shardsize: unknown key; did you mean 'shard_size'\?"),
        ({"license": {"nam": "x"}}, r"license.nam: unknown key; did you mean 'name'\?"),
        ({"joint_order": "openpose"}, r"joint_order is 'openpose'; did you mean 'openpose21'\?"),
        ({"axes": "unity"}, r"axes is 'unity'; known: opencv, opengl"),
        ({"units": "inch"}, r"units: Input should be 'm', 'cm' or 'mm'"),
        ({"images_per_annotation": {"train": 4}}, r"images_per_annotation.train: did you mean 'training'\?"),
        ({"default_splits": ["trainin"]}, r"default_splits.trainin: did you mean 'training'\?"),
        ({"default_splits": "training"}, r"default_splits: Input should be a valid tuple"),
        ({"name": "freihand2"}, r"name is 'freihand2', expected its folder's name 'freihand'"),
        ({"shard_size": 0}, r"shard_size: Input should be greater than 0"),
    ],
)
def test_a_wrong_card_is_a_sentence(own_catalog: Path, changes: dict, message: str) -> None:
    _edit(own_catalog, **changes)
    with pytest.raises(CatalogError, match=message):
        load_spec("freihand")


def test_unknown_dataset_and_broken_yaml(own_catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CatalogError, match=r"unknown dataset 'frehand'; did you mean 'freihand'\?"):
        load_spec("frehand")
    (own_catalog / "freihand" / "card.yaml").write_text("a: [1")
    with pytest.raises(CatalogError, match=r"card.yaml: not valid YAML"):
        load_spec("freihand")
    monkeypatch.setenv("MASKHAND_CATALOG", str(own_catalog / "gone"))
    with pytest.raises(CatalogError, match="there is no catalog here; set MASKHAND_CATALOG"):
        catalog.names()


def test_own_cards_stand_beside_the_repositorys(own_catalog: Path, tmp_path: Path, monkeypatch) -> None:
    mine = tmp_path / "mine" / "freihand"
    mine.mkdir(parents=True)
    text = (own_catalog / "freihand" / "card.yaml").read_text()
    (mine / "card.yaml").write_text(re.sub(r"^shard_size: .*$", "shard_size: 7", text, flags=re.MULTILINE))
    monkeypatch.setenv("MASKHAND_CATALOG", f"{mine.parent}{os.pathsep}{own_catalog}")
    assert load_spec("freihand").shard_size == 7, "the first folder wins"
    assert load_spec("dexycb").name == "dexycb"
    assert catalog.names() == sorted(p.name for p in own_catalog.iterdir() if p.is_dir())


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("frihand", r"no adapter reads the layout 'frihand'.*named package.module:Class"),
        ("no_such_module:Layout", r"No module named 'no_such_module'; is its folder on PYTHONPATH"),
        ("maskhand.adapters.layouts.freihand:Layout", r"maskhand.adapters.layouts.freihand has no Layout"),
        (":Layout", r"no adapter reads the layout ':Layout'.*named package.module:Class"),
        ("..up:Layout", r"importing '..up' ended in TypeError"),
        ("os:path", r"expected a class with the methods present, plan and read"),
        ("broken_layout:Layout", r"importing 'broken_layout' ended in SyntaxError"),
    ],
)
def test_a_layout_that_is_not_there_is_a_sentence(
    layout: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_layout.py").write_text("class Layout(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = load_spec("freihand").model_copy(update={"layout": layout})
    with pytest.raises(CatalogError, match=message):
        layout_of(spec)


def test_a_layout_may_live_in_any_module() -> None:
    spec = load_spec("freihand").model_copy(update={"layout": "maskhand.adapters.layouts.freihand:FreiHandLayout"})
    assert layout_of(spec) is layout_of(load_spec("freihand"))
