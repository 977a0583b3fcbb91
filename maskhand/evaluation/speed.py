"""Seconds per picture (the paper's AITI, Table 5): from one crop and its 2D pose to vertices, weights fresh."""

from __future__ import annotations

import statistics
import time

import torch

from maskhand.config import Recipe
from maskhand.device import accelerator
from maskhand.hand.layer import ManoLayer
from maskhand.models.build import build_model
from maskhand.models.sampling import sample
from maskhand.models.vq_mano import VQMano

WARMUP = 2
REPEATS = 10


def seconds_per_picture(recipe: Recipe) -> float:
    """Median over 10 predictions of one picture after 2 for warming up; on a GPU the encoder runs in bf16.

    Weights are random, they do not change the work; detector and cropping are not included.
    """
    torch.manual_seed(recipe.seed)
    tokenizer = VQMano(recipe.tokenizer)
    tokenizer.codebook.normal_()
    place = accelerator()
    model = build_model(recipe, tokenizer, ManoLayer.from_default(), pretrained_backbone=False).to(place).eval()
    image = torch.randn(1, 3, *model.encoder.image_size, device=place)
    keypoints = torch.rand(1, 21, 3, device=place)
    generator = torch.Generator(place).manual_seed(recipe.seed)
    on_gpu = place.type == "cuda"
    taken = []
    for _ in range(WARMUP + REPEATS):
        start_s = time.perf_counter()
        with torch.inference_mode(), torch.autocast(place.type, torch.bfloat16, enabled=on_gpu):
            sample(model, model.encode(image, keypoints), recipe.sampler, generator)
        if on_gpu:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start_s)
    return statistics.median(taken[WARMUP:])
