"""One configuration system: a recipe as frozen records, which refuse what cannot be. `recipe_files` reads them.

What each key means is said beside it in `recipes/base.yaml`, which has them all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from maskhand.errors import MaskhandError

Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Weights = Annotated[dict[str, Positive], Field(min_length=1)]

ASKED = ("sampler.", "evaluate.")
"""Sections of a recipe that say how a finished model is asked and measured."""


class ConfigError(MaskhandError, ValueError):
    """A recipe or an override that cannot be used; the message names the key and what to do."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


def _check_heads(heads: int, **widths: int) -> None:
    for key, width in widths.items():
        if width % heads:
            raise ValueError(f"{key}={width} is not a multiple of heads={heads}")


class AugmentConfig(_Frozen):
    """Training augmentation (METHOD: HaMeR's numbers). Rotation turns image, 2D, 3D and global orientation together."""

    scale: BelowOne = 0.3
    rotation_deg: NotNegative = 30.0
    rotation_probability: Share = 0.6
    translation: NotNegative = 0.02
    color_gain: Share = 0.2
    erase_probability: Share = 0.3


class KeypointConfig(_Frozen):
    """Where the 2D pose given to the network comes from, and how it is disturbed in training."""

    detector: str
    train_source: Literal["detected", "annotated", "mixed"] = "mixed"
    eval_source: Literal["detected", "annotated", "none"] = "detected"
    noise: NotNegative = 0.01
    drop_joint: Share = 0.1
    drop_pose: Share = 0.1
    swap_fingers: Share = 0.05


class DataConfig(_Frozen):
    train: Weights
    train_poses: Weights | None = None
    evaluate: Annotated[tuple[str, ...], Field(min_length=1)]
    mocap: bool = False
    caption: str | None = None
    crop_px: Annotated[int, Field(ge=1, multiple_of=8)] = 256
    """So that its central 3:4 columns are whole pixels."""
    box_scale: Positive = 1.2
    keypoints: KeypointConfig
    augment: AugmentConfig = AugmentConfig()
    lanes: Count = 16
    held_out: BelowOne = 0.0
    loader_workers: Natural = 0

    @property
    def pose_sets(self) -> dict[str, float]:
        """Shard set -> sampling weight for the tokenizer's poses."""
        return self.train if self.train_poses is None else self.train_poses


class TokenizerConfig(_Frozen):
    num_tokens: Count = 64
    codebook_size: Count = 2048
    code_dim: Count = 256
    width: Count = 512
    depth: Count = 2
    dilation_growth: Count = 3
    rot_repr: Literal["6d", "aa"] = "6d"
    ema_decay: BelowOne = 0.99
    reset_every: Natural = 20
    reset_below: NotNegative = 0.0625


class TokenizerLossConfig(_Frozen):
    recon: NotNegative = 1.0
    theta: NotNegative = 1.0
    vertices: NotNegative = 0.5
    joints: NotNegative = 0.3
    commitment: NotNegative = 0.02
    mano_loss_unit: Literal["m", "dm", "mm"] = "dm"


class OptimConfig(_Frozen):
    steps: Count
    batch: Count
    lr: Positive
    lr_backbone: NotNegative | None = None
    weight_decay: NotNegative = 0.0
    beta2: float = Field(default=0.999, gt=0, lt=1)
    warmup_steps: Natural = 0
    schedule: Literal["constant", "cosine"] = "constant"
    clip: Positive | None = 1.0
    log_every: Count = 10
    checkpoint_every: Count = 500


class TokenizerTrainConfig(_Frozen):
    optim: OptimConfig
    losses: TokenizerLossConfig = TokenizerLossConfig()
    random_rotation: Share = 0.5
    inplane_rotation_deg: NotNegative = 60.0


class BackboneConfig(_Frozen):
    name: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    checkpoint: str | None = None
    gradient_checkpointing: bool = False


class TextConfig(_Frozen):
    """The text encoder; the sizes of `clip` are ViT-B/32's 512, 12, 8 and 77."""

    encoder: Literal["bytes", "clip"] = "bytes"
    width: Count = 64
    depth: Count = 2
    heads: Count = 4
    length: Count = 64
    checkpoint: str | None = None
    vocabulary: str | None = None

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        _check_heads(self.heads, width=self.width)
        return self


class ModelConfig(_Frozen):
    condition: Literal["image", "text"] = "image"
    backbone: BackboneConfig
    text: TextConfig = TextConfig()
    decoder: Literal["masked", "regression", "lifter"] = "masked"
    dim: Count = 256
    heads: Count = 8
    dropout: BelowOne = 0.1
    feature_scales: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 4)
    pyramid_depthwise: bool = False
    head_dim: Count = 512
    head_depth: Count = 2
    pose2d_tokens: Literal[0, 1, 21] = 1
    pose2d_width: Count = 128
    gapr_blocks: Natural = 2
    gapr_residual: Literal["figure", "equation"] = "figure"
    gapr_se_ratio: Count = 4
    synth_layers: Count = 4
    synth_points: Count = 4
    synth_ffn: Count = 1024
    ref_points: Literal["learned", "query", "pose2d", "iterative"] = "learned"
    token_embed: Literal["codebook", "table"] = "codebook"
    logits_head: Literal["linear", "codebook"] = "linear"
    lifter_width: Count = 1024
    lifter_blocks: Count = 2

    @property
    def sees_image(self) -> bool:
        return self.condition == "image" and self.decoder != "lifter"

    @model_validator(mode="after")
    def _heads_share_the_widths(self) -> Self:
        _check_heads(self.heads, dim=self.dim, head_dim=self.head_dim)
        return self


class MaskingConfig(_Frozen):
    tau_max: float = Field(default=0.7, gt=0, le=1)
    tau_reading: Literal["capped", "ratio"] = "capped"
    ce_positions: Literal["all", "masked"] = "all"
    random_token_rate: Share = 0.1
    drop_image: Share = 0.1
    drop_pose_too: Share = 0.5


class LossConfig(_Frozen):
    mask: NotNegative = 1.0
    theta: NotNegative = 1e-3
    beta: NotNegative = 5e-4
    joints_3d: NotNegative = 5e-2
    joints_2d: NotNegative = 1e-2
    batch_ref: Count = 48
    differential: Literal["expectation", "argmax_st"] = "expectation"


class SamplerConfig(_Frozen):
    iterations: Count = 5
    temperature: NotNegative = 0.0
    top_k: Count | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    remask_kept: bool = False
    confidence_noise: NotNegative = 0.0
    decode: Literal["expectation", "mixed", "codes"] = "expectation"


class TransformerTrainConfig(_Frozen):
    optim: OptimConfig
    masking: MaskingConfig = MaskingConfig()
    losses: LossConfig = LossConfig()


class EngineConfig(_Frozen):
    workers: Count = 2
    threads_per_worker: Count = 1
    zero_stage: Literal[0, 1, 2] = 1
    """Not 3: the synthesizer projects feature maps ahead of its own forward pass, where 3 has no weights to give."""
    precision: Literal["fp32", "bf16"] = "fp32"
    max_failures: Natural = 3
    use_gpu: bool = False


class EvaluateConfig(_Frozen):
    iterations: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 3, 5)
    batch: Count = 64


class Recipe(_Frozen):
    """Everything that decides the outcome of a run; `digest()` identifies it."""

    name: str
    seed: Natural = 0
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
