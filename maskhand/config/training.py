"""Configuration of the two trainings: optimizer, losses, masking, distributed engine."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from maskhand.config.fields import Fraction, FractionBelowOne, FrozenConfig, PositiveInt


class OptimConfig(FrozenConfig):
    """AdamW and its learning rate schedule."""

    steps: PositiveInt
    """Number of optimizer steps."""
    batch: PositiveInt
    """Global batch size, over all workers."""
    lr: PositiveFloat
    """Peak learning rate of AdamW."""
    lr_backbone: NonNegativeFloat | None = None
    """Peak learning rate of the pretrained encoder (transformer only); null: lr, 0: frozen."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of AdamW."""
    beta2: float = Field(default=0.999, gt=0, lt=1)
    """Decay of the second moment of AdamW."""
    warmup_steps: NonNegativeInt = 0
    """Steps of linear warm-up to lr."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Schedule after warm-up: constant | cosine (down to 1 %). The paper names none."""
    clip: PositiveFloat | None = 1.0
    """Maximum gradient norm; null: no clipping."""
    log_every: PositiveInt = 10
    """Steps between reported metrics."""
    checkpoint_every: PositiveInt = 500
    """Steps between checkpoints, from which a run resumes."""


class TokenizerLossConfig(FrozenConfig):
    """Loss weights of the tokenizer (paper section 3.1)."""

    recon: NonNegativeFloat = 1.0
    """Weight of the whole reconstruction term."""
    theta: NonNegativeFloat = 1.0
    """Weight of the L1 on rotation matrices."""
    vertices: NonNegativeFloat = 0.5
    """Weight of the L1 on root-relative vertices."""
    joints: NonNegativeFloat = 0.3
    """Weight of the L1 on root-relative joints."""
    commitment: NonNegativeFloat = 0.02
    """Weight of the commitment loss (0.02 in the paper)."""
    mano_loss_unit: Literal["m", "dm", "mm"] = "dm"
    """Unit of vertices and joints in the loss: m | dm | mm; dm suits the rotations."""


class TokenizerTrainConfig(FrozenConfig):
    """The training of the tokenizer."""

    checkpoint: str | None = None
    """Exported tokenizer that is taken instead: open | open_model (those that ship) | folder; null: train."""
    random_rotation: Fraction = 0.5
    """Fraction of poses with a uniformly random global rotation."""
    inplane_rotation_deg: NonNegativeFloat = 60.0
    """Range of the in-plane rotation of the other poses: uniform within +- this, degrees."""
    optim: OptimConfig
    """Optimizer of the tokenizer."""
    losses: TokenizerLossConfig = TokenizerLossConfig()
    """Loss weights of the tokenizer."""


class MaskingConfig(FrozenConfig):
    """Masking of the training tokens (paper section 3.3)."""

    tau_max: float = Field(default=0.7, gt=0, le=1)
    """Upper bound of tau ~ U(0, tau_max); the masking ratio is cos(pi/2 tau) (table 13)."""
    tau_reading: Literal["capped", "ratio"] = "capped"
    """Reading of table 13: capped (tau is capped) | ratio (the ratio is U(0, tau_max))."""
    all_masked: Fraction = 0.0
    """Fraction of samples of which every token is masked, as in the first pass of decoding."""
    ce_positions: Literal["all", "masked"] = "all"
    """Positions of the cross-entropy: all | masked."""
    random_token_rate: Fraction = 0.1
    """Fraction of visible tokens replaced by random codes, for robustness at inference."""
    drop_image: Fraction = 0.1
    """Fraction of samples whose image condition is dropped (zeros)."""
    drop_pose_too: Fraction = 0.5
    """Fraction of these whose 2D pose is dropped too: unconditional (supplement G)."""


class LossConfig(FrozenConfig):
    """Loss weights of the transformer (supplement B; HaMeR's without its discriminator)."""

    mask: NonNegativeFloat = 1.0
    """Weight of the cross-entropy of the tokens."""
    theta: NonNegativeFloat = 1e-3
    """Weight of the squared error of rotation matrices."""
    beta: NonNegativeFloat = 5e-4
    """Weight of the squared error of betas."""
    joints_3d: NonNegativeFloat = 5e-2
    """Weight of the L1 on wrist-relative joints, meters."""
    joints_2d: NonNegativeFloat = 1e-2
    """Weight of the L1 on projected joints, crop sides."""
    image_joints: NonNegativeFloat = 0.0
    """Weight of the L1 on joints that the encoder sees (model.image_joints)."""
    batch_ref: PositiveInt = 48
    """Factor on the batch mean of the geometric terms: HaMeR's sums over a batch of 48."""
    differential: Literal["expectation", "argmax_st"] = "expectation"
    """Codes of the geometric losses: expectation | argmax_st (straight-through)."""


class TransformerTrainConfig(FrozenConfig):
    """The training of the masked transformer or a baseline."""

    optim: OptimConfig
    """Optimizer of the network."""
    start_from: str | None = None
    """Exported model whose weights training starts from: open (that ships) | folder; null: none."""
    ema_decay: FractionBelowOne = 0.0
    """Decay of the moving average of the weights, which is exported, after its warm-up; 0: off."""
    validate_every: NonNegativeInt = 0
    """Steps between validations on held-out hands; the best weights are exported; 0: off."""
    validate_hands: PositiveInt = 200
    """Maximum number of held-out hands of a validation, over all sets."""
    masking: MaskingConfig = MaskingConfig()
    """Masking of the training tokens."""
    losses: LossConfig = LossConfig()
    """Loss weights (supplement B; HaMeR's without its discriminator)."""


class EngineConfig(FrozenConfig):
    """Distributed training: Ray Train workers and DeepSpeed."""

    workers: PositiveInt = 2
    """Ray Train workers."""
    min_workers: PositiveInt | None = None
    """Fewest workers that go on when the others' nodes do not come back; null: workers."""
    wait_s: PositiveFloat = 60.0
    """Time that places for all workers are waited for before fewer go on, seconds."""
    threads_per_worker: PositiveInt = 1
    """Torch threads of a worker."""
    micro_batch: PositiveInt | None = None
    """Most samples of a worker at once, gradients are accumulated (transformer only); null: its share."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO stage: 0 | 1 | 2 | 3 (weights too, transformer only)."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """Held in CPU memory: none | optimizer (states; stage 1 to 3) | all (stage 3, transformer only)."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Autocast precision: fp32 | bf16 | fp16; code vectors, hand and losses are always fp32."""
    gradients: Literal["autocast", "fp32"] = "autocast"
    """Gradients are sent in: autocast (bf16: those of matrices; fp16: none) | fp32."""
    max_skipped: NonNegativeInt = 20
    """Maximum number of skipped steps in a row, of a loss or gradient not finite."""
    step_timeout_s: PositiveFloat = 1800.0
    """Time that a worker waits for the others before all start again, seconds."""
    max_failures: NonNegativeInt = 3
    """Maximum number of restarts after lost workers."""
    keep_checkpoints: PositiveInt = 2
    """Number of newest checkpoints that are kept; of two, a damaged one costs no run."""
    keep_best: NonNegativeInt = 0
    """Number of further checkpoints kept, of the best validated weights."""
    use_gpu: bool = False
    """Whether each worker has a GPU."""

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"engine.min_workers={self.min_workers} is more than engine.workers={self.workers}")
        least = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < least:
            raise ValueError(f"engine.offload={self.offload} needs engine.zero_stage={least} at least")
        return self
