"""Hands in memory for the training loops: the same rows of the global batch whatever the number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from maskhand.batch import HandBatch
from maskhand.config import Recipe
from maskhand.evaluation.held_out import HeldOutBatch, HeldOutHands
from maskhand.evaluation.truth import ground_truth
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import load_recipe

SMALL = (
    "data.crop_px=64",
    "tokenizer.codebook_size=32",
    "tokenizer.code_dim=8",
    "tokenizer.width=16",
    "tokenizer.depth=1",
    "model.backbone.kwargs={embed_dim: 24, depth: 1, num_heads: 3}",
    "model.dim=16",
    "model.heads=2",
    "model.head_dim=16",
    "model.synth_layers=1",
    "model.synth_ffn=32",
    "model.pose2d_width=16",
    "tokenizer_training.optim={steps: 12, batch: 16, lr: 3.0e-3, log_every: 2, checkpoint_every: 4}",
    "training.optim={steps: 12, batch: 8, lr: 2.0e-3, weight_decay: 1.0e-4, log_every: 2, checkpoint_every: 4}",
    "engine.workers=1",
)


def small_recipe(*overrides: str) -> Recipe:
    """Every part of the method, a few hundred times smaller than `tiny`."""
    return load_recipe("tiny", [*SMALL, *overrides])


def new_tokenizer(recipe: Recipe) -> VQMano:
    """An untrained, frozen tokenizer whose codes are outputs of its encoder; the same for any number of ranks."""
    torch.manual_seed(0)
    tokenizer = VQMano(recipe.tokenizer).freeze()
    with torch.no_grad():
        outputs = tokenizer._embed(_rotmats(64, step=0)).flatten(0, 1)
    tokenizer.codebook.copy_(outputs[:: len(outputs) // tokenizer.codebook_size][: tokenizer.codebook_size])
    return tokenizer


class FolderStore:
    """Checkpoints of a single process, a folder each."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)

    def save(self, step: int, write: Callable[[Path], None], error_mm: float | None = None) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        write(self._root / f"step-{step:09d}")

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        yield max(self._root.glob("step-*"), default=None)


def untimed(rows: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
    """Reported metrics without those of the clock."""
    clock = ("train/samples_per_s", "time/")
    return {step: {k: v for k, v in row.items() if not k.startswith(clock)} for step, row in rows.items()}


def poses(recipe: Recipe, rank: int = 0, world: int = 1) -> Callable[[int], Iterator[Tensor]]:
    """A `PoseStream`: global batch of a step = f(step), of which this rank takes rank :: world."""

    def stream(first_step: int) -> Iterator[Tensor]:
        batch, step = recipe.tokenizer_training.optim.batch, first_step
        while True:
            yield _rotmats(batch, step)[rank::world]
            step += 1

    return stream


def batches(recipe: Recipe, rank: int = 0, world: int = 1) -> Callable[[int], Iterator[HandBatch]]:
    """A `BatchStream` of hands whose images are noise and whose 2D pose is their projection."""
    mano = ManoLayer.from_default()

    def stream(first_step: int) -> Iterator[HandBatch]:
        step = first_step
        while True:
            yield hand_batch(recipe, mano, recipe.training.optim.batch, step)[slice(rank, None, world)]
            step += 1

    return stream


def held_out_hands(recipe: Recipe, rank: int = 0, world: int = 1) -> HeldOutHands:
    """Four batches of six hands that no `BatchStream` has, of which this rank has rank :: world."""
    mano = ManoLayer.from_default()
    hands = [hand_batch(recipe, mano, 6, 10_000 + k) for k in range(4)]
    unreadable, fingertips = torch.zeros(6, dtype=torch.bool), (None,) * 6
    batches = [HeldOutBatch(batch, ground_truth(batch, [], mano), unreadable, fingertips) for batch in hands]
    return HeldOutHands(tuple(batches[rank::world]))


def hand_batch(recipe: Recipe, mano: ManoLayer, size: int, step: int) -> HandBatch:
    generator = torch.Generator().manual_seed(1000 + step)
    rotmats = _rotmats(size, step)
    betas = torch.randn(size, 10, generator=generator) * 0.3
    joints_m = mano(rotmats, betas).joints_m
    joints_m = joints_m - joints_m[:, :1]
    joints_2d = joints_m[..., :2] * 3.0
    side = recipe.data.crop_px
    return HandBatch(
        pixels=torch.randint(256, (size, side, side * 3 // 4, 4), generator=generator).byte(),
        color_gain=torch.ones(size, 3),
        keypoints_2d=torch.cat((joints_2d, torch.ones(size, 21, 1), joints_m[..., 2:] * 3.0, joints_m), -1),
        joints_2d=joints_2d,
        joints_2d_conf=torch.ones(size, 21),
        joints_3d_m=joints_m,
        joints_3d_valid=torch.ones(size, 21),
        rotmats=rotmats,
        betas=betas,
        has_mano=torch.ones(size),
        crop_from_image=torch.eye(3, dtype=torch.float64)[:2].repeat(size, 1, 1),
        is_left=torch.zeros(size, dtype=torch.bool),
        image_size_px=torch.full((size, 2), side),
        index=torch.full((size,), -1),
        text_ids=torch.zeros(size, 0, dtype=torch.int64),
    )


def _rotmats(size: int, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    curl = torch.rand(size, 1, 1, generator=generator) * torch.tensor([0.0, 0.0, 1.2])
    return axis_angle_to_matrix(curl + 0.2 * torch.randn(size, 16, 3, generator=generator))
