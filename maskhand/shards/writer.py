"""Put one shard in place: the tar first, its record after it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from maskhand import storage
from maskhand.sample import SampleError
from maskhand.shards.codec import Members
from maskhand.shards.layout import record_uri, tar_uri
from maskhand.shards.manifest import Reject, ShardRecord, record_to_json
from maskhand.shards.tar import in_blocks, sample_pieces

_BLOCK = 1 << 20
"""Bytes of a tar that are put together before they are hashed and written."""


def write_shard(
    part_uri: str, name: str, plan_digest: str, outcomes: Iterable[tuple[str, Members | SampleError]]
) -> ShardRecord:
    """Write one tar from (key, members or the reason of rejection) in order, then its record.

    A killed writer leaves either nothing, or a tar without record that the next run writes again with the same bytes.
    """
    rejects: list[Reject] = []
    count = size = 0

    def accepted() -> Iterator[list[bytes]]:
        nonlocal count
        for key, outcome in outcomes:
            if isinstance(outcome, SampleError):
                rejects.append(Reject(key, outcome.reason, str(outcome)))
            else:
                count += 1
                yield sample_pieces(key, outcome)

    digest = hashlib.sha256()
    with storage.atomic_writer(tar_uri(part_uri, name)) as write:
        for block in in_blocks(accepted(), _BLOCK):
            write(block)
            digest.update(block)
            size += len(block)
    record = ShardRecord(name, plan_digest, count + len(rejects), count, size, digest.hexdigest(), tuple(rejects))
    storage.write_bytes_atomic(record_uri(part_uri, name), record_to_json(record))
    return record
