"""The benchmarks of the cards: what models are measured on, under which name, and in which official format."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maskhand.catalog import Benchmark, CatalogError, DatasetSpec, catalog_dirs, load_spec, names
from maskhand.scoring.format import GroundTruth
from maskhand.scoring.formats import load_format
from maskhand.scoring.scores import Scores


@dataclass(frozen=True)
class BenchmarkSet:
    """One shard set that models are measured on: a split of a benchmark."""

    name: str
    """Of its numbers: `dexycb`; further splits of a benchmark are `dexycb_s1_test` and so on."""
    dataset: DatasetSpec
    benchmark: Benchmark
    split: str

    @property
    def shard_set(self) -> str:
        """`freihand/evaluation`."""
        return f"{self.dataset.name}/{self.split}"

    def subset(self, name: str) -> str:
        """The shard set of the same images with labels of some joints only."""
        return f"{self.dataset.name}/{self.benchmark.subsets[name]}"

    @property
    def names(self) -> tuple[str, ...]:
        """Every word that means it on the command line, alone or with others."""
        return (*filter(None, (self.dataset.name, self.benchmark.name)), *self.benchmark.aliases)


def benchmark_sets() -> Mapping[str, BenchmarkSet]:
    """Name -> set, of every card; data without a license to accept first. CatalogError when two have one name."""
    cards = (card for folder in catalog_dirs() for card in sorted(folder.glob("*/card.yaml")))
    return _read_cards(tuple((card, card.stat().st_mtime_ns) for card in cards))


@functools.lru_cache(maxsize=4)  # a table of the paper asks hundreds of times
def _read_cards(_cards: tuple[tuple[Path, int], ...]) -> Mapping[str, BenchmarkSet]:
    found: dict[str, BenchmarkSet] = {}
    for spec in sorted(map(load_spec, names()), key=lambda spec: not spec.open):
        for benchmark in spec.benchmark:
            own = benchmark.name or spec.name
            for split in benchmark.splits:
                name = own if split == benchmark.splits[0] else f"{own}_{split}"
                if name in found:
                    other = found[name].dataset.name
                    raise CatalogError(f"{spec.name}: the card of {other} has a benchmark {name!r} too; give it a name")
                found[name] = BenchmarkSet(name, spec, benchmark, split)
    return found


def benchmark_named(word: str) -> list[BenchmarkSet]:
    """The sets that a dataset, a benchmark or an alias names; ValueError when it is none of them."""
    known = benchmark_sets().values()
    if meant := [one for one in known if word in one.names]:
        return meant
    every = sorted({name for one in known for name in one.names})
    raise ValueError(f"benchmark {word!r} not known; known are {', '.join(every)}")


def benchmark_of(shard_set: str) -> BenchmarkSet | None:
    """The benchmark that a shard set is measured as; None for any other set."""
    return next((one for one in benchmark_sets().values() if one.shard_set == shard_set), None)


def official_counts(format_name: str) -> dict[str, int]:
    """Dataset and split -> number of samples that its makers state, for the benchmarks of a format."""
    return {
        f"{one.dataset.name} {one.split}": count
        for one in benchmark_sets().values()
        if one.benchmark.format == format_name and (count := one.dataset.splits[one.split]) is not None
    }


def score_files(format_name: str, gt: Path, pred: Path, split: str = "s0_test") -> Scores:
    """The official numbers of a prediction file; `split` says which frames of a dataset's own folder are the truth.

    Raises FormatError for an unknown format, ScoreError for files that cannot be scored, and RawDataError for a
    dataset's folder that cannot be read; each is a sentence.
    """
    return load_format(format_name).score(GroundTruth(gt, split, official_counts(format_name)), pred)
