"""Seconds per image (the paper's AITI, Table 5): from one crop and its 2D pose to vertices, weights fresh."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from maskhand.batch import POSE_CHANNELS
from maskhand.config import Recipe
from maskhand.conventions import NUM_JOINTS
from maskhand.device import accelerator
from maskhand.hand.layer import ManoLayer
from maskhand.models.build import build_model
from maskhand.models.sampling import sample
from maskhand.models.vq_mano import VQMano
from maskhand.paper.measures.request import Request
from maskhand.progress import Progress

WARMUP = 2
REPEATS = 10

_TIMED: dict[tuple[str, tuple[int, ...]], dict[int, float]] = {}
"""(digest of the recipe at one iteration, iterations) -> what this process measured."""


def seconds_per_image(recipe: Recipe, iterations: Sequence[int], progress: Progress) -> dict[int, float]:
    """Number of iterations -> median over 10 predictions of one image after 2 for warming up.

    The numbers take turns, so that a busy machine slows all of them alike; further calls in this process, as for the
    next row of a table, return the same measurement. Weights are random, they do not change the work; detector and
    cropping are not included. Precision is that of predictions and evaluations, fp32 on a GPU too. With one thread on a
    CPU the process's own seconds count, so other programs do not; with several the clock's, because threads that wait
    for each other spin.
    """
    key = (_at(recipe, 1).digest(), tuple(iterations))
    if key not in _TIMED:
        _TIMED[key] = _in_turns(recipe, iterations, progress)
    return _TIMED[key]


def measure_seconds(request: Request) -> dict[str, float]:
    """At the number of iterations of the row's recipe."""
    seconds = seconds_per_image(request.recipe, request.timed_iterations, request.progress)
    return {"seconds_per_image": seconds[request.recipe.sampler.iterations]}


def _in_turns(recipe: Recipe, iterations: Sequence[int], progress: Progress) -> dict[int, float]:
    total = (WARMUP + REPEATS) * len(iterations)
    progress(0, total, "building the network")
    torch.manual_seed(recipe.seed)
    tokenizer = VQMano(recipe.tokenizer)
    tokenizer.codebook.normal_()
    place = accelerator()
    model = build_model(recipe, tokenizer, ManoLayer.from_default(), pretrained_backbone=False).to(place).eval()
    image = torch.randn(1, 3, *recipe.data.image_size_px, device=place)
    keypoints = torch.rand(1, NUM_JOINTS, POSE_CHANNELS, device=place)
    generator = torch.Generator(place).manual_seed(recipe.seed)
    on_gpu = place.type == "cuda"
    clock = time.perf_counter if on_gpu or torch.get_num_threads() > 1 else time.process_time
    taken: dict[int, list[float]] = {count: [] for count in iterations}
    for turn in range(WARMUP + REPEATS):
        for place_in_turn, (count, times) in enumerate(taken.items(), 1):
            start_s = clock()
            with torch.inference_mode():
                sample(model, model.encode(image, keypoints), _at(recipe, count).sampler, generator)
            if on_gpu:
                torch.cuda.synchronize()
            times.append(clock() - start_s)
            text = "warming up" if turn < WARMUP else f"T = {count}: {times[-1]:.3g} s"
            progress(turn * len(iterations) + place_in_turn, total, text)
    return {count: statistics.median(times[WARMUP:]) for count, times in taken.items()}


def _at(recipe: Recipe, iterations: int) -> Recipe:
    sampler = recipe.sampler.model_copy(update={"iterations": iterations})
    return recipe.model_copy(update={"sampler": sampler})
