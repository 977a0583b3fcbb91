"""Hands generated from a text against held-out hands of that caption (the paper's Table 6).

For every held-out image one hand is generated from its caption (and its 2D pose, if the network has tokens for it).
Each is compared with two pseudo ground truths of the same caption: the nearest one, and the *paired* one, that of the
image itself, which for a network without 2D pose is a random one. The paper says neither which of them it took nor
whether meshes were aligned. Here all three figures are of Procrustes-aligned meshes, so that turn and size do not
count: a Chamfer distance of 9.7e-5 m2 (7 mm each way) beside a PA-MPVPE of 12.2 mm
speaks for that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from maskhand.arrays import Array
from maskhand.config import Recipe
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.loading.labels import good_target
from maskhand.loading.loader import eval_range
from maskhand.metrics.alignment import procrustes_align
from maskhand.metrics.generation import chamfer, hausdorff
from maskhand.metrics.samples import mpjpe, pa_mpjpe
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.sampling import predict
from maskhand.paper.measures.request import Request
from maskhand.progress import Progress, silent
from maskhand.sample import HandPose
from maskhand.shards.reader import ShardSet
from maskhand.text import caption_of

PER_CAPTION = 100
"""Held-out hands of one caption that are compared, at most: every generated hand meets every one of them."""


@dataclass(frozen=True)
class CaptionHands:
    """Hands of one caption, row by row of one held-out image each."""

    generated_m: Array
    """(N, 778, 3) float64."""
    truth_m: Array
    """(N, 778, 3) pseudo ground truth."""


@torch.inference_mode()
def generated_by_caption(
    model: MaskedTransformer, recipe: Recipe, set_uri: str, progress: Progress = silent
) -> dict[str, CaptionHands]:
    """Generate a hand for each held-out image; by caption. Images without a usable pseudo ground truth are skipped.

    Raises ValueError when there is none at all.
    """
    if recipe.data.caption is None:
        raise ValueError("data.caption is null; text to mesh needs the images' captions")
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
        progress(sum(map(len, found.values())), 0, "hands from text")
    hands_of = {
        caption: CaptionHands(*(np.stack(side) for side in zip(*pairs, strict=True)))
        for caption, pairs in found.items()
        if pairs
    }
    if not hands_of:
        raise ValueError(f"{set_uri}: no image with a caption and a usable mano target; `maskhand annotate mano` it")
    return hands_of


def measure_text_to_mesh(request: Request) -> dict[str, float]:
    """Of the row's trained model on its set."""
    hands = generated_by_caption(request.transformer(), request.recipe, request.set_uri, request.progress)
    return text_to_mesh(hands)


def text_to_mesh(hands_of: dict[str, CaptionHands]) -> dict[str, float]:
    """Mean and standard deviation over all generated hands: `hausdorff_m`, `chamfer_m2`, `pa_mpvpe_mm` against the
    nearest pseudo ground truth of the caption (the least PA-MPVPE), and `paired_...` against the image's own."""
    nearest = [_shape_errors(c.generated_m, c.truth_m[_nearest(c.generated_m, c.truth_m)]) for c in hands_of.values()]
    paired = [_shape_errors(c.generated_m, c.truth_m) for c in hands_of.values()]
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
    alike = (np.broadcast_to(mesh, targets.shape).copy() for mesh in points)
    return np.array([pa_mpjpe(mesh, targets, reflection=False).argmin() for mesh in alike])


def _shape_errors(points: Array, targets: Array) -> dict[str, Array]:
    aligned = procrustes_align(points, targets, reflection=False)
    return {
        "hausdorff_m": hausdorff(aligned, targets),
        "chamfer_m2": chamfer(aligned, targets),
        "pa_mpvpe_mm": 1e3 * mpjpe(aligned, targets),
    }
