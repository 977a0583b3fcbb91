"""Which hand goes into which shard: a pure function of the card, the raw labels, the code's version and a seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from maskhand.adapters import RawPlan, base
from maskhand.catalog import DatasetSpec
from maskhand.shards.layout import FORMAT_VERSION, ShardError, shard_name


@dataclass(frozen=True)
class ShardPlan:
    """The assignment of one split."""

    digest: str
    """12 hex digits; shards of different plans are never mixed."""
    shards: tuple[np.ndarray, ...]
    """Per shard the positions in the raw split, int64, in tar order."""

    def names(self) -> list[str]:
        return [shard_name(i) for i in range(len(self.shards))]


def make_plan(spec: DatasetSpec, split: str, raw: RawPlan, seed: int) -> ShardPlan:
    """Shuffle the split once and cut it into near-equal shards of at most `spec.shard_size`.

    Each shard is then a random sample of the split, so that reading shard after shard is already well mixed. Near-equal
    means that no shard is a small remainder, which some ranks would finish early.
    """
    if not len(raw.keys):
        raise ShardError(f"{spec.name}: the raw split holds no hand")
    text = "\n".join([spec.digest(), split, raw.source_digest, str(base.VERSION), str(FORMAT_VERSION), str(seed)])
    digest = hashlib.sha256(text.encode())
    # Ranked by a hash of seed and key, not by a random generator: the order is the same with every version of numpy.
    ranks = bytearray()
    # Keys of millions of hands are made one at a time and not kept: 32 bytes each are.
    for key in raw.keys:
        _check_key(spec, key)
        digest.update(f"\n{key}".encode())
        ranks += hashlib.sha256(f"{seed}/{key}".encode()).digest()
    words = np.frombuffer(ranks, dtype=">u8").reshape(-1, 4)
    order = np.lexsort(words.T[::-1])
    first = words[order, 0]
    near = np.flatnonzero(first[1:] == first[:-1])
    twice = near[(words[order[near]] == words[order[near + 1]]).all(axis=1)]
    if len(twice):
        raise ShardError(
            f"{spec.name}: two hands of {split} have the key {raw.keys[int(order[twice[0]])]}; keys are made of the "
            "dataset's own ids, which must be unique: is something listed twice, or were two sets joined?"
        )
    shards = np.array_split(order, -(-len(order) // spec.shard_size))
    return ShardPlan(digest.hexdigest()[:12], tuple(shards))


def count_mismatch(spec: DatasetSpec, split: str, raw: RawPlan) -> tuple[str, ...]:
    """A sentence for the manifest where the label files do not list as many as the authors state."""
    stated = spec.splits[split]
    if stated is None or raw.listed in (None, stated):
        return ()
    less = "; is the download complete?" if raw.listed < stated else ""
    return (f"the label files of {split} list {raw.listed:,}, its makers state {stated:,}{less}",)


def _check_key(spec: DatasetSpec, key: str) -> None:
    if not all(c.isalnum() or c in "-_" for c in key):
        raise ShardError(f"{spec.name}: key {key!r} must hold letters, digits, '-' and '_' only; a dot would split it")
