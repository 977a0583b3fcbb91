"""Build a sidecar part: one tar per image tar, the same keys, what an annotator found out about the samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from maskhand import storage
from maskhand.digest import short_digest
from maskhand.sample import SampleError
from maskhand.shards.codec import Members
from maskhand.shards.layout import FORMAT_VERSION, IMAGES, ShardError
from maskhand.shards.manifest import Manifest, ShardRecord
from maskhand.shards.npz import encode_arrays
from maskhand.shards.part import Mapper, OnShard, build_part, serial_map
from maskhand.shards.reader import ShardSample, ShardSet
from maskhand.shards.writer import write_shard


class SidecarEntry(Protocol):
    """What a sidecar holds of one hand, such as `sidecar_records.ManoTarget`."""

    def encode(self) -> Mapping[str, np.ndarray]:
        """The arrays of its npz file."""
        ...


Annotate = Callable[[list[ShardSample]], Iterable[SidecarEntry | SampleError]]
"""The samples of one shard -> per sample, in order, its entry or the reason why it has none. Picklable."""


@dataclass(frozen=True)
class Annotator:
    """Who made a sidecar; any difference means another sidecar."""

    name: str
    version: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """JSON values that change the output."""


@dataclass(frozen=True)
class SidecarTask:
    """One shard to annotate."""

    images: ShardSet
    shard: int
    part: str
    plan_digest: str
    annotate: Annotate


def build_sidecar(
    set_uri: str,
    part: str,
    annotator: Annotator,
    annotate: Annotate,
    *,
    inputs: Sequence[str] = (),
    mapper: Mapper = serial_map,
    rebuild: bool = False,
    on_shard: OnShard | None = None,
) -> Manifest:
    """Annotate every shard of a set into `set_uri`/`part`; image tars are never touched, finished shards are kept.

    `inputs` names other sidecars that the annotator reads. Raises ShardError when the part holds another annotator's
    work or was made from other images (`rebuild=True` replaces it).
    """
    if part == IMAGES or "/" in part:
        raise ShardError(f"{part!r} cannot be the name of a sidecar")
    set_uri = storage.absolute(set_uri)
    images = ShardSet.open(set_uri, inputs)
    made_from = {IMAGES: images.manifest.digest, **{p: m.digest for p, m in images.sidecar_manifests.items()}}
    text = json.dumps([FORMAT_VERSION, part, made_from, asdict(annotator)], sort_keys=True)
    plan_digest = short_digest(text)

    about = Manifest(
        part=part,
        dataset=images.manifest.dataset,
        split=images.manifest.split,
        plan_digest=plan_digest,
        planned=images.manifest.count,
        annotator=asdict(annotator),
        inputs=made_from,
    )
    return build_part(
        set_uri,
        about,
        [entry.name for entry in images.manifest.shards],
        lambda index: SidecarTask(images, index, part, plan_digest, annotate),
        write_sidecar_shard,
        mapper=mapper,
        rebuild=rebuild,
        on_shard=on_shard,
    )


def write_sidecar_shard(task: SidecarTask) -> ShardRecord:
    """Annotate and write one shard (runs in a worker)."""
    samples = task.images.read_shard(task.shard)

    def outcomes() -> Iterator[tuple[str, Members | SampleError]]:
        for sample, answer in zip(samples, task.annotate(samples), strict=True):
            yield (
                sample.sample.key,
                answer if isinstance(answer, SampleError) else {"npz": encode_arrays(answer.encode())},
            )

    name = task.images.manifest.shards[task.shard].name
    return write_shard(storage.join(task.images.uri, task.part), name, task.plan_digest, outcomes())
