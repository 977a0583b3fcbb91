"""The held-out hands of the training sets (`data.held_out`), and a network's errors on them while it is trained.

Evaluation sets are never looked at. The numbers are those of `runner.evaluate` on the same hands, for one estimator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from maskhand.batch import HandBatch
from maskhand.config import Recipe, SamplerConfig
from maskhand.conventions import NUM_JOINTS, Side
from maskhand.evaluation.placed import with_fingertips
from maskhand.evaluation.truth import Truth, ground_truth
from maskhand.hand.layer import ManoLayer
from maskhand.loading.labels import stack_labels
from maskhand.loading.loader import held_out_rows
from maskhand.metrics.accumulate import Means
from maskhand.metrics.samples import MIN_ALIGNED, pa_joint_errors, pa_mpjpe
from maskhand.models.network import HandNetwork
from maskhand.models.sampling import predict
from maskhand.shards.mixture import held_out_places
from maskhand.shards.reader import ShardSet

ESTIMATOR = SamplerConfig(iterations=1, temperature=0.0, decode="expectation")
"""One pass, nothing drawn: quick, without noise, and the estimator that calibrations select. The recipe's sampler would
make the trained weights depend on it, which is an inference setting."""
BATCH = 25
"""Fixed for the same reason, and small: whole batches are shared among ranks."""


@dataclass(frozen=True)
class TrainingSet:
    """A training set whose held-out hands are looked at."""

    name: str
    uri: str
    weight: float
    fingertip_vertices: Mapping[Side, str | None]
    """Which ones its annotation uses, as in `runner.evaluate`."""


def hands_per_set(sets: Sequence[TrainingSet], most: int) -> list[int]:
    """How many held-out hands of each set are looked at, by weight; about `most` in all, at least one of each."""
    total = sum(one.weight for one in sets)
    return [max(1, round(most * one.weight / total)) for one in sets]


def has_joints(recipe: Recipe, sets: Sequence[TrainingSet], most: int) -> bool:
    """Has any of the hands that `HeldOutHands.read` would give enough 3D joints for an error of theirs?

    Reads labels up to the first one that has. Raises ShardError.
    """
    for one, count in zip(sets, hands_per_set(sets, most), strict=True):
        shard_set = ShardSet.open(one.uri)
        places = held_out_places(len(shard_set), recipe.data.held_out)[:count]
        for row in shard_set.at(places.tolist()):
            if stack_labels([row.sample], [None], [None]).joints_3d_valid.sum() >= MIN_ALIGNED:
                return True
    return False


@dataclass(frozen=True)
class HeldOutBatch:
    """B hands with their truth, on the CPU."""

    hands: HandBatch
    truth: Truth
    unreadable: Tensor
    """(B,) bool."""
    fingertips: tuple[str | None, ...]


@dataclass(frozen=True)
class HeldOutHands:
    """A rank's share of the held-out hands, read once; whole batches, the same ones for any number of ranks."""

    batches: tuple[HeldOutBatch, ...]

    @classmethod
    def read(
        cls, recipe: Recipe, sets: Sequence[TrainingSet], mano: ManoLayer, most: int, rank: int = 0, world: int = 1
    ) -> Self:
        """The batches of this rank, of about `most` hands over all sets. Raises ShardError."""
        return cls(tuple(_batches(recipe, sets, mano, most, rank, world)))

    def sums(self, model: HandNetwork) -> Tensor:
        """(4, 22) float64, to be added over ranks: count and sums (`Means`) of the aligned errors of 21 joints and a
        mesh, in meters. `model` is in evaluation mode; its tolerance of 2D poses is not applied, so that the choice of
        the exported step depends on no inference setting."""
        total = Means.of(torch.zeros(0, NUM_JOINTS + 1).numpy())
        tolerance, model.pose2d_tolerance = model.pose2d_tolerance, None
        try:
            for batch in self.batches:
                total += Means.of(_aligned_errors_m(batch, model).numpy())
        finally:
            model.pose2d_tolerance = tolerance
        return torch.cat([torch.from_numpy(total.count).double()[None], torch.from_numpy(total.sums)])


def validation_metrics(sums: Tensor) -> dict[str, float]:
    """The metrics of sums (4, 22) over all ranks; NaN where no hand has 3D joints, or a mesh."""
    means = Means(sums[0].long().numpy(), sums[1:].numpy())
    return {
        "val/pa_mpjpe_mm": 1e3 * Means(means.count[:NUM_JOINTS], means.sums[:, :NUM_JOINTS]).mean,
        "val/pa_mpvpe_mm": 1e3 * float(means.values[NUM_JOINTS]),
    }


def _batches(
    recipe: Recipe, sets: Sequence[TrainingSet], mano: ManoLayer, most: int, rank: int, world: int
) -> Iterator[HeldOutBatch]:
    for k, (one, count) in enumerate(zip(sets, hands_per_set(sets, most), strict=True)):
        # Each set's first batch goes to another rank: many sets have one only.
        for rows in held_out_rows(recipe, one.uri, BATCH, count, (rank - k) % world, world):
            truth = ground_truth(rows.hands, rows.samples, mano)
            fingertips = tuple(one.fingertip_vertices[row.sample.side] for row in rows.samples)
            yield HeldOutBatch(rows.hands, truth, torch.from_numpy(rows.unreadable), fingertips)


def _aligned_errors_m(batch: HeldOutBatch, model: HandNetwork) -> Tensor:
    """(B, 22) float64 meters, NaN where there is no truth; a hand that is not finite is scored as one shrunk to a
    point, as in an evaluation."""
    device = next(model.parameters()).device
    hand = predict(model, batch.hands.to(device), ESTIMATOR).to("cpu", non_blocking=False)
    usable = (hand.is_finite & ~batch.unreadable)[:, None, None]
    vertices = hand.vertices_m.where(usable, 0.0)
    joints = with_fingertips(hand.joints_m.where(usable, 0.0), vertices, batch.fingertips)
    truth, wrist = batch.truth, joints[:, :1]
    of_joints = pa_joint_errors(
        (joints - wrist).double().numpy(), truth.joints_m.double().numpy(), truth.joints_valid.numpy()
    )
    of_mesh = torch.full((len(vertices), 1), torch.nan, dtype=torch.float64)
    meshes = ((vertices - wrist)[truth.has_mesh], truth.vertices_m[truth.has_mesh])
    of_mesh[truth.has_mesh, 0] = torch.from_numpy(pa_mpjpe(*(mesh.double().numpy() for mesh in meshes)))
    return torch.cat((torch.from_numpy(of_joints), of_mesh), 1)
