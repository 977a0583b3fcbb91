"""Evaluate a model on a shard set: every sample exactly once, at several numbers of sampling iterations.

The picture is encoded once; each T decodes from the same context. Left hands enter the model mirrored, so predictions
and ground truth are compared as right hands: a mirror changes no distance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from maskhand.batch import HandBatch, HandPrediction
from maskhand.config import Recipe
from maskhand.conventions import FINGERTIP_VERTICES, MIRROR_POINT
from maskhand.evaluation.mean_pose import MeanPose
from maskhand.evaluation.metrics.samples import SampleErrors, sample_errors
from maskhand.evaluation.result import MEAN_POSE, EvaluationResult, EvaluationRow
from maskhand.hand.layer import ManoLayer
from maskhand.loading.loader import eval_samples
from maskhand.models.bundle import ModelBundle
from maskhand.models.sampling import sample
from maskhand.progress import Progress, silent
from maskhand.shards.layout import IMAGES
from maskhand.shards.manifest import read_manifest
from maskhand.shards.reader import ShardSample

_TIPS = [4, 8, 12, 16, 20]


class EvaluationError(RuntimeError):
    """An evaluation that did not see every sample exactly once, or has no ground truth to compare with."""


@dataclass(frozen=True)
class Truth:
    """Ground truth of B hands as right hands, metres, camera axes, relative to the wrist."""

    joints_m: Tensor
    """(B, 21, 3)."""
    joints_valid: Tensor
    """(B, 21) bool."""
    vertices_m: Tensor
    """(B, 778, 3)."""
    has_mesh: Tensor
    """(B,) bool."""


def evaluate(
    bundle: ModelBundle,
    set_uri: str,
    recipe: Recipe | None = None,
    *,
    iterations: Sequence[int] | None = None,
    baseline: MeanPose | None = None,
    tips: str | None = None,
    batch: int | None = None,
    progress: Progress = silent,
) -> EvaluationResult:
    """Measure a model, and the mean pose beside it.

    recipe: other data or sampler settings than the bundle's own; iterations: default the recipe's; tips: whose
    fingertip vertices the set's annotation uses (a key of FINGERTIP_VERTICES; None: the model's own tips). Raises
    EvaluationError when the set has no 3D ground truth or a sample was seen twice or never, ShardError when the set is
    missing or damaged.
    """
    settings = recipe or bundle.recipe
    iterations = settings.evaluate.iterations if iterations is None else iterations
    samplers = {f"T={t}": settings.sampler.model_copy(update={"iterations": t}) for t in iterations}
    manifest = read_manifest(set_uri, IMAGES)
    model, mano = bundle.model, bundle.model.mano
    device = next(model.parameters()).device
    parts: dict[str, list[_Table]] = defaultdict(list)
    generator = torch.Generator(device).manual_seed(settings.seed)
    done = 0
    for hands, rows in _real_rows(settings, set_uri, batch):
        truth = ground_truth(hands, rows, mano)
        on_device = hands.to(device)
        with torch.inference_mode():
            context = model.encode_image(on_device.image, on_device.keypoints_2d)
            for name, sampler in samplers.items():
                prediction = sample(model, context, sampler, generator).to("cpu")
                parts[name].append(_compare(prediction, truth, rows, tips))
            if baseline is not None:
                parts[MEAN_POSE].append(_compare(_always(baseline, mano, len(rows)), truth, rows, tips))
        done += len(rows)
        progress(done, manifest.count, f"{done} hands")
    tables = {name: _Table.concatenate(batches) for name, batches in parts.items()}
    if not tables:
        raise EvaluationError(f"{set_uri}: the set holds no samples")
    first = next(iter(tables.values()))
    _check_once(first, manifest.count, set_uri)
    if not first.has_joints.any() and not first.has_mesh.any():
        raise EvaluationError(f"{set_uri}: no sample has 3D joints or a mesh to compare with")
    return EvaluationResult(
        set_uri=set_uri,
        data_digest=manifest.digest,
        model_digest=bundle.digest,
        count=len(first.keys),
        with_joints=int(first.has_joints.sum()),
        with_mesh=int(first.has_mesh.sum()),
        rows=tuple(
            table.row(name, samplers[name].iterations if name in samplers else None) for name, table in tables.items()
        ),
        per_sample=pd.concat([table.frame(name) for name, table in tables.items()], ignore_index=True),
        facts=_facts(settings, mano, tips, baseline),
    )


def ground_truth(hands: HandBatch, rows: Sequence[ShardSample], mano: ManoLayer) -> Truth:
    """The annotated mesh where a sample has one, else the mesh of its MANO target, else none."""
    target = mano(hands.rotmats.to(mano.weights.device), hands.betas.to(mano.weights.device))
    vertices = (target.vertices_m - target.joints_m[:, :1]).cpu()
    has_mesh = hands.has_mano.bool().clone()
    for k, row in enumerate(rows):
        annotated, joints = row.sample.vertices_cam_m, row.sample.joints_cam_m
        if annotated is not None and joints is not None and hands.joints_3d_valid[k, 0] > 0:
            relative = (annotated - joints[0]) * (MIRROR_POINT if row.sample.side == "left" else 1.0)
            vertices[k], has_mesh[k] = torch.from_numpy(relative.astype(np.float32)), True
    return Truth(hands.joints_3d_m, hands.joints_3d_valid.bool(), vertices, has_mesh)


@dataclass(frozen=True)
class _Table:
    """One predictor's errors over N samples, with what identifies the samples."""

    errors: SampleErrors
    index: np.ndarray
    keys: list[str]
    sides: list[str]
    score: Tensor
    confidence: Tensor
    failed: Tensor
    has_joints: Tensor
    has_mesh: Tensor

    @classmethod
    def concatenate(cls, parts: list[_Table]) -> _Table:
        return cls(
            errors=SampleErrors.concatenate([p.errors for p in parts]),
            index=np.concatenate([p.index for p in parts]),
            keys=[key for p in parts for key in p.keys],
            sides=[side for p in parts for side in p.sides],
            **{
                name: torch.cat([getattr(p, name) for p in parts])
                for name in ("score", "confidence", "failed", "has_joints", "has_mesh")
            },
        )

    def row(self, name: str, iterations: int | None) -> EvaluationRow:
        metrics = self.errors.summary()
        if iterations is not None:
            error, score = self.errors.per_sample()["pa_mpjpe_mm"], self.score.numpy()
            known = np.isfinite(error) & np.isfinite(score)
            varied = known.sum() > 2 and np.ptp(score[known]) > 0
            metrics["score_rank_correlation"] = float(spearmanr(score[known], -error[known])[0]) if varied else np.nan
        return EvaluationRow(name, iterations, metrics, int(self.failed.sum()))

    def frame(self, name: str) -> pd.DataFrame:
        columns: dict[str, Any] = {
            "predictor": [name] * len(self.keys),
            "index": self.index,
            "key": self.keys,
            "side": self.sides,
            "score": self.score.numpy(),
            "mean_confidence": self.confidence.numpy(),
            "failed": self.failed.numpy(),
        }
        return pd.DataFrame(columns | self.errors.per_sample())


@dataclass(frozen=True)
class _Points:
    """A prediction as far as errors need it."""

    vertices_m: Tensor
    joints_m: Tensor
    score: Tensor
    joint_confidence: Tensor


def _always(mean: MeanPose, mano: ManoLayer, count: int) -> _Points:
    device = mano.weights.device
    rotmats = torch.as_tensor(mean.rotmats, dtype=torch.float32, device=device)[None]
    mesh = mano(rotmats, torch.as_tensor(mean.betas, dtype=torch.float32, device=device)[None])
    nan = torch.full((count,), torch.nan)
    vertices, joints = (x.cpu().expand(count, -1, -1) for x in (mesh.vertices_m, mesh.joints_m))
    return _Points(vertices, joints, nan, nan[:, None].expand(count, 16))


def _compare(guess: HandPrediction | _Points, truth: Truth, rows: Sequence[ShardSample], tips: str | None) -> _Table:
    finite = guess.vertices_m.isfinite().all(-1).all(-1) & guess.joints_m.isfinite().all(-1).all(-1)
    usable = finite[:, None, None]
    vertices, joints = guess.vertices_m.where(usable, 0.0), guess.joints_m.where(usable, 0.0).clone()
    if tips is not None:
        joints[:, _TIPS] = vertices[:, list(FINGERTIP_VERTICES[tips])]
    wrist = joints[:, :1]
    errors = sample_errors(
        joints - wrist, truth.joints_m, vertices - wrist, truth.vertices_m, truth.joints_valid, truth.has_mesh
    )
    return _Table(
        errors=errors,
        index=np.array([row.index for row in rows]),
        keys=[row.sample.key for row in rows],
        sides=[row.sample.side for row in rows],
        score=guess.score.double(),
        confidence=guess.joint_confidence.double().mean(1),
        failed=~finite,
        has_joints=truth.joints_valid.any(1),
        has_mesh=truth.has_mesh,
    )


def _real_rows(recipe: Recipe, set_uri: str, batch: int | None) -> Iterator[tuple[HandBatch, tuple[ShardSample, ...]]]:
    """Batches without their padding."""
    for hands, rows in eval_samples(recipe, set_uri, batch=batch):
        if rows:
            yield hands[: len(rows)], rows


def _check_once(table: _Table, count: int, set_uri: str) -> None:
    if not np.array_equal(np.sort(table.index), np.arange(count)):
        raise EvaluationError(f"{set_uri}: saw {len(table.index)} samples, not each of {count} exactly once")


def _facts(recipe: Recipe, mano: ManoLayer, tips: str | None, baseline: MeanPose | None) -> dict[str, Any]:
    return {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest(),
        "hand_digest": mano.digest,
        "keypoints": recipe.data.keypoints.eval_source,
        "detector": recipe.data.keypoints.detector,
        "decode": recipe.sampler.decode,
        "temperature": recipe.sampler.temperature,
        "fingertip_vertices": tips,
        "mean_pose_hands": None if baseline is None else baseline.count,
    }
