"""Build the images of a shard set from published files: resumable, mended where a file is no longer missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest

from maskhand import storage
from maskhand.adapters import MENDABLE, Adapter, Item, open_adapter, read_hand
from maskhand.catalog import DatasetSpec
from maskhand.sample import SampleError
from maskhand.shards.codec import Members, encode_sample
from maskhand.shards.layout import IMAGES
from maskhand.shards.manifest import Manifest, ShardRecord
from maskhand.shards.part import Mapper, OnShard, build_part, serial_map
from maskhand.shards.plan import count_mismatch, make_plan
from maskhand.shards.read_ahead import in_order
from maskhand.shards.writer import write_shard

Outcome = tuple[str, Members | SampleError]
"""A hand's key, and the members of its tar or why it has none."""

_READERS, _PIECE = 8, 8
"""Threads that read the hands of a shard from a remote store, where a reader mostly waits, and how many hands each
takes at a time. A local disk has one reader, which requests files before it needs them: threads would cost it half as
much again, waiting for the interpreter."""

_AHEAD = 16
"""Files that a reader has requested in advance."""


@dataclass(frozen=True)
class ImageTask:
    """One shard to write."""

    part_uri: str
    name: str
    plan_digest: str
    adapter: Adapter
    items: tuple[Item, ...]


def build_shards(
    spec: DatasetSpec,
    raw_dir: str,
    split: str,
    set_uri: str,
    *,
    mapper: Mapper = serial_map,
    seed: int = 0,
    rebuild: bool = False,
    on_shard: OnShard | None = None,
) -> Manifest:
    """Turn a raw split into shards at `set_uri`/images; finished shards of the same plan are kept.

    Those with hands that were left out for a missing or damaged file of their own are written again once that changed.
    Same card, raw data and seed give the same bytes, whatever the mapper and however often the run was interrupted.
    Raises ShardError when the folder holds shards of another plan (`rebuild=True` replaces them), RawDataError when the
    raw files cannot be used. Bad samples are left out and counted by reason in the manifest.
    """
    adapter = open_adapter(spec, raw_dir, split)
    raw = adapter.plan()
    plan = make_plan(spec, split, raw, seed)
    set_uri = storage.absolute(set_uri)
    part_uri = storage.join(set_uri, IMAGES)

    def task(index: int) -> ImageTask:
        items = tuple(raw.item(int(position)) for position in plan.shards[index])
        return ImageTask(part_uri, plan.names()[index], plan.digest, adapter, items)

    def is_current(index: int, record: ShardRecord) -> bool:
        reasons = {reject.key: reject.reason for reject in record.rejects if reject.reason in MENDABLE}
        positions = (int(position) for position in plan.shards[index] if reasons)
        rejected = (raw.item(position) for position in positions if raw.keys[position] in reasons)
        return all(
            isinstance(outcome, SampleError) and outcome.reason == reasons[key]
            for key, outcome in _outcomes(adapter, rejected)
        )

    about = Manifest(
        part=IMAGES,
        dataset=spec.name,
        split=split,
        plan_digest=plan.digest,
        planned=len(raw.keys),
        official_count=spec.splits[split],
        notes=raw.notes + count_mismatch(spec, split, raw),
    )
    return build_part(
        set_uri,
        about,
        plan.names(),
        task,
        write_image_shard,
        is_current=is_current,
        mapper=mapper,
        rebuild=rebuild,
        on_shard=on_shard,
    )


def write_image_shard(task: ImageTask) -> ShardRecord:
    """Read, validate and write the samples of one shard (runs in a worker)."""
    if not any(storage.is_remote(item.image_uri) for item in task.items):
        return write_shard(task.part_uri, task.name, task.plan_digest, _local_outcomes(task.adapter, task.items))
    pieces = [task.items[start : start + _PIECE] for start in range(0, len(task.items), _PIECE)]
    with ThreadPoolExecutor(_READERS) as pool:
        read = partial(_outcomes, task.adapter)
        outcomes = chain.from_iterable(in_order(pool, lambda piece: list(read(piece)), pieces, 2 * _READERS))
        return write_shard(task.part_uri, task.name, task.plan_digest, outcomes)


def _local_outcomes(adapter: Adapter, items: Sequence[Item]) -> Iterator[Outcome]:
    """The outcomes of `_outcomes`, with `_AHEAD` files requested from the disk in advance."""
    for item in items[:_AHEAD]:
        storage.will_read(item.image_uri)

    def asking() -> Iterator[Item]:
        for item, later in zip_longest(items, items[_AHEAD:]):
            if later is not None:
                storage.will_read(later.image_uri)
            yield item

    return _outcomes(adapter, asking())


def _outcomes(adapter: Adapter, items: Iterable[Item]) -> Iterator[Outcome]:
    for item in items:
        try:
            yield item.key, encode_sample(read_hand(adapter, item))
        except SampleError as error:
            yield item.key, error
