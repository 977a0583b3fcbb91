"""PCK of a model's 2D joints on a shard set, on pictures as they are or with most of the hand blacked out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from maskhand.batch import HandBatch
from maskhand.config import Recipe
from maskhand.evaluation.metrics.pck import CorrectKeypoints
from maskhand.loading.crop import NETWORK_ASPECT
from maskhand.loading.loader import eval_range
from maskhand.models.network import HandNetwork
from maskhand.models.sampling import predict
from maskhand.progress import Progress, silent
from maskhand.shards.layout import IMAGES
from maskhand.shards.manifest import read_manifest
from maskhand.shards.reader import ShardSample

GRID = 8
"""Cells per side of the hand's box that are blacked out or kept as a whole."""


def model_pck(
    model: HandNetwork, recipe: Recipe, set_uri: str, mask: float = 0.0, progress: Progress = silent
) -> dict[str, float]:
    """`pck_005`, `pck_010`, `pck_015` in percent of the annotated joints (HaMeR's rule, see `metrics.pck`).

    mask: share of the cells of each hand's box that is blacked out; then the 2D pose is withheld too, since it was
    detected on the whole picture. Sizes are the longer sides of the annotated boxes.
    """
    settings = recipe
    if mask:
        keypoints = recipe.data.keypoints.model_copy(update={"eval_source": "none"})
        settings = recipe.model_copy(update={"data": recipe.data.model_copy(update={"keypoints": keypoints})})
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(recipe.seed)
    total: CorrectKeypoints | None = None
    seen = 0
    count = read_manifest(set_uri, IMAGES).count
    for part in eval_range(settings, set_uri, 0, count, recipe.evaluate.batch):
        hands, rows = part.hands, part.samples
        side = recipe.data.crop_px * np.abs(np.linalg.det(hands.crop_from_image[:, :, :2].numpy())) ** -0.5
        boxes = np.stack([row.sample.box_xyxy_px for row in rows]).astype(np.float64)
        size_crop = (boxes[:, 2:] - boxes[:, :2]) / side[:, None]
        if mask:
            hands = replace(hands, pixels=_blacked_out(hands, size_crop, rows, mask, recipe.seed))
        points = predict(model, hands.to(device), recipe.sampler, generator).joints_2d.cpu().numpy()
        found = CorrectKeypoints.of(points, hands.joints_2d.numpy(), hands.joints_2d_conf.numpy(), size_crop.max(1))
        total = found if total is None else total + found
        seen += len(rows)
        progress(seen, count, f"{seen} hands")
    if total is None:
        raise ValueError(f"{set_uri}: the set holds no samples")
    return dict(zip(("pck_005", "pck_010", "pck_015"), (100 * share for share in total.pck), strict=True))


def hidden_cells(share: float, index: int, seed: int) -> np.ndarray:
    """(GRID, GRID) bool: the cells of the box that sample `index` of a set loses, rounded to whole cells."""
    cells = GRID * GRID
    order = np.random.default_rng([seed, index]).permutation(cells)
    return (order < round(share * cells)).reshape(GRID, GRID)


def _blacked_out(
    hands: HandBatch, size_crop: np.ndarray, rows: Sequence[ShardSample], share: float, seed: int
) -> torch.Tensor:
    """(B, H, W, 4) the pictures with hidden cells in black; boxes stand in the middle of their crops."""
    pixels = hands.pixels.clone()
    height, width = pixels.shape[1:3]
    # Pixel centres in crop coordinates; the network sees the central columns of the square.
    y = (np.arange(height) + 0.5) / height - 0.5
    x = ((np.arange(width) + 0.5) / width - 0.5) * NETWORK_ASPECT
    for k, row in enumerate(rows):
        column = np.floor((x / size_crop[k, 0] + 0.5) * GRID).astype(int)
        line = np.floor((y / size_crop[k, 1] + 0.5) * GRID).astype(int)
        inside = ((line >= 0) & (line < GRID))[:, None] & ((column >= 0) & (column < GRID))[None]
        hidden = hidden_cells(share, row.index, seed)[line.clip(0, GRID - 1)[:, None], column.clip(0, GRID - 1)[None]]
        pixels[k, torch.from_numpy(inside & hidden)] = 0
    return pixels
