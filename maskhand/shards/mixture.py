"""Training order: an endless weighted mixture of shard sets in which element k is a pure function of the seed.

The global stream is woven from a fixed number n of *shard streams*: its element k is element k // n of shard stream
k % n. Rank r of w ranks takes the elements r, r + w, r + 2w, ..., hence whole shard streams (w must divide n). So the
global order does not depend on the number of ranks, and yet a rank fetches only the shards of its own streams.

Each shard stream reads the shards of a set one after the other, a *pass* each. Pass g of a set over all streams reads
shard `permutation(epoch)[g % shards]`, epoch = g // shards; stream s makes the passes s, s + n, s + 2n, ... Streams
share the epochs without overlap for any number of shards and never run dry. Inside a pass the samples have an order of
their own. Shards are random samples of their split (see plan) and neighbors in the global stream come from different
shard streams, so this is as good as a global shuffle, while every pass fetches its shard once.

A fraction of every set may be held out: the stream never gives these samples, on any rank and wherever it starts.
Which they are follows from their places in the set alone (`held_out_places`), so every shard lends its part.

Which set an element comes from is drawn by weight from a counter-based generator. To start anywhere therefore needs
only counting: no state is saved, and no data before the start is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial

import numpy as np

from maskhand.shards.layout import ShardError
from maskhand.shards.reader import ShardSample, ShardSet

_DRAWS = 4096
"""Choices of a set that are drawn together; part of the order."""

_FETCH_AHEAD = 64
"""The next shard of a shard stream is fetched when this many samples of the current one are left."""

KEEP_BYTES = 256 * 2**20
"""A set whose tars hold at most this much is fetched and held in memory, a larger one is opened at every pass."""

Element = Callable[[], ShardSample]
"""A sample that is decoded on access."""
OpenShard = Callable[[int], Callable[[int], ShardSample]]
"""Shard -> position -> sample."""


@dataclass(frozen=True)
class SetOrder:
    """The order in which one shard stream sees one set. Knows counts, reads no data."""

    shard_counts: tuple[int, ...]
    name: str
    seed: int
    stream: int
    streams: int
    held_out: float = 0.0
    """Fraction of the set that is left out, see `held_out_places`."""

    def shard(self, number: int) -> int:
        """The shard of this stream's pass `number`."""
        epoch, place = divmod(number * self.streams + self.stream, len(self.shard_counts))
        return int(_epoch_order(self.name, self.seed, epoch, len(self.shard_counts))[place])

    def samples(self, number: int) -> np.ndarray:
        """(count,) order of the samples within this stream's pass `number`, without those that are held out."""
        overall = number * self.streams + self.stream
        return _generator("samples", self.name, self.seed, overall).permutation(self._trained(self.shard(number)))

    def locate(self, position: int) -> tuple[int, int]:
        """Position in this stream of the set -> (pass, samples of that pass that come before)."""
        number = 0
        while position >= (count := len(self._trained(self.shard(number)))):
            position -= count
            number += 1
        return number, position

    def _trained(self, shard: int) -> np.ndarray:
        return _trained_positions(self.shard_counts, self.held_out, shard)


@dataclass(frozen=True)
class TrainingStream:
    """One rank's part of the endless stream over a weighted mixture of sets."""

    weights: Mapping[str, float]
    """Set URI -> weight; they need not sum to one."""
    sidecars: Sequence[str] = ()
    seed: int = 0
    rank: int = 0
    world: int = 1
    shard_streams: int = 16
    """Shards of a set that are read side by side, over all ranks. Part of the order."""
    held_out: float = 0.0
    """Fraction of every set that is never given, see `held_out_places`."""
    sets: tuple[ShardSet, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not self.weights or min(self.weights.values()) <= 0:
            raise ValueError(f"the mixture {dict(self.weights)} needs at least one set, and weights above zero")
        if not 0 <= self.rank < self.world or self.shard_streams % self.world:
            raise ValueError(
                f"rank {self.rank} of {self.world}: the number of ranks must divide the {self.shard_streams} shard "
                "streams (data.shard_streams), and the rank must be below it"
            )
        sets = tuple(ShardSet.open(uri, self.sidecars) for uri in self.weights)
        for shard_set in sets:
            if len(shard_set) == 0:
                raise ShardError(f"{shard_set.uri} holds no sample; it cannot be trained on")
        object.__setattr__(self, "sets", sets)

    def iterate(self, start: int = 0, run: int = 1, stride: int = 1) -> Iterator[ShardSample]:
        """Elements start, start + 1, ... of this rank: the global elements rank + world * start, and so on.

        With `stride` above one, `run` elements are yielded, the next (stride - 1) * run left out undecoded, and so on:
        the part of one of `stride` loader processes that make whole batches of `run` elements in turn.
        """
        own = range(self.rank, self.shard_streams, self.world)
        shards = [_opener(shard_set) for shard_set in self.sets]
        with ThreadPoolExecutor(max_workers=2) as fetcher:
            streams = [
                self._stream(stream, -(-(start - turn) // len(own)), shards, fetcher) for turn, stream in enumerate(own)
            ]
            position = 0
            while True:
                element = next(streams[(start + position) % len(own)])
                if position // run % stride == 0:
                    yield element()
                position += 1

    def _stream(
        self, stream: int, start: int, shards: Sequence[OpenShard], fetcher: ThreadPoolExecutor
    ) -> Iterator[Element]:
        choices = _choices(list(self.weights.values()), self.seed, stream)
        block, inside = divmod(start, _DRAWS)
        before = np.bincount(choices(block)[:inside], minlength=len(self.sets))
        for number in range(block):
            before += np.bincount(choices(number), minlength=len(self.sets))
        streams = [
            _passes(open_shard, self._order(shard_set, stream), int(position), fetcher)
            for shard_set, open_shard, position in zip(self.sets, shards, before, strict=True)
        ]
        while True:
            for choice in choices(block)[inside:]:
                yield next(streams[choice])
            block, inside = block + 1, 0

    def _order(self, shard_set: ShardSet, stream: int) -> SetOrder:
        # The order must not depend on where the shards are stored, so it is seeded by what they hold.
        name = f"{shard_set.manifest.dataset}/{shard_set.manifest.split}"
        return SetOrder(
            tuple(shard_set.shard_counts.tolist()), name, self.seed, stream, self.shard_streams, self.held_out
        )


def held_out_places(count: int, share: float) -> np.ndarray:
    """The places in a set of `count` samples that training leaves out, ascending int64: floor(count * share) of them.

    As evenly spread as can be: of 5 % every twentieth. Sets are shuffled when they are cut into shards, so these are a
    random sample.
    """
    return np.flatnonzero(_is_held_out(0, count, share))


@lru_cache(maxsize=4096)
def _trained_positions(shard_counts: tuple[int, ...], held_out: float, shard: int) -> np.ndarray:
    """Positions within a shard that are not held out, ascending."""
    return np.flatnonzero(~_is_held_out(sum(shard_counts[:shard]), shard_counts[shard], held_out))


def _is_held_out(first: int, count: int, share: float) -> np.ndarray:
    """(count,) bool of the places first, first + 1, ...: those where the share of all up to them becomes one more."""
    passed = np.floor(np.arange(first, first + count + 1) * share + 1e-9)  # 0.07 * 100 is a hair below 7
    return np.diff(passed) > 0


def _opener(shard_set: ShardSet) -> OpenShard:
    manifests = (shard_set.manifest, *shard_set.sidecar_manifests.values())
    if sum(entry.bytes for manifest in manifests for entry in manifest.shards) > KEEP_BYTES:
        # Sixteen shards of each of a dozen sets would be many gigabytes of images in every process.
        return lambda shard: shard_set.load(shard, in_memory=False).sample
    # Neither cache outgrows the set: every shard is fetched, and every sample decoded, once.
    return cache(lambda shard: cache(shard_set.load(shard).sample))


def _passes(open_shard: OpenShard, order: SetOrder, position: int, fetcher: ThreadPoolExecutor) -> Iterator[Element]:
    """One shard stream's endless passes over one set; the next shard is fetched while the last samples are consumed."""
    number, skipped = order.locate(position)
    coming: Future[Callable[[int], ShardSample]] | None = None
    while True:
        sample = coming.result() if coming else open_shard(order.shard(number))
        coming = None
        places = order.samples(number)[skipped:]
        for done, place in enumerate(places):
            if coming is None and len(places) - done <= _FETCH_AHEAD:
                coming = fetcher.submit(open_shard, order.shard(number + 1))
            yield partial(sample, int(place))
        number, skipped = number + 1, 0


def _choices(weights: Sequence[float], seed: int, stream: int) -> Callable[[int], np.ndarray]:
    """Block number -> (_DRAWS,) indices of sets, drawn by weight."""
    edges = np.cumsum(np.asarray(weights, dtype=np.float64))
    edges /= edges[-1]

    def block(number: int) -> np.ndarray:
        uniform = _generator("sets", seed, stream, number).random(_DRAWS)
        return np.searchsorted(edges, uniform, side="right")

    return block


@lru_cache(maxsize=64)
def _epoch_order(name: str, seed: int, epoch: int, shards: int) -> np.ndarray:
    return _generator("shards", name, seed, epoch).permutation(shards)


def _generator(*seeds: str | int) -> np.random.Generator:
    digest = hashlib.sha256(repr(seeds).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def rows_per_rank(batch: int, world: int, key: str = "optim.batch") -> int:
    """The batch size of a rank; ValueError when the global batch does not divide over the ranks."""
    if batch % world:
        raise ValueError(f"{key}={batch} does not divide over {world} workers; choose a multiple of {world}")
    return batch // world
