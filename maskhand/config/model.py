"""Configuration of the networks: tokenizer, encoders, decoder, sampler."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from maskhand.config.fields import FractionBelowOne, FrozenConfig, PositiveInt


class TokenizerConfig(FrozenConfig):
    """The architecture of VQ-MANO, the pose tokenizer (paper section 3.1)."""

    num_tokens: PositiveInt = 64
    """Length L of the token sequence (table 7)."""
    codebook_size: PositiveInt = 2048
    """Number of codes V (table 8)."""
    code_dim: PositiveInt = 256
    """Dimension of a code vector (table 8)."""
    width: PositiveInt = 512
    """Channels of the 1D convolutions (TokenHMR)."""
    depth: PositiveInt = 2
    """Residual blocks per stage."""
    dilation_growth: PositiveInt = 3
    """Base of the dilation: that of block k is dilation_growth ** k."""
    rot_repr: Literal["6d", "aa"] = "6d"
    """Rotation representation: 6d | aa (axis-angle, discontinuous at an angle of pi)."""
    ema_decay: FractionBelowOne = 0.99
    """Decay of the EMA codebook statistics."""
    reset_every: NonNegativeInt = 20
    """Steps between resets of unused codes; 0: never."""
    reset_below: NonNegativeFloat = 0.0625
    """Usage below which a code counts as unused, as a fraction of uniform usage."""


class BackboneConfig(FrozenConfig):
    """The image encoder: a vision transformer of timm, or the open hand landmark network."""

    name: str
    """Name of the timm model, or hand_landmark (models/hand_landmark.py)."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the timm model; patch_padding is ours (ViTPose, HaMeR: 2)."""
    checkpoint: str | None = None
    """Path to pretrained weights (ViTPose, HaMeR, MAE, timm); null: random or fetched; open: open model."""
    gradient_checkpointing: bool = False
    """Whether activations are recomputed in the backward pass, to save memory."""

    @property
    def is_hand_landmark(self) -> bool:
        """The open hand landmark network, whose weights are fetched where no checkpoint is named."""
        return self.name == "hand_landmark"


class TextConfig(FrozenConfig):
    """The text encoder; the sizes of `clip` are ViT-B/32's 512, 12, 8 and 77."""

    encoder: Literal["bytes", "clip"] = "bytes"
    """Text encoder: bytes (small, trained with the rest) | clip (CLIP's text tower, frozen)."""
    width: PositiveInt = 64
    """Channels."""
    depth: PositiveInt = 2
    """Layers."""
    heads: PositiveInt = 4
    """Attention heads."""
    length: PositiveInt = 64
    """Maximum number of tokens of a caption."""
    checkpoint: str | None = None
    """Path to CLIP's weights, with OpenAI's or Hugging Face's names; see `maskhand assets`."""
    vocabulary: str | None = None
    """Path to CLIP's merges file; see `maskhand assets`."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        _check_heads(self.heads, width=self.width)
        return self


def _check_heads(heads: int, **widths: int) -> None:
    for key, width in widths.items():
        if width % heads:
            raise ValueError(f"{key}={width} is not a multiple of heads={heads}")


class ModelConfig(FrozenConfig):
    """The architecture of the network (paper section 3.2)."""

    condition: Literal["image", "text"] = "image"
    """What the network is conditioned on, beside the 2D pose: image | text."""
    backbone: BackboneConfig
    """Image encoder."""
    text: TextConfig = TextConfig()
    """Text encoder, where condition is text; sizes of CLIP ViT-B/32: 512, 12, 8, 77."""
    decoder: Literal["masked", "regression", "lifter"] = "masked"
    """Decoder: masked | baselines: regression (same encoder), lifter (2D keypoints alone)."""
    dim: PositiveInt = 256
    """Width of tokens and feature maps."""
    heads: PositiveInt = 8
    """Attention heads."""
    dropout: FractionBelowOne = 0.1
    """Dropout of attention and feed-forward layers."""
    feature_scales: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 4)
    """Pyramid levels: resolution relative to the encoder's coarsest map (table 16)."""
    pyramid_depthwise: bool = False
    """Whether the last 3x3 convolution of a pyramid level is depthwise."""
    head_dim: PositiveInt = 512
    """Width of the shape and camera head."""
    head_depth: PositiveInt = 2
    """Layers of the shape and camera head."""
    pose2d_tokens: Literal[0, 1, 21] = 1
    """Tokens of the 2D pose graph: 0 | 1 | 21; the authors' figure draws 1."""
    pose2d_width: PositiveInt = 128
    """Channels of the 2D pose graph."""
    image_joints: bool = False
    """Whether joints are read from the encoder's coarsest map, beside the 2D pose."""
    pose2d_tolerance: PositiveFloat | None = None
    """Inference: mean distance, crop sides, from image_joints beyond which a 2D pose is not read; null: any is read."""
    camera: Literal["absolute", "residual"] = "absolute"
    """Camera: absolute | residual (to that of the seen joints, from image and 2D pose)."""
    pose2d_inputs: Literal["xy", "xyz_world"] = "xy"
    """Read of a keypoint beside confidence: xy | xyz_world (also its depth and world landmark)."""
    gapr_blocks: NonNegativeInt = 2
    """Graph-based anatomical pose refinement blocks."""
    gapr_residual: Literal["figure", "equation"] = "figure"
    """Residual of a GAPR block: figure (outer residual, figure 4) | equation (equation 2)."""
    gapr_se_ratio: PositiveInt = 4
    """Reduction ratio of squeeze-and-excitation in GAPR."""
    synth_layers: PositiveInt = 4
    """Layers of the context-infused masked synthesizer (table 17)."""
    synth_points: PositiveInt = 4
    """Sampling points per head and level of deformable attention."""
    synth_ffn: PositiveInt = 1024
    """Hidden channels of the synthesizer's feed-forward layers."""
    ref_points: Literal["learned", "query", "pose2d", "iterative", "projected"] = "learned"
    """Reference points: learned (figure 17) | query | pose2d | iterative | projected."""
    token_embed: Literal["codebook", "table"] = "codebook"
    """Token embedding: codebook (a linear map of the code vector) | table."""
    token_queries: Literal["position", "conditioned"] = "position"
    """Added to token embeddings: position | conditioned (also a perceptron of image and 2D pose)."""
    query_width: PositiveInt = 384
    """Channels of the perceptron of conditioned token queries."""
    logits_head: Literal["linear", "codebook", "codebook_linear", "mixture"] = "linear"
    """Output head: linear | codebook (distance to a point) | codebook_linear | mixture."""
    head_components: PositiveInt = 4
    """Components of the output head mixture."""
    lifter_width: PositiveInt = 1024
    """Channels of the lifter (Martinez et al.)."""
    lifter_blocks: PositiveInt = 2
    """Residual blocks of the lifter, two layers each."""

    @property
    def sees_image(self) -> bool:
        return self.condition == "image" and self.decoder != "lifter"

    @model_validator(mode="after")
    def _heads_divide_the_widths(self) -> Self:
        _check_heads(self.heads, dim=self.dim, head_dim=self.head_dim)
        return self

    @model_validator(mode="after")
    def _tolerance_has_joints_to_compare(self) -> Self:
        if self.pose2d_tolerance is not None and not self.image_joints:
            raise ValueError(f"pose2d_tolerance={self.pose2d_tolerance:g}: needs image_joints: true; null turns it off")
        return self


class SamplerConfig(FrozenConfig):
    """Iterative decoding (paper section 3.4)."""

    iterations: PositiveInt = 5
    """Iterations T of the masking schedule (table 5)."""
    temperature: NonNegativeFloat = 0.0
    """Sampling temperature; 0: the most probable code."""
    top_k: PositiveInt | None = None
    """Top-k filter, number of codes; null: none."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus (top-p) filter, probability; null: none."""
    remask_kept: bool = False
    """Whether a token that was kept may be masked again."""
    confidence_noise: NonNegativeFloat = 0.0
    """Scale of the Gumbel noise on the confidence order, annealed to 0 (MaskGIT)."""
    decode: Literal["expectation", "mixed", "codes"] = "expectation"
    """Code vectors that are decoded: expectation | mixed (that of the last iteration) | codes."""
