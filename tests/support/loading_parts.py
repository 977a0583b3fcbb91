"""Batches of rendered hands, and how to compare them."""

from __future__ import annotations

import dataclasses
import itertools

import torch

from maskhand.annotate.mano_targets import AnnotateMano
from maskhand.batch import HandBatch
from maskhand.config import Recipe
from maskhand.hand.model_file import default_hand_path
from maskhand.loading.augment import ImageAugmentation
from maskhand.loading.collate import make_batch
from maskhand.loading.labels import stack_labels
from maskhand.recipe_files import load_recipe
from maskhand.sample import HandSample
from maskhand.shards.reader import ShardSample

CROP = 128
HARD_PHOTOS = {
    "effect_probability": 0.5,
    "exposure": 0.5,
    "saturation": 0.5,
    "blur_px": 3.0,
    "shrink": 4.0,
    "noise": 20.0,
    "jpeg_quality": 20,
    "grayscale_probability": 0.2,
    "occlude_probability": 0.4,
    "edge_probability": 0.3,
}
"""Keys of `data.augment`: every effect of a photo."""


def tiny(*overrides: str) -> Recipe:
    return load_recipe(
        "tiny", ["data.keypoints.train_source=annotated", "data.keypoints.eval_source=annotated", *overrides]
    )


def batch_of(samples: list[HandSample], augmentation: ImageAugmentation | None = None, **kwargs) -> HandBatch:
    rows = [ShardSample(s, k, {}) for k, s in enumerate(samples)]
    mano = AnnotateMano(str(default_hand_path("right")), "smplx", 10.0)(rows)
    labels = stack_labels(samples, [None] * len(samples), mano)
    settings = {"crop_px": CROP, "box_scale": 1.2, "keypoints": "annotated"} | kwargs
    return make_batch(labels, [s.image for s in samples], augmentation=augmentation, **settings)


def same(a: HandBatch, b: HandBatch, tolerance: float | None = None) -> bool:
    def equal(x: torch.Tensor, y: torch.Tensor) -> bool:
        if tolerance is None or not x.is_floating_point():
            return torch.equal(x, y)
        return x.shape == y.shape and torch.allclose(x, y, atol=tolerance)

    return all(equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def interleave(parts: list[HandBatch]) -> HandBatch:
    """The global batch of which part r holds rows r::world."""
    merged = {
        f.name: torch.stack([getattr(p, f.name) for p in parts], 1).flatten(0, 1) for f in dataclasses.fields(parts[0])
    }
    return HandBatch(**merged)


def take(batches, count: int) -> list[HandBatch]:
    return list(itertools.islice(batches, count))
