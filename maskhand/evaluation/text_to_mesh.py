"""Hands generated from a text against held-out hands that are called so (the paper's Table 6).

For every held-out image one hand is generated from its caption (and its 2D pose, if the network has tokens for it).
Each is compared with two pseudo ground truths of the same caption: the nearest one, and the *paired* one, that of the
image itself, which for a network without 2D pose is a random one. The paper says neither which of them it took nor
whether meshes were aligned. Here all three figures are of Procrustes-aligned meshes, so that turn and size do not
count: a Chamfer distance of 9.7e-5 m2 (7 mm each way) beside a PA-MPVPE of 12.2 mm
speaks for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from maskhand.config import Recipe
from maskhand.evaluation.metrics.alignment import distances, procrustes_align
from maskhand.evaluation.metrics.generation import chamfer, hausdorff
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.loading.labels import good_target
from maskhand.loading.loader import eval_range
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.sampling import predict
from maskhand.sample import HandPose
from maskhand.shards.reader import ShardSet
from maskhand.text import caption_of

Array = np.ndarray

PER_CAPTION = 100
"""Held-out hands of one caption that are compared, at most: every generated hand meets every one of them."""


@dataclass(frozen=True)
class Called:
    """Hands of one caption, row by row of one held-out image each."""

    generated_m: Array
    """(N, 778, 3) float64."""
    truth_m: Array
    """(N, 778, 3) pseudo ground truth."""


@torch.inference_mode()
def generated_by_caption(
    model: MaskedTransformer, recipe: Recipe, set_uri: str, progress: Callable[[int, int, str], None] | None = None
) -> dict[str, Called]:
    """Generate a hand for each held-out image; by caption. Images without a usable pseudo ground truth are skipped.

    Raises ValueError when there is none at all.
    """
    if recipe.data.caption is None:
        raise ValueError("data.caption is null; text to mesh needs what the images are called")
    device = model.mano.weights.device
    generator = torch.Generator(device).manual_seed(recipe.seed)
    found: dict[str, list[tuple[Array, Array]]] = {}
    total = len(ShardSet.open(set_uri))
    for rows in eval_range(recipe, set_uri, 0, total, recipe.evaluate.batch):
        captions = [caption_of(recipe.data.caption, r.sample.origin, r.sample.key) for r in rows.samples]
        wanted: list[tuple[int, HandPose]] = []
        for k, (caption, row) in enumerate(zip(captions, rows.samples, strict=True)):
            target = good_target(row.mano_target())
            pairs = found.setdefault(caption, [])
            if target is not None and len(pairs) + sum(captions[other] == caption for other, _ in wanted) < PER_CAPTION:
                wanted.append((k, target.pose))
        if not wanted:
            continue
        pose, betas = (
            torch.from_numpy(np.stack(values)).to(device)
            for values in zip(*((target.pose_aa, target.betas) for _, target in wanted), strict=True)
        )
        truth = model.mano(axis_angle_to_matrix(pose), betas).vertices_m.cpu().double().numpy()
        hands = rows.hands[torch.tensor([k for k, _ in wanted])].to(device)
        made = predict(model, hands, recipe.sampler, generator).vertices_m.cpu().double().numpy()
        for (k, _), ours, theirs in zip(wanted, made, truth, strict=True):
            found[captions[k]].append((ours, theirs))
        if progress:
            progress(sum(map(len, found.values())), 0, "hands from text")
    called = {c: Called(*(np.stack(side) for side in zip(*pairs, strict=True))) for c, pairs in found.items() if pairs}
    if not called:
        raise ValueError(f"{set_uri}: no image with a caption and a usable mano target; `maskhand annotate mano` it")
    return called


def text_to_mesh(called: dict[str, Called]) -> dict[str, float]:
    """Mean and standard deviation over all generated hands: `hausdorff_m`, `chamfer_m2`, `pa_mpvpe_mm` against the
    nearest pseudo ground truth of the caption (the least PA-MPVPE), and `paired_...` against the image's own."""
    nearest = [_figures(c.generated_m, c.truth_m[_nearest(c.generated_m, c.truth_m)]) for c in called.values()]
    paired = [_figures(c.generated_m, c.truth_m) for c in called.values()]
    values: dict[str, float] = {}
    for prefix, parts in (("", nearest), ("paired_", paired)):
        for name in parts[0]:
            column = np.concatenate([part[name] for part in parts])
            metric, unit = name.rsplit("_", 1)
            values[f"{prefix}{name}"] = float(column.mean())
            values[f"{prefix}{metric}_std_{unit}"] = float(column.std())
    return values


def _nearest(points: Array, targets: Array) -> Array:
    """(N, V, 3), (M, V, 3) -> (N,): for each the target with the least mean distance after alignment."""
    return np.array([_pa_distance(np.broadcast_to(p, targets.shape).copy(), targets).argmin() for p in points])


def _pa_distance(points: Array, targets: Array) -> Array:
    return np.asarray(distances(procrustes_align(points, targets, reflection=False), targets).mean(1))


def _figures(points: Array, targets: Array) -> dict[str, Array]:
    aligned = procrustes_align(points, targets, reflection=False)
    return {
        "hausdorff_m": hausdorff(aligned, targets),
        "chamfer_m2": chamfer(aligned, targets),
        "pa_mpvpe_mm": 1e3 * distances(aligned, targets).mean(1),
    }
