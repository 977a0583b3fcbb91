"""The simulator of trainings against closed forms, and its tables against the recipe and the cards."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from maskhand.recipe_files import load_recipe

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from capacity import (  # noqa: E402
    MIXTURE,
    PREFETCH,
    SAMPLES,
    SHARD_KB,
    Cluster,
    Costs,
    Plan,
    bounds,
    gpu_costs,
    mean_kb,
    simulate,
)

COSTS = Costs(loader_ms=1.0, sample_ms=2.0, step_ms=6.0, host_ms=0.0, sent_mb=100.0)
CLUSTER = Cluster(4, workers_per_node=2, cores_per_worker=4, link_gb_s=50.0, node_gb_s=5.0, read_mb_s=1e9)
PLAN = Plan(batch=32, loader_workers=4, kb_per_sample=100.0, jitter=0.0)
RING = 0.75 * 100 / 5


@pytest.mark.parametrize(
    ("costs", "cluster", "plan", "step_ms"),
    [
        (COSTS, CLUSTER, PLAN, 8 * 2 + 6 + RING),
        (COSTS, replace(CLUSTER, workers_per_node=4), PLAN, 8 * 2 + 6 + RING / 10),
        (COSTS, replace(CLUSTER, workers=1), PLAN, 32 * 2 + 6),
        (replace(COSTS, update_shared=1.0), CLUSTER, PLAN, 8 * 2 + 6 / 4 + RING),
        (replace(COSTS, host_ms=50.0), CLUSTER, PLAN, 50 + RING),
        (COSTS, CLUSTER, replace(PLAN, loader_workers=0), 8 * 1 + 8 * 2 + 6 + RING),
        (replace(COSTS, loader_ms=30.0), CLUSTER, PLAN, 8 * 30 / 4),
        (replace(COSTS, loader_ms=30.0), replace(CLUSTER, cores_per_worker=2), PLAN, 8 * 30 / 2),
        (COSTS, replace(CLUSTER, read_mb_s=32.0), PLAN, 8 * 100 * 2 / 32),  # each process of both workers reads all
    ],
    ids=["links", "one-node", "alone", "zero", "host", "inline", "loader", "few-cores", "reading"],
)
def test_a_step_takes_what_its_slowest_part_takes(costs: Costs, cluster: Cluster, plan: Plan, step_ms: float) -> None:
    found = simulate(costs, cluster, plan)
    assert found.step_ms == pytest.approx(step_ms, rel=0.02)  # loaders deliver in bursts of their number
    assert found.samples_per_s == pytest.approx(1e3 * plan.batch / found.step_ms)


def test_uneven_workers_wait_for_the_slowest_and_queues_even_out_loaders() -> None:
    cluster, plan = replace(CLUSTER, workers=32), replace(PLAN, batch=256)
    even, uneven = simulate(COSTS, cluster, plan), simulate(COSTS, cluster, replace(plan, jitter=0.1))
    assert uneven.step_ms > even.step_ms + 0.15 * (8 * 2 + 6)  # the slowest of 32 is two deviations behind
    assert uneven.waits_for_data < 0.01 and PREFETCH > 1


def test_what_bounds_is_what_pays_most() -> None:
    assert next(iter(bounds(COSTS, CLUSTER, PLAN))) == "the device's arithmetic"
    assert next(iter(bounds(COSTS, replace(CLUSTER, node_gb_s=0.5), PLAN))) == "the links"
    assert next(iter(bounds(replace(COSTS, loader_ms=50.0), CLUSTER, PLAN))) == "the loader's cores"
    assert next(iter(bounds(COSTS, replace(CLUSTER, read_mb_s=10.0), PLAN))) == "reading of shards"
    with pytest.raises(ValueError, match="does not divide"):
        simulate(COSTS, CLUSTER, replace(PLAN, batch=30))


def test_the_mixture_is_that_of_the_recipe_and_the_schedule_the_papers() -> None:
    recipe = load_recipe("paper")
    weights: dict[str, float] = {}
    for name, weight in recipe.data.train.items():
        family = {"mpii_nzsl": "handdb", "hand_labels_synth": "handdb"}.get(name.split("/")[0], name.split("/")[0])
        weights[family] = weights.get(family, 0.0) + weight
    assert sorted(weights.values()) == pytest.approx(sorted(one.weight for one in MIXTURE))
    assert recipe.training.optim.steps * recipe.training.optim.batch == SAMPLES
    assert len(MIXTURE) == 10 and mean_kb() == pytest.approx(103 + 7, abs=1.5)  # docs/performance.md: 103 kB of image
    cards = {"freihand": "training", "ho3d_v2": "train"}
    hands = {one.hands for one in MIXTURE}
    for card, split in cards.items():
        assert yaml.safe_load((ROOT / "datasets" / card / "card.yaml").read_text())["splits"][split] in hands
    assert {one.size for one in MIXTURE} == set(SHARD_KB)


def test_a_gpu_alone_is_bound_by_its_arithmetic() -> None:
    """Then images a second are peak times MFU over FLOP per image, less the update."""
    costs = gpu_costs(mfu=0.4, peak_tflops=989, host_ms=40, memory_gb_s=3350, loader_ms=1.174)
    alone = simulate(costs, replace(CLUSTER, workers=1), Plan(48, 4, 109, jitter=0.0))
    assert 48e3 / alone.samples_per_s == pytest.approx(48 * 744 / 395.6 + 32 * 0.664 / 3.35, rel=1e-3)
