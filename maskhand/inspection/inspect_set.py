"""One pass over a shard set: statistics of all samples, and some of them, drawn evenly and seeded, for the sheet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskhand import storage
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.inspection.sheet import set_sheet
from maskhand.inspection.statistics import SetStatistics, Tally
from maskhand.progress import Progress, silent
from maskhand.shards.layout import IMAGES, MANO, ShardError
from maskhand.shards.manifest import check_hand_model, find_manifest, read_manifest
from maskhand.shards.reader import ShardSample, ShardSet

"""Samples read, samples to read."""


@dataclass(frozen=True)
class Inspection:
    """What was found in a set."""

    statistics: SetStatistics
    sheet_png: bytes


def inspect_set(
    set_uri: str, *, hands: int = 16, limit: int | None = None, seed: int = 0, progress: Progress = silent
) -> Inspection:
    """Read a set once, with every sidecar that fits, one shard in memory at a time.

    hands: on the sheet, one from each of as many equal stretches of the set; limit: read no more samples than this
    (shards are random samples of their split, so the first ones speak for all). Raises ShardError when the set is
    missing, damaged or empty, or its MANO targets are of another hand than the one in use, which would be drawn.
    Sidecars that are unfinished, or left from other images, take no part.
    """
    shard_set = open_with_sidecars(set_uri)
    if MANO in shard_set.sidecar_manifests:
        check_hand_model(shard_set.uri, load_hand_model(default_hand_path("right")).digest, "the inspection")
    total = len(shard_set) if limit is None else min(limit, len(shard_set))
    if total < 1:
        raise ShardError(f"{set_uri}: no sample to look at; its manifest counts {shard_set.manifest.rejects}")
    wanted = drawn_evenly(total, hands, seed)
    tally, chosen, first = Tally(shard_set), list[ShardSample](), 0
    for shard, count in enumerate(shard_set.shard_counts.tolist()):
        if first >= total:
            break
        loaded = shard_set.load(shard)
        rows = [loaded.sample(position) for position in range(min(count, total - first))]
        tally.add(rows)
        chosen += [row for row in rows if row.index in wanted]
        first += count
        progress(min(first, total), total, f"{min(first, total)} hands")
    left_out = set(storage.list_folders(shard_set.uri)) - {IMAGES, *shard_set.sidecar_manifests}
    statistics = tally.statistics(sorted(left_out))
    title = f"{statistics.dataset}/{statistics.split}: {len(chosen)} of {len(shard_set):,} hands"
    return Inspection(statistics, set_sheet(chosen, list(shard_set.sidecar_manifests), title))


def open_with_sidecars(set_uri: str) -> ShardSet:
    """The set with all of its sidecars that are finished and made from these images."""
    uri = storage.absolute(set_uri)
    images = read_manifest(uri, IMAGES)
    found = {part: find_manifest(uri, part) for part in storage.list_folders(uri) if part != IMAGES}
    return ShardSet.open(uri, [p for p, m in found.items() if m is not None and m.inputs.get(IMAGES) == images.digest])


def drawn_evenly(total: int, count: int, seed: int) -> set[int]:
    """One position from each of `count` equal stretches of 0..total-1; all of them where there are not more."""
    bounds = np.arange(count + 1) * total // count if total > count else np.arange(total + 1)
    return set(np.random.default_rng(seed).integers(bounds[:-1], bounds[1:]).tolist())
