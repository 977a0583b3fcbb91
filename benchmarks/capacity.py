"""Size of a training: samples a second, hours and what bounds them, for any number of workers, simulated.

    python benchmarks/capacity.py [--workers 1 8 64] [--mfu 0.4] [--peak-tflops 989] [--node-gb-s 25] ...

A discrete simulation of loader processes, network and collectives (`simulate`), with costs per sample and per step that
were measured (`docs/performance.md`, `capacity_check.py`) or, for a GPU, are stated as assumptions: `--mfu` is to be
replaced by what `make gpu-report` prints. The schedule is the paper's, 200,000 steps of 48 samples, over the mixture of
ten datasets in `recipes/base.yaml`; where 48 does not divide, as many samples in larger batches.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

PREFETCH = 4
"""Batches that a loader process makes ahead (`loading/loader.py`)."""
STEPS = 300
"""Simulated steps; the first third, while queues fill, does not count."""


@dataclass(frozen=True)
class Costs:
    """Of one worker alone."""

    loader_ms: float
    """CPU time of a loaded sample."""
    sample_ms: float
    """Forward and backward pass of a sample on the worker's device."""
    step_ms: float
    """What a step takes of the device whatever its batch: the update of all weights."""
    host_ms: float
    """Time in which the host starts a step's operations; they run while it starts others."""
    sent_mb: float
    """Gradients and weights that collectives carry in a step; n workers send (n - 1) / n of it each."""
    update_shared: float = 0.0
    """The part of `step_ms` that ZeRO divides by the number of workers."""


@dataclass(frozen=True)
class Cluster:
    workers: int
    workers_per_node: int
    cores_per_worker: float
    """For the loader processes; the training process has another."""
    link_gb_s: float
    """Between workers of a node, each."""
    node_gb_s: float
    """Between nodes, each."""
    read_mb_s: float
    """Shards, per node."""


@dataclass(frozen=True)
class Plan:
    batch: int
    loader_workers: int
    """Per worker; 0: the training process loads."""
    kb_per_sample: float
    """In the shards. Every loader process reads all shards of its rank, so it counts `loader_workers` times."""
    jitter: float = 0.05
    """Standard deviation of the logarithm of every duration."""


@dataclass(frozen=True)
class Outcome:
    samples_per_s: float
    step_ms: float
    waits_for_data: float
    """Share of the time."""


def exchange_ms(costs: Costs, cluster: Cluster) -> float:
    """A ring over all workers: each sends (n - 1) / n of the bytes; over nodes, all of a node's pass its link once."""
    sent = costs.sent_mb * (cluster.workers - 1) / cluster.workers
    slowest = cluster.link_gb_s if cluster.workers <= cluster.workers_per_node else cluster.node_gb_s
    return sent / slowest


def simulate(costs: Costs, cluster: Cluster, plan: Plan) -> Outcome:
    """Workers that load, compute and meet, step after step. Raises ValueError when the batch does not divide."""
    if plan.batch % cluster.workers:
        raise ValueError(f"a batch of {plan.batch} does not divide over {cluster.workers} workers; take a multiple")
    rng = random.Random(0)
    rows = plan.batch // cluster.workers
    update = costs.step_ms * (1 - costs.update_shared + costs.update_shared / cluster.workers)
    compute = max(costs.host_ms, rows * costs.sample_ms + update)
    processes = max(1, plan.loader_workers)
    load = rows * costs.loader_ms * max(1.0, processes / cluster.cores_per_worker)
    reading = rows * plan.kb_per_sample * processes * min(cluster.workers, cluster.workers_per_node) / cluster.read_mb_s
    batch_ms, exchange = max(load, reading), exchange_ms(costs, cluster)
    loaders = [_Loaders(processes, batch_ms) for _ in range(cluster.workers)]
    now = since = waited = 0.0
    for step in range(STEPS):
        if step == STEPS // 3:
            since, waited = now, 0.0
        ends = []
        for loader in loaders:
            if plan.loader_workers:
                ready = max(now, loader.ready_ms(step, now, rng, plan.jitter))
            else:
                ready = now + batch_ms * rng.lognormvariate(0, plan.jitter)
            waited += (ready - now) / cluster.workers
            ends.append(ready + compute * rng.lognormvariate(0, plan.jitter))
        now = max(ends) + exchange
    counted = STEPS - STEPS // 3
    step_ms = (now - since) / counted
    return Outcome(1e3 * plan.batch / step_ms, step_ms, waited / counted / step_ms)


class _Loaders:
    """The loader processes of a worker: each makes every n-th batch, at most `PREFETCH` ahead."""

    def __init__(self, processes: int, batch_ms: float) -> None:
        self._batch_ms = batch_ms
        self._free = [0.0] * processes
        self._taken: list[float] = []

    def ready_ms(self, step: int, now: float, rng: random.Random, jitter: float) -> float:
        """When batch `step` is there, asked for at `now`."""
        process, room = step % len(self._free), step - PREFETCH * len(self._free)
        start = max(self._free[process], self._taken[room] if room >= 0 else 0.0)
        self._free[process] = start + self._batch_ms * rng.lognormvariate(0, jitter)
        self._taken.append(max(now, self._free[process]))
        return self._free[process]


def bounds(costs: Costs, cluster: Cluster, plan: Plan) -> dict[str, float]:
    """How many times as fast a training would be with one thing for nothing, most first."""
    now = simulate(costs, cluster, plan).samples_per_s
    without = {
        "the device's arithmetic": (replace(costs, sample_ms=0.0), cluster, plan),
        "the update of the weights": (replace(costs, step_ms=0.0), cluster, plan),
        "the host that starts operations": (replace(costs, host_ms=0.0), cluster, plan),
        "the links": (replace(costs, sent_mb=0.0), cluster, plan),
        "the loader's cores": (replace(costs, loader_ms=0.0), cluster, plan),
        "reading of shards": (costs, cluster, replace(plan, kb_per_sample=0.0)),
        "uneven steps": (costs, cluster, replace(plan, jitter=0.0)),
    }
    gained = {name: simulate(*case).samples_per_s / now for name, case in without.items()}
    return dict(sorted(gained.items(), key=lambda item: -item[1]))


class TrainingSet(NamedTuple):
    """A dataset of the mixture: its weight in `recipes/base.yaml`, hands in training, and the size of its images."""

    name: str
    weight: float
    hands: int
    """The cards' counts; of InterHand2.6M, MTC, COCO-WholeBody and Halpe those of HaMeR's tars, as the cards say."""
    size: str
    """One of `SHARD_KB`."""


MIXTURE = (
    TrainingSet("FreiHAND", 0.25, 130_240, "224x224"),
    TrainingSet("InterHand2.6M", 0.25, 1_424_632, "512x334"),
    TrainingSet("MTC", 0.10, 363_947, "1920x1080"),
    TrainingSet("COCO-WholeBody", 0.10, 78_666, "640x480"),
    TrainingSet("RHD", 0.05, 82_516, "320x320"),
    TrainingSet("Halpe", 0.05, 34_289, "640x480"),
    TrainingSet("HandDB (MPII, NZSL, synthetic)", 0.05, 16_173, "640x480"),
    TrainingSet("HO-3D", 0.05, 66_034, "640x480"),
    TrainingSet("H2O-3D", 0.05, 121_996, "640x480"),
    TrainingSet("DexYCB", 0.05, 406_888, "640x480"),
)

SHARD_KB = {"224x224": 21, "320x320": 35, "512x334": 52, "640x480": 91, "1920x1080": 574}
"""Of a hand: the JPEG as `loader.py` makes it at this size, and 7 kB of labels, sidecars and tar headers."""
SAMPLES = 200_000 * 48
"""The paper's schedule (supplement B)."""
FLOP_PER_IMAGE = 3 * 248e9
"""Forward and backward pass of ViT-H on 256 x 192, as `train_step.py` counts."""
WEIGHTS = 664e6
BATCHES = {1: (48,), 8: (48,), 64: (64, 512, 3072)}


def mean_kb() -> float:
    """Of a sample of the mixture, as training draws it."""
    return sum(one.weight * SHARD_KB[one.size] for one in MIXTURE)


def gpu_costs(mfu: float, peak_tflops: float, host_ms: float, memory_gb_s: float, loader_ms: float) -> Costs:
    """Of the full-size recipe: bf16, ZeRO 1. AdamW reads and writes 32 bytes a weight; a step sends two of gradient
    and gathers four of weight."""
    return Costs(
        loader_ms=loader_ms,
        sample_ms=FLOP_PER_IMAGE / (mfu * peak_tflops * 1e9),
        step_ms=32 * WEIGHTS / (memory_gb_s * 1e6),
        host_ms=host_ms,
        sent_mb=6e-6 * WEIGHTS,
        update_shared=1.0,
    )


def data_table() -> Iterator[str]:
    yield "| dataset | weight | training hands | kB a hand | GB | samples of the schedule | passes |"
    yield "|---|---|---|---|---|---|---|"
    for one in MIXTURE:
        drawn, size_gb = SAMPLES * one.weight, one.hands * SHARD_KB[one.size] / 1e6
        yield (
            f"| {one.name} | {one.weight} | {one.hands:,} | {SHARD_KB[one.size]} | {size_gb:.1f} | {drawn / 1e6:.2f} M "
            f"| {drawn / one.hands:.1f} |"
        )
    hands = sum(one.hands for one in MIXTURE)
    size_gb = sum(one.hands * SHARD_KB[one.size] for one in MIXTURE) / 1e6
    drawn = f"{SAMPLES / 1e6:.1f} M | {SAMPLES / hands:.1f}"
    yield f"| all | 1 | {hands:,} | {mean_kb():.0f} as drawn | {size_gb:.0f} | {drawn} |"


def training_table(costs: Costs, base: Cluster, loader_workers: int, workers: list[int]) -> Iterator[str]:
    yield "| GPUs | batch | steps | ms a step | samples/s | hours | GPU hours | MB/s a node | bound by (gain without) |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for count in workers:
        for batch in BATCHES.get(count, (48 * -(-count // 48),)):
            cluster = replace(base, workers=count)
            plan = Plan(batch, loader_workers, mean_kb())
            found, (bound, gain) = simulate(costs, cluster, plan), next(iter(bounds(costs, cluster, plan).items()))
            hours = SAMPLES / found.samples_per_s / 3600
            on_node = min(count, base.workers_per_node) / count
            read = found.samples_per_s * on_node * plan.kb_per_sample * max(1, loader_workers) / 1e3
            yield (
                f"| {count} | {batch} | {SAMPLES // batch:,} | {found.step_ms:.0f} | {found.samples_per_s:,.0f} "
                f"| {hours:.1f} | {hours * count:.0f} | {read:.0f} | {bound} ({gain:.2f}x) |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--mfu", type=float, default=0.4, help="share of the peak; assumed")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="dense bf16: H100, H200")
    parser.add_argument("--host-ms", type=float, default=40.0, help="of starting a step's operations; assumed")
    parser.add_argument("--memory-gb-s", type=float, default=3350.0, help="of the GPU: H100")
    parser.add_argument("--link-gb-s", type=float, default=300.0, help="between GPUs of a node, each")
    parser.add_argument("--node-gb-s", type=float, default=25.0, help="between nodes: 200 Gb/s")
    parser.add_argument("--read-mb-s", type=float, default=2000.0, help="of shards, per node")
    parser.add_argument("--loader-ms", type=float, default=1.174, help="docs/performance.md, the mixture")
    parser.add_argument("--loader-workers", type=int, default=4, help="data.loader_workers")
    parser.add_argument("--cores", type=float, default=15.0, help="per GPU, for its loader")
    options = parser.parse_args()
    costs = gpu_costs(options.mfu, options.peak_tflops, options.host_ms, options.memory_gb_s, options.loader_ms)
    cluster = Cluster(1, 8, options.cores, options.link_gb_s, options.node_gb_s, options.read_mb_s)
    for lines in (data_table(), training_table(costs, cluster, options.loader_workers, options.workers)):
        print("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
