"""Build the images of a shard set, shard by shard, resumable; and the loop that sidecars share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest
from typing import Any, Protocol, TypeVar

from maskhand import storage
from maskhand.adapters import MENDABLE, Adapter, Item, open_adapter, read_hand
from maskhand.catalog import DatasetSpec
from maskhand.sample import SampleError
from maskhand.shards.codec import Members, encode_sample
from maskhand.shards.layout import FORMAT_VERSION, IMAGES, ShardError, manifest_uri, record_uri, tar_uri
from maskhand.shards.manifest import Manifest, ShardRecord, entries_and_rejects, find_manifest, read_record
from maskhand.shards.plan import count_note, make_plan
from maskhand.shards.read_ahead import in_order
from maskhand.shards.writer import write_shard

T = TypeVar("T")
R = TypeVar("R")
OnShard = Callable[[ShardRecord], None]
Outcome = tuple[str, Members | SampleError]
"""A hand's key, and the members of its tar or why it has none."""

_WAVE = 128
"""Shards handed to the mapper at once: bounds how much annotation waits in the driver."""

_READERS, _PIECE = 8, 8
"""Threads that read the hands of a shard from a remote store, where a reader mostly waits, and how many hands each
takes at a time. A local disk has one reader, which asks for files before it needs them: threads would cost it half as
much again, waiting for the interpreter."""

_AHEAD = 16
"""Files that a reader has asked for."""

_CHECKERS = 16
"""Threads that look at what is there already; of a remote store each mostly waits."""


class Mapper(Protocol):
    """Applies a picklable function to picklable items, anywhere; results in the items' order."""

    def __call__(
        self, fn: Callable[[T], R], items: Sequence[T], *, on_done: Callable[[R], None] | None = None
    ) -> list[R]: ...


def serial_map(fn: Callable[[T], R], items: Sequence[T], *, on_done: Callable[[R], None] | None = None) -> list[R]:
    """The mapper without any parallelism."""
    results = []
    for item in items:
        results.append(fn(item))
        if on_done:
            on_done(results[-1])
    return results


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

    def holds(index: int, record: ShardRecord) -> bool:
        reasons = {reject.key: reject.reason for reject in record.rejects if reject.reason in MENDABLE}
        positions = (int(position) for position in plan.shards[index] if reasons)
        rejected = (raw.item(position) for position in positions if raw.keys[position] in reasons)
        return all(
            isinstance(outcome, SampleError) and outcome.reason == reasons[key]
            for key, outcome in _outcomes(adapter, rejected)
        )

    def finish(records: list[ShardRecord]) -> Manifest:
        entries, rejects = entries_and_rejects(records)
        return Manifest(
            part=IMAGES,
            dataset=spec.name,
            split=split,
            format_version=FORMAT_VERSION,
            plan_digest=plan.digest,
            planned=len(raw.keys),
            count=sum(entry.count for entry in entries),
            rejects=rejects,
            shards=entries,
            official_count=spec.splits[split],
            notes=raw.notes + count_note(spec, split, raw),
        )

    return build_part(
        set_uri,
        IMAGES,
        plan.digest,
        plan.names(),
        task,
        write_image_shard,
        finish,
        holds=holds,
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
    """As `_outcomes`, with `_AHEAD` files on their way from the disk."""
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


def build_part(
    set_uri: str,
    part: str,
    plan_digest: str,
    names: Sequence[str],
    task: Callable[[int], Any],
    write: Callable[[Any], ShardRecord],
    finish: Callable[[list[ShardRecord]], Manifest],
    *,
    mapper: Mapper,
    rebuild: bool,
    on_shard: OnShard | None,
    holds: Callable[[int, ShardRecord], bool] = lambda index, record: True,
) -> Manifest:
    """Write the shards that are not finished yet, then the manifest. One builder per part at a time.

    `rebuild` replaces what is there where it is of another plan or cannot be read; no other error costs a shard.
    `holds` says whether a finished shard, given by its place in `names`, would still come out as its record says.
    """
    part_uri = storage.join(set_uri, part)
    records: dict[str, ShardRecord] = {}
    try:
        done = find_manifest(set_uri, part)
        if done is not None:
            _check_plan(part_uri, done.plan_digest, plan_digest)
        records = _holding(_finished(part_uri, plan_digest, names), names, holds)
        if done is not None and len(records) == len(names):
            return done
    except ShardError:
        if not rebuild:
            raise
        _clear(part_uri)
    storage.clean_partial(part_uri)
    storage.delete(manifest_uri(part_uri))
    for record in records.values():
        if on_shard:
            on_shard(record)
    missing = [index for index, name in enumerate(names) if name not in records]
    for start in range(0, len(missing), _WAVE):
        tasks = [task(index) for index in missing[start : start + _WAVE]]
        for record in mapper(write, tasks, on_done=on_shard):
            records[record.name] = record
    manifest = finish([records[name] for name in names])
    storage.write_bytes_atomic(manifest_uri(part_uri), manifest.to_json())
    return manifest


def _finished(part_uri: str, plan_digest: str, names: Sequence[str]) -> dict[str, ShardRecord]:
    """Records whose tar is still there with the recorded size. Contents are `verify`'s business."""
    sizes = storage.list_sizes(part_uri)
    recorded = [uri.rsplit("/", 1)[-1].removesuffix(".json") for uri in sizes if uri.endswith(".json")]
    recorded = sorted(name for name in recorded if record_uri(part_uri, name) != manifest_uri(part_uri))
    with ThreadPoolExecutor(_CHECKERS) as pool:
        records = list(pool.map(partial(read_record, part_uri), recorded))
    for record in records:
        _check_plan(part_uri, record.plan_digest, plan_digest)
    here = {record.name: record for record in records if sizes.get(tar_uri(part_uri, record.name)) == record.bytes}
    return {name: here[name] for name in names if name in here}


def _holding(
    records: dict[str, ShardRecord], names: Sequence[str], holds: Callable[[int, ShardRecord], bool]
) -> dict[str, ShardRecord]:
    there = [(index, records[name]) for index, name in enumerate(names) if name in records]
    with ThreadPoolExecutor(_CHECKERS) as pool:
        held = pool.map(lambda pair: holds(*pair), there)
        return {record.name: record for (_, record), good in zip(there, held, strict=True) if good}


def _check_plan(part_uri: str, found: str, expected: str) -> None:
    if found != expected:
        raise ShardError(
            f"{part_uri} holds shards of another plan ({found}, now {expected}): the card, the raw data, the seed, the "
            "annotator or the code's version changed since. Build with --rebuild to replace them, or name another place"
        )


def _clear(part_uri: str) -> None:
    """Manifest and records first, so that a killed rebuild never leaves tars that look finished."""
    storage.delete(manifest_uri(part_uri))
    uris = storage.list_uris(part_uri)
    for uri in [u for u in uris if u.endswith(".json")] + [u for u in uris if not u.endswith(".json")]:
        storage.delete(uri)
