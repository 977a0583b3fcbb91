"""A part of a shard set, built shard by shard: what is finished stays, the rest is made, the manifest comes last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from maskhand import storage
from maskhand.lock import held
from maskhand.shards.layout import IMAGES, TAR, ShardError, manifest_uri, record_uri, shard_uri
from maskhand.shards.manifest import Manifest, ShardRecord, entries_and_rejects, find_manifest, read_record

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
OnShard = Callable[[ShardRecord], None]

_WAVE = 128
"""Shards handed to the mapper at once: bounds how much annotation waits in the driver."""

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


def _alone(build: Callable[P, Manifest]) -> Callable[P, Manifest]:
    """Two that build one part would delete each other's files."""

    @wraps(build)
    def locked(*arguments: P.args, **named: P.kwargs) -> Manifest:
        set_uri, about = arguments[:2]
        assert isinstance(set_uri, str) and isinstance(about, Manifest)
        if storage.is_remote(set_uri):
            return build(*arguments, **named)
        with held(Path(set_uri), about.part, storage.join(set_uri, about.part)):
            return build(*arguments, **named)

    return locked


@_alone
def build_part(
    set_uri: str,
    about: Manifest,
    names: Sequence[str],
    task: Callable[[int], T],
    write: Callable[[T], ShardRecord],
    *,
    mapper: Mapper,
    rebuild: bool,
    on_shard: OnShard | None,
    is_current: Callable[[int, ShardRecord], bool] = lambda index, record: True,
    ending: str = TAR,
) -> Manifest:
    """Write the shards that are not finished yet, then the manifest. LockedError while another one builds this part.

    `about` is the manifest as far as it is known before: its samples, rejects and shards come out of the work. `task`
    makes what `write` needs for one of the `names`, given by its place.
    `rebuild` replaces what is there where it is of another plan or cannot be read; no other error costs a shard.
    `is_current` says whether a finished shard, given by its place in `names`, would still come out as its record says.
    `ending` is that of the names of its files.
    Raises ShardError for images of which none could be used. (A sidecar may be empty: a set has no MANO targets.)
    """
    part_uri, plan_digest = storage.join(set_uri, about.part), about.plan_digest
    records: dict[str, ShardRecord] = {}
    try:
        finished = find_manifest(set_uri, about.part)
        if finished is not None:
            _check_plan(part_uri, finished.plan_digest, plan_digest)
        records = _current(_finished(part_uri, plan_digest, names, ending), names, is_current)
        if finished is not None and len(records) == len(names) and (finished.count or about.part != IMAGES):
            return finished
    except ShardError:
        if not rebuild:
            raise
        clear_part(part_uri)
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
    entries, rejects = entries_and_rejects([records[name] for name in names])
    manifest = replace(about, count=sum(entry.count for entry in entries), rejects=rejects, shards=entries)
    if about.part == IMAGES and not manifest.count:
        clear_part(part_uri)  # else what is mended would be another plan's than these empty shards
        raise ShardError(_nothing_left(part_uri, rejects, [records[name] for name in names]))
    storage.write_bytes_atomic(manifest_uri(part_uri), manifest.to_json())
    return manifest


def _nothing_left(part_uri: str, reasons: dict[str, int], records: Sequence[ShardRecord]) -> str:
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    first = next(reject.message for record in records for reject in record.rejects)
    return f"{part_uri}: none of the hands that the labels list could be used ({counts}). The first of them: {first}"


def _finished(part_uri: str, plan_digest: str, names: Sequence[str], ending: str) -> dict[str, ShardRecord]:
    """Records whose shard is still there with the recorded size. Contents are `verify`'s business."""
    sizes = storage.list_sizes(part_uri)
    recorded = [uri.rsplit("/", 1)[-1].removesuffix(".json") for uri in sizes if uri.endswith(".json")]
    recorded = sorted(name for name in recorded if record_uri(part_uri, name) != manifest_uri(part_uri))
    with ThreadPoolExecutor(_CHECKERS) as pool:
        records = list(pool.map(partial(read_record, part_uri), recorded))
    for record in records:
        _check_plan(part_uri, record.plan_digest, plan_digest)
    uris = {record.name: shard_uri(part_uri, record.name, ending) for record in records}
    here = {record.name: record for record in records if sizes.get(uris[record.name]) == record.bytes}
    return {name: here[name] for name in names if name in here}


def _current(
    records: dict[str, ShardRecord], names: Sequence[str], is_current: Callable[[int, ShardRecord], bool]
) -> dict[str, ShardRecord]:
    there = [(index, records[name]) for index, name in enumerate(names) if name in records]
    with ThreadPoolExecutor(_CHECKERS) as pool:
        answers = pool.map(lambda pair: is_current(*pair), there)
        return {record.name: record for (_, record), good in zip(there, answers, strict=True) if good}


def _check_plan(part_uri: str, found: str, expected: str) -> None:
    if found != expected:
        raise ShardError(
            f"{part_uri} holds shards of another plan ({found}, now {expected}): the card, the raw data, the seed, the "
            "annotator or the code's version changed since. Build with --rebuild to replace them, or name another place"
        )


def clear_part(part_uri: str) -> None:
    """Delete a part. Manifest and records first, so that a killed rebuild never leaves tars that look finished."""
    storage.delete(manifest_uri(part_uri))
    uris = storage.list_uris(part_uri)
    for uri in [u for u in uris if u.endswith(".json")] + [u for u in uris if not u.endswith(".json")]:
        storage.delete(uri)
