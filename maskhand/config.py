"""One configuration system: a recipe is a commented YAML file, read into frozen records, overridden by `key=value`.

A recipe may name another one as its `base`; then it holds only what differs. Unknown keys are errors that name the
nearest known key. The same override syntax serves the command line and the flows.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

RECIPES = Path(__file__).parent / "recipes"


ASKED = ("sampler.", "evaluate.")
"""Sections of a recipe that say how a finished model is asked and measured."""


class ConfigError(ValueError):
    """A recipe or an override that cannot be used; the message names the key and what to do."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class AugmentConfig(_Frozen):
    """Training augmentation (METHOD: HaMeR's numbers). Rotation turns image, 2D, 3D and global orientation together."""

    scale: float = 0.3
    rotation_deg: float = 30.0
    rotation_probability: float = 0.6
    translation: float = 0.02
    color_gain: float = 0.2
    erase_probability: float = 0.3


class KeypointConfig(_Frozen):
    """Where the 2D pose given to the network comes from, and how it is disturbed in training."""

    detector: str
    train_source: Literal["detected", "annotated", "mixed"] = "mixed"
    eval_source: Literal["detected", "annotated", "none"] = "detected"
    noise: float = 0.01
    drop_joint: float = 0.1
    drop_pose: float = 0.1
    swap_fingers: float = 0.05


class DataConfig(_Frozen):
    train: dict[str, float]
    train_poses: dict[str, float] | None = None
    evaluate: tuple[str, ...]
    mocap: bool = False
    caption: str | None = None
    crop_px: int = 256
    box_scale: float = 1.2
    keypoints: KeypointConfig
    augment: AugmentConfig = AugmentConfig()
    lanes: int = Field(default=16, ge=1)
    loader_workers: int = 0

    @property
    def pose_sets(self) -> dict[str, float]:
        """Shard set -> sampling weight for the tokenizer's poses."""
        return self.train if self.train_poses is None else self.train_poses


class TokenizerConfig(_Frozen):
    num_tokens: int = 64
    codebook_size: int = 2048
    code_dim: int = 256
    width: int = 512
    depth: int = 2
    dilation_growth: int = 3
    rot_repr: Literal["6d", "aa"] = "6d"
    ema_decay: float = 0.99
    reset_every: int = 20
    reset_below: float = 0.0625


class TokenizerLossConfig(_Frozen):
    recon: float = 1.0
    theta: float = 1.0
    vertices: float = 0.5
    joints: float = 0.3
    commitment: float = 0.02
    mano_loss_unit: Literal["m", "dm", "mm"] = "dm"


class OptimConfig(_Frozen):
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    lr: float
    lr_backbone: float | None = None
    weight_decay: float = 0.0
    beta2: float = Field(default=0.999, gt=0, lt=1)
    warmup_steps: int = Field(default=0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    clip: float | None = 1.0
    log_every: int = Field(default=10, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)


class TokenizerTrainConfig(_Frozen):
    optim: OptimConfig
    losses: TokenizerLossConfig = TokenizerLossConfig()
    random_rotation: float = 0.5
    inplane_rotation_deg: float = 60.0


class BackboneConfig(_Frozen):
    name: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    checkpoint: str | None = None
    gradient_checkpointing: bool = False


class TextConfig(_Frozen):
    """The text encoder; the sizes of `clip` are ViT-B/32's 512, 12, 8 and 77."""

    encoder: Literal["bytes", "clip"] = "bytes"
    width: int = 64
    depth: int = 2
    heads: int = 4
    length: int = Field(default=64, ge=1)
    checkpoint: str | None = None
    vocabulary: str | None = None


class ModelConfig(_Frozen):
    condition: Literal["image", "text"] = "image"
    backbone: BackboneConfig
    text: TextConfig = TextConfig()
    decoder: Literal["masked", "regression"] = "masked"
    dim: int = 256
    heads: int = 8
    dropout: float = 0.1
    feature_scales: tuple[int, ...] = (1, 4)
    pyramid_depthwise: bool = False
    head_dim: int = 512
    head_depth: int = 2
    pose2d_tokens: Literal[0, 1, 21] = 1
    pose2d_width: int = 128
    gapr_blocks: int = 2
    gapr_residual: Literal["figure", "equation"] = "figure"
    gapr_se_ratio: int = 4
    synth_layers: int = 4
    synth_points: int = 4
    synth_ffn: int = 1024
    ref_points: Literal["learned", "query", "pose2d", "iterative"] = "learned"
    token_embed: Literal["codebook", "table"] = "codebook"
    logits_head: Literal["linear", "codebook"] = "linear"


class MaskingConfig(_Frozen):
    tau_max: float = 0.7
    tau_reading: Literal["capped", "ratio"] = "capped"
    ce_positions: Literal["all", "masked"] = "all"
    random_token_rate: float = 0.1
    drop_image: float = 0.1
    drop_pose_too: float = 0.5


class LossConfig(_Frozen):
    mask: float = 1.0
    theta: float = 1e-3
    beta: float = 5e-4
    joints_3d: float = 5e-2
    joints_2d: float = 1e-2
    batch_ref: int = 48
    differential: Literal["expectation", "argmax_st"] = "expectation"


class SamplerConfig(_Frozen):
    iterations: int = 5
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    remask_kept: bool = False
    confidence_noise: float = 0.0
    decode: Literal["expectation", "mixed", "codes"] = "expectation"


class TransformerTrainConfig(_Frozen):
    optim: OptimConfig
    masking: MaskingConfig = MaskingConfig()
    losses: LossConfig = LossConfig()


class EngineConfig(_Frozen):
    workers: int = Field(default=2, ge=1)
    threads_per_worker: int = Field(default=1, ge=1)
    zero_stage: Literal[0, 1, 2] = 1
    """Not 3: the synthesizer projects feature maps ahead of its own forward pass, where 3 has no weights to give."""
    precision: Literal["fp32", "bf16"] = "fp32"
    max_failures: int = 3
    use_gpu: bool = False


class EvaluateConfig(_Frozen):
    iterations: tuple[int, ...] = (1, 3, 5)
    batch: int = 64


class Recipe(_Frozen):
    """Everything that decides the outcome of a run; `digest()` identifies it."""

    name: str
    seed: int = 0
    data: DataConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    tokenizer_training: TokenizerTrainConfig
    model: ModelConfig
    training: TransformerTrainConfig
    sampler: SamplerConfig = SamplerConfig()
    engine: EngineConfig = EngineConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    def digest(self) -> str:
        """12 hex digits over every value."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def flat(self) -> dict[str, str]:
        """`{"model.dim": "64", ...}` for experiment trackers."""
        flat: dict[str, str] = {}

        def walk(prefix: str, value: Any) -> None:
            if isinstance(value, Mapping) and value:
                for key, inner in value.items():
                    walk(f"{prefix}.{key}" if prefix else str(key), inner)
            else:
                flat[prefix] = str(value)

        walk("", self.model_dump(mode="json"))
        return flat


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name (`tiny`) or path and apply overrides such as `training.optim.steps=200`.

    Raises ConfigError when the recipe does not exist, a key is unknown or a value does not fit.
    """
    values = _read_with_bases(name_or_path)
    for override in overrides:
        _apply_override(values, override)
    return parse_recipe(values, source=str(name_or_path))


def ask_otherwise(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """A trained model's recipe with other values below `sampler.` and `evaluate.`; ConfigError for any other key."""
    values = recipe.model_dump(mode="json")
    for override in overrides:
        if not override.startswith(ASKED):
            raise ConfigError(
                f"override {override!r}: a trained model is what it is; only keys below {' and '.join(ASKED)} say how "
                "it is asked"
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


def _read_with_bases(name_or_path: str | Path) -> dict[str, Any]:
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = RECIPES / f"{name_or_path}.yaml"
    if not path.is_file():
        near = difflib.get_close_matches(str(name_or_path), recipe_names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        presets = ", ".join(name for name in recipe_names() if "/" not in name)
        known = f"known recipes: {presets} and the rows in {RECIPES.name}/paper"
        raise ConfigError(f"recipe {str(name_or_path)!r} not found; {hint}{known}")
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({error})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, found {type(values).__name__}")
    base = values.pop("base", None)
    return values if base is None else _merge(_read_with_bases(base), values)


_WHOLE = ("data.train", "data.train_poses", "model.backbone.kwargs")
"""Mappings with keys of their own: a recipe that names one replaces its base's, it does not add to it."""


def _merge(below: dict[str, Any], above: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both_maps = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        inner = f"{path}{key}"
        merged[key] = _merge(merged[key], value, f"{inner}.") if both_maps and inner not in _WHOLE else value
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
        node[leaf] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # the latter for a date that does not exist
        raise ConfigError(f"override {override!r}: {text!r} is not a YAML value; quote it if it is a text") from None


def _sentence(error: Any) -> str:
    path = ".".join(str(p) for p in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{path}: {error['msg']}"
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
