"""Recipe files: YAML that is read into the records of `config` and overridden by `key=value`.

A recipe may name another one as its `base`; then it holds only what differs. Unknown keys are errors that name the
nearest known key. The same override syntax serves the command line and the flows.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from maskhand.config import INFERENCE_SETTINGS, ConfigError, Recipe
from maskhand.yaml_text import YamlError, read_yaml

RECIPES = Path(__file__).parent / "recipes"


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name (`tiny`) or path and apply overrides such as `training.optim.steps=200`.

    Raises ConfigError when the recipe does not exist, a key is unknown or a value does not fit.
    """
    values = _read_with_bases(Path(name_or_path))
    for override in overrides:
        _apply_override(values, override)
    return parse_recipe(values, source=str(name_or_path))


def override_inference(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """A trained model's recipe with other `INFERENCE_SETTINGS`; ConfigError for any other key."""
    values = recipe.model_dump(mode="json")
    for override in overrides:
        if not f"{override.partition('=')[0]}.".startswith(INFERENCE_SETTINGS):
            raise ConfigError(
                f"override {override!r}: the model is trained already; only inference settings can change: "
                f"{', '.join(name.removesuffix('.') for name in INFERENCE_SETTINGS)}"
            )
        _apply_override(values, override)
    return parse_recipe(values, source=recipe.name)


def parse_recipe(values: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """A recipe from plain values (as `model_dump` writes them); raises ConfigError."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_sentence(e) for e in error.errors())) from None


def recipe_names() -> list[str]:
    """Names that `load_recipe` takes; those of the paper's tables are under `paper/`."""
    return sorted(p.relative_to(RECIPES).with_suffix("").as_posix() for p in RECIPES.rglob("*.yaml"))


def _read_with_bases(name_or_path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The values of a recipe over those of its base. above: the files that led here, each the base of the one before.

    A base's path is one from the folder of the recipe that names it, or from the current folder.
    """
    named = name_or_path.suffix not in (".yaml", ".yml")
    path = RECIPES / f"{name_or_path}.yaml" if named else name_or_path
    if above and not named and (beside := above[-1].parent / path).is_file():
        path = beside
    if path.resolve() in above:
        raise ConfigError(f"{path}: it is its own base, by way of {', '.join(map(str, above))}; leave out one `base`")
    if not path.is_file():
        near = difflib.get_close_matches(str(name_or_path), recipe_names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        presets = ", ".join(name for name in recipe_names() if "/" not in name)
        known = f"known recipes: {presets} and the rows in {RECIPES.name}/paper"
        asked = f"{above[-1]}: base: " if above else ""
        raise ConfigError(f"{asked}recipe {str(name_or_path)!r} not found; {hint}{known}")
    try:
        values = read_yaml(path.read_bytes()) or {}
    except YamlError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, found {type(values).__name__}")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base is {base!r}, expected the name of a recipe or the path of a YAML file")
    return _merge(_read_with_bases(Path(base), (*above, path.resolve())), values)


FREE_MAPPINGS = ("data.train", "data.train_poses", "model.backbone.kwargs")
"""Mappings with free keys: the value of a recipe replaces that of its base and is not merged with it."""


def _merge(below: dict[str, Any], above: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both_maps = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        inner = f"{path}{key}"
        merged[key] = _merge(merged[key], value, f"{inner}.") if both_maps and inner not in FREE_MAPPINGS else value
    return merged


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"override {override!r}: expected key.path=value, for example training.optim.steps=200")
    *parents, leaf = key.strip().split(".")
    node = values
    for depth, parent in enumerate(parents, 1):
        inner = node.get(parent) or {}
        if not isinstance(inner, Mapping):
            raise ConfigError(
                f"override {override!r}: {'.'.join(parents[:depth])} is the value {inner!r} and has no keys below it"
            )
        node[parent] = dict(inner)
        node = node[parent]
    try:
        node[leaf] = read_yaml(text)
    except YamlError as error:
        raise ConfigError(
            f"override {override!r}: {text!r} is not a YAML value; quote it if it is a text ({error})"
        ) from None


_EXPECTED = {
    "tuple_type": "a list such as [1,3,5]",
    "dict_type": "a mapping such as {freihand/training: 1.0}",
    "model_type": "a mapping with the keys below it",
}


def _sentence(error: Any) -> str:
    path = ".".join(str(p) for p in error["loc"])
    if error["type"] in _EXPECTED:
        return f"{path}: expected {_EXPECTED[error['type']]}, found {reprlib.repr(error['input'])}"
    if error["type"] in ("missing", "value_error"):
        return ": ".join(filter(None, (path, error["msg"].removeprefix("Value error, "))))
    if error["type"] != "extra_forbidden":
        return f"{path}: {error['msg']}, found {reprlib.repr(error['input'])}"
    known = _known_keys(error["loc"][:-1])
    near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
    return f"{path}: unknown key; {hint}"


def _known_keys(path: Sequence[str | int]) -> list[str]:
    model: Any = Recipe
    for part in path:
        annotation = model.model_fields[str(part)].annotation
        model = annotation
    return list(model.model_fields)
