"""Costs of this machine's training, and whether `capacity.py` predicts from them what a training really takes.

    python benchmarks/capacity_check.py SHARDS [--recipe tiny] [--steps 12]    # SHARDS: as the quickstart leaves them

Measured alone: the loader; the step, with DeepSpeed, at the whole batch and at half of it; the collectives of one step
between two processes. Measured whole: steps that load and train, in one process and in two. All in seconds of CPU time
of a process, candidates taking turns, so that other programs matter little; a process that waits for another takes
none, so that the slower of the two counts. Ray is not part of it: between two reports it does nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch
from capacity import Cluster, Costs, Plan, simulate
from measure import machine
from torch import distributed, multiprocessing

from maskhand.config import Recipe
from maskhand.hand.layer import ManoLayer
from maskhand.loading.loader import train_batches
from maskhand.models.build import build_model
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import load_recipe
from maskhand.training.engine import Engine, start_engine
from maskhand.training.transformer_loop import TransformerObjective


def engine_of(recipe: Recipe, device: str = "cpu") -> Engine:
    """A network with a random tokenizer in training; its weights do not change the work."""
    torch.manual_seed(0)
    tokenizer = VQMano(recipe.tokenizer)
    tokenizer.codebook.normal_()
    model = build_model(recipe, tokenizer, ManoLayer.from_default(), pretrained_backbone=False).to(device).train()
    optim = recipe.training.optim
    groups = model.parameter_groups(optim.lr, optim.lr_backbone, optim.weight_decay)
    return start_engine(TransformerObjective(model, recipe), groups, optim, recipe.engine)


def cpu_s(steps: dict[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """Median CPU seconds of each candidate, taking turns, after a turn to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if turn:
                taken[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def one_worker(recipe: Recipe, shards: str, turns: int) -> tuple[Costs, float]:
    """The costs, without those of collectives, and the seconds of a whole step."""
    batch = recipe.training.optim.batch
    engine, stream = engine_of(recipe), train_batches(recipe, shards)
    slots, ready = torch.arange(batch), next(stream)
    half = ready[::2]

    def whole() -> None:
        engine.step(0, next(stream), slots, 0)

    taken = cpu_s(
        {
            "load": lambda: next(stream),
            "step": lambda: engine.step(0, ready, slots, 0),
            "half": lambda: engine.step(0, half, slots[::2], 0),
            "whole": whole,
        },
        turns,
    )
    sample_s = 2 * (taken["step"] - taken["half"]) / batch
    weights = sum(p.numel() for p in engine.objective.parameters() if p.requires_grad)
    costs = Costs(
        loader_ms=1e3 * taken["load"] / batch,
        sample_ms=1e3 * sample_s,
        step_ms=1e3 * (taken["step"] - batch * sample_s),
        host_ms=0.0,
        sent_mb=8e-6 * weights,
    )
    return costs, taken["whole"]


def of_two_workers(rank: int, recipe: Recipe, shards: str, turns: int, folder: str) -> None:
    """One of two processes: its CPU seconds of a step's collectives and of a whole step."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    engine, stream = engine_of(recipe), train_batches(recipe, shards, rank=rank, world=2)
    weights = torch.zeros(sum(p.numel() for p in engine.objective.parameters() if p.requires_grad))
    parts = [torch.empty(len(weights) // 2) for _ in range(2)]
    slots = torch.arange(rank, recipe.training.optim.batch, 2)

    def exchange() -> None:
        distributed.all_reduce(weights)
        distributed.all_gather(parts, weights[: len(weights) // 2])

    taken = cpu_s({"exchange": exchange, "whole": lambda: engine.step(0, next(stream), slots, 0)}, turns)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", help="folder that holds the shard sets of the recipe")
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--steps", type=int, default=12, help="turns of each candidate")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    recipe = load_recipe(options.recipe, ["data.loader_workers=0"])
    batch = recipe.training.optim.batch
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(of_two_workers, (recipe, options.shards, options.steps, folder), nprocs=2)
        ranks = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(2)]
    costs, one_s = one_worker(recipe, options.shards, options.steps)
    link = costs.sent_mb / 2e3 / max(rank["exchange"] for rank in ranks)  # two workers send half of it each
    print(f"recipe {recipe.name}, batch {batch}; {machine()}, {os.cpu_count()} hardware threads; CPU time")
    print(
        f"loader {costs.loader_ms:.3f} ms a sample; step {costs.step_ms:.1f} ms + {costs.sample_ms:.2f} ms a sample; "
        f"collectives of two workers {1e3 * max(rank['exchange'] for rank in ranks):.1f} ms a step"
    )
    for workers, step_s in ((1, one_s), (2, max(rank["whole"] for rank in ranks))):
        cluster = Cluster(
            workers, workers_per_node=2, cores_per_worker=1, link_gb_s=link, node_gb_s=link, read_mb_s=1e9
        )
        plan = Plan(batch=batch, loader_workers=0, kb_per_sample=0.0, jitter=0.0)
        predicted, seen = simulate(costs, cluster, plan).samples_per_s, batch / step_s
        print(
            f"{workers} workers: predicted {predicted:.1f} samples/s, measured {seen:.1f}: {predicted / seen - 1:+.0%}"
        )


if __name__ == "__main__":
    main()
