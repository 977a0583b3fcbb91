"""Put one shard in place: the tar first, its record after it."""

from __future__ import annotations

from collections.abc import Iterable

from maskhand import storage
from maskhand.sample import SampleError
from maskhand.shards.codec import Members, encode_tar
from maskhand.shards.layout import record_uri, tar_uri
from maskhand.shards.manifest import Reject, ShardRecord, record_to_json


def write_shard(
    part_uri: str, name: str, plan_digest: str, outcomes: Iterable[tuple[str, Members | SampleError]]
) -> ShardRecord:
    """Write one tar from (key, members or the reason of rejection) in order, then its record.

    A killed writer leaves either nothing, or a tar without record that the next run writes again with the same bytes.
    """
    rejects: list[Reject] = []
    accepted: list[tuple[str, Members]] = []
    for key, outcome in outcomes:
        if isinstance(outcome, SampleError):
            rejects.append(Reject(key, outcome.reason, str(outcome)))
        else:
            accepted.append((key, outcome))
    tar = encode_tar(accepted)
    record = ShardRecord(
        name, plan_digest, len(accepted) + len(rejects), tar.count, len(tar.data), tar.sha256, tuple(rejects)
    )
    storage.write_bytes_atomic(tar_uri(part_uri, name), tar.data)
    storage.write_bytes_atomic(record_uri(part_uri, name), record_to_json(record))
    return record
