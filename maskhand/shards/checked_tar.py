"""Read a tar of a shard set, checked against its entry of the manifest: length, sha256, number of samples."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

from maskhand import storage
from maskhand.shards.cached_tar import CachedMembers, CachedTar
from maskhand.shards.codec import Members
from maskhand.shards.layout import ShardError, tar_uri
from maskhand.shards.manifest import ShardEntry
from maskhand.shards.untar import decode_tar, plain_places

_CHECKED: set[tuple[int, ...]] = set()
"""States of files that were found to match their manifest."""


def read_tar(part_uri: str, entry: ShardEntry) -> list[tuple[str, Members]]:
    """A tar's keys and members, checked against its manifest entry (length, sha256, number of samples)."""
    uri = tar_uri(part_uri, entry.name)
    with _listed(uri):
        data = storage.read_bytes(uri)
    return check_tar(uri, data, entry)


def open_tar(part_uri: str, entry: ShardEntry) -> list[tuple[str, Members]]:
    """As `read_tar`, but members are read from the tar on access; a file is checked once in a process, and
    again when it was written to."""
    uri = tar_uri(part_uri, entry.name)
    with _listed(uri):
        file = CachedTar(uri, entry.sha256)
    data = file.read()
    # A training comes back to every shard again and again, in each of its loader processes.
    if (state := file.state()) not in _CHECKED:
        _check_content(file.uri, data, entry)
        if file.named:
            _CHECKED.add(state)
    if (places := plain_places(data)) is None:
        return check_tar(uri, data, entry)
    _check_count(uri, len(places), entry)
    return [
        (key, CachedMembers(file, members, {name: data[members[name]] for name in ("json",) if name in members}))
        for key, members in places
    ]


def check_tar(uri: str, data: bytes, entry: ShardEntry) -> list[tuple[str, Members]]:
    """Decode a tar's bytes; ShardError when they are not what the manifest entry says."""
    _check_content(uri, data, entry)
    samples = decode_tar(data, uri)
    _check_count(uri, len(samples), entry)
    return samples


@contextlib.contextmanager
def _listed(uri: str) -> Iterator[None]:
    try:
        yield
    except storage.MissingFileError:
        raise ShardError(f"{uri}: the manifest lists this tar but it is not there; build this part again") from None


def _check_content(uri: str, data: bytes, entry: ShardEntry) -> None:
    if len(data) != entry.bytes:
        raise ShardError(
            f"{uri}: {len(data)} bytes, the manifest says {entry.bytes}; the tar was cut or replaced. "
            "Delete it and build this part again"
        )
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ShardError(
            f"{uri}: its sha256 is not the manifest's, it was altered. Delete it and build this part again"
        )


def _check_count(uri: str, found: int, entry: ShardEntry) -> None:
    if found != entry.count:
        raise ShardError(f"{uri}: {found} samples, the manifest says {entry.count}; build this part again")
