"""Recipes: strict keys, nearest-key hints, bases, overrides and digests."""

from typing import cast

import pytest
import yaml
from pydantic import BaseModel

from maskhand import catalog
from maskhand.config import ConfigError, Recipe
from maskhand.recipe_files import FREE_MAPPINGS, RECIPES, load_recipe, override_inference, parse_recipe, recipe_names
from maskhand.yaml_text import YamlError, read_yaml


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_survives_a_round_trip(name: str) -> None:
    recipe = load_recipe(name)
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_the_sets_of_a_recipe_are_in_the_catalog(name: str) -> None:
    data = load_recipe(name).data
    for shard_set in (*data.train, *data.pose_sets, *data.evaluate):
        dataset, split = shard_set.split("/")
        catalog.load_spec(dataset).check_split(split)


def test_only_the_inference_settings_of_a_trained_model_can_change() -> None:
    recipe = load_recipe("tiny")
    assert override_inference(recipe, []) == recipe
    other = override_inference(recipe, ["sampler.top_k=7", "evaluate.iterations=[1,10]"])
    assert (other.sampler.top_k, other.evaluate.iterations) == (7, (1, 10))
    assert override_inference(other, ["sampler.top_k=null", "evaluate.iterations=[1,3,5]"]) == recipe
    with pytest.raises(ConfigError, match=r"'model.dim=9': the model is trained already; only inference settings"):
        override_inference(recipe, ["model.dim=9"])
    with pytest.raises(ConfigError, match=r"sampler\.top_q: unknown key; did you mean 'top_[kp]'"):
        override_inference(recipe, ["sampler.top_q=9"])


def test_base_writes_down_every_key_with_the_docstring_of_its_field() -> None:
    text = (RECIPES / "base.yaml").read_text()
    lines = text.splitlines()

    def check(node: yaml.MappingNode, model: type[BaseModel], path: str = "") -> None:
        fields = model.model_fields
        assert {key.value for key, _ in node.value} == set(fields), path
        for key, value in node.value:
            field, inner = fields[key.value], f"{path}{key.value}"
            assert field.description, f"{inner}: no docstring under the field"
            assert lines[key.start_mark.line].partition("  # ")[2] == field.description, inner
            if isinstance(value, yaml.MappingNode) and inner not in FREE_MAPPINGS:
                check(value, cast(type[BaseModel], field.annotation), f"{inner}.")

    check(cast(yaml.MappingNode, yaml.compose(text)), Recipe)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("training.optm.steps=3", "did you mean 'optim'"),
        ("training.optim.stps=3", "did you mean 'steps'"),
        ("model.dim=wide", "valid integer"),
        ("model.dim", "key.path=value"),
        ("name.x=1", "name is the value 'tiny' and has no keys below it"),
        ("data.crop_px.x=1", r"data\.crop_px is the value \d+ and has no keys"),
        ("data.evaluate.0=a", r"data\.evaluate is the value .* and has no keys"),
        ("data.keypoints=3", r"data\.keypoints: expected a mapping with the keys below it, found 3"),
        (
            "data.train=rhd/training",
            r"data\.train: expected a mapping such as \{freihand/training: 1\.0\}",
        ),
        ("evaluate.iterations=3", r"evaluate\.iterations: expected a list such as \[1,3,5\], found 3"),
        ("data.crop_px=7", r"data\.crop_px: .*multiple of 8, found 7"),
        ("model.dim=65", r"model: dim=65 is not a multiple of heads=4$"),
        ("model.head_dim=65", r"model: head_dim=65 is not a multiple of heads=4$"),
        ("model.text.width=63", r"model\.text: width=63 is not a multiple of heads=4$"),
        ("engine.zero_stage=4", r"engine\.zero_stage: .*0, 1, 2 or 3"),
        ("evaluate.batch=0", r"evaluate\.batch: .*greater than or equal to 1, found 0"),
        ("evaluate.iterations=[]", r"evaluate\.iterations: .*at least 1 item"),
        ("evaluate.iterations=[3,0]", r"evaluate\.iterations\.1: .*greater than or equal to 1, found 0"),
        ("sampler.iterations=0", r"sampler\.iterations: .*greater than or equal to 1, found 0"),
        ("sampler.temperature=-1", r"sampler\.temperature: .*greater than or equal to 0, found -1"),
        ("sampler.top_p=1.5", r"sampler\.top_p: .*less than or equal to 1, found 1\.5"),
        ("tokenizer.num_tokens=0", r"tokenizer\.num_tokens: .*greater than or equal to 1, found 0"),
        ("tokenizer.ema_decay=1", r"tokenizer\.ema_decay: .*less than 1, found 1"),
        ("data.train={}", r"data\.train: .*at least 1 item"),
        ("data.train={rhd/training: 0}", r"data\.train\.rhd/training: .*greater than 0, found 0"),
        ("data.evaluate=[]", r"data\.evaluate: .*at least 1 item"),
        ("data.crop_px=0", r"data\.crop_px: .*greater than or equal to 1, found 0"),
        ("data.loader_workers=-1", r"data\.loader_workers: .*greater than or equal to 0, found -1"),
        ("data.keypoints.drop_joint=7", r"data\.keypoints\.drop_joint: .*less than or equal to 1, found 7"),
        ("training.masking.tau_max=2", r"training\.masking\.tau_max: .*less than or equal to 1, found 2"),
        ("training.optim.lr=.nan", r"training\.optim\.lr: .*finite number, found nan"),
        ("training.losses.mask=-1", r"training\.losses\.mask: .*greater than or equal to 0, found -1"),
        ("model.dropout=1", r"model\.dropout: .*less than 1, found 1"),
        ("model.feature_scales=[]", r"model\.feature_scales: .*at least 1 item"),
        ("training.optim.steps=true", r"training\.optim\.steps: expected a number or a text, found true"),
        ("model.pyramid_depthwise=3", r"model\.pyramid_depthwise: .*boolean"),
        ("seed=99999999999999999999999", r"seed: .*less than 4294967296"),
        ("engine.max_failures=-1", r"engine\.max_failures: .*greater than or equal to 0, found -1"),
        ("model.dim=[1", r"'\[1' is not a YAML value"),
        ("name=2026-13-01", "is not a YAML value; quote it"),
        ("name=x/../../pwned", r"name: name 'x/\.\./\.\./pwned': expected .* becomes part of a path"),
        ("data.keypoints.detector=a/../../b", r"data\.keypoints\.detector: .* part of a path"),
        ("data.train={../../other/training: 1.0}", r"data\.train.*'\.\.'.* part of a path"),
        ("data.evaluate=[freihand/../../etc]", r"data\.evaluate\.0: .* part of a path"),
        ("data.train.x.y=1", r"data\.train\.x: .*number"),
    ],
)
def test_a_wrong_override_is_a_sentence(override: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        load_recipe("tiny", [override])


def test_an_override_changes_the_value_and_the_digest() -> None:
    plain, changed = load_recipe("tiny"), load_recipe("tiny", ["training.optim.steps=7", "sampler.top_k=5"])
    assert (changed.training.optim.steps, changed.sampler.top_k) == (7, 5)
    assert plain.digest() != changed.digest()
    assert plain.digest() == load_recipe("tiny").digest()


def test_a_recipe_with_a_base_holds_only_what_differs(tmp_path) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text("base: tiny\nname: wide\nmodel: {dim: 128}\n")
    recipe, base = load_recipe(path), load_recipe("tiny")
    assert recipe.model.dim == 128
    assert recipe.model.heads == base.model.heads
    assert recipe.tokenizer == base.tokenizer


def test_a_base_is_found_beside_the_recipe_that_names_it(tmp_path) -> None:
    (tmp_path / "above.yaml").write_text("base: sub/middle.yaml\nname: above\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "middle.yaml").write_text("base: below.yml\nmodel: {dim: 96}\n")
    (tmp_path / "sub" / "below.yml").write_text("base: tiny\nname: below\nmodel: {dim: 128, heads: 2}\n")
    recipe = load_recipe(tmp_path / "above.yaml")
    assert (recipe.name, recipe.model.dim, recipe.model.heads) == ("above", 96, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: mine.yaml\n", "mine.yaml: it is its own base, by way of"),
        ("base: [tiny]\n", r"mine.yaml: base is \['tiny'\], expected the name of a recipe or the path"),
        ("base: tiney\n", r"mine.yaml: base: recipe 'tiney' not found; did you mean 'tiny'"),
        (
            "base: tiny\nseed: 1\nmodel: {}\nseed: 2\n",
            "mine.yaml: ambiguous YAML .the key 'seed' is there twice .*line 4",
        ),
        ("base: tiny\ntraining: {optim: {steps: 12:30}}\n", "training.optim.steps: .*found '12:30'"),
    ],
)
def test_a_recipe_that_says_two_things_or_nothing_is_a_sentence(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_a_missing_recipe_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="tiny"):
        load_recipe("tinny")


def test_a_recipe_replaces_the_sets_of_its_base(tmp_path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("base: tiny\nname: other\ndata: {train: {freihand/training: 1.0}, crop_px: 128}\n")
    recipe = load_recipe(path)
    assert recipe.data.train == {"freihand/training": 1.0}
    assert recipe.data.pose_sets == recipe.data.train and recipe.data.box_scale == load_recipe("tiny").data.box_scale


def test_brackets_that_are_never_closed_take_no_time() -> None:
    """PyYAML looks at all open ones again with every further one."""
    for text in ("a: " + "[" * 100_000, b"a: " + b"{x: " * 100_000):
        with pytest.raises(YamlError, match="brackets are not closed"):
            read_yaml(text)
