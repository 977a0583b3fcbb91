"""The step that predicts the hands of pictures and films on Ray workers; the results are shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from maskhand import storage
from maskhand.annotate.registry import detector_files
from maskhand.cluster.map import map_on_gpus
from maskhand.cluster.session import ray_session
from maskhand.predict.detect import HAND_FINDER
from maskhand.predict.shards import HANDS, NO_HAND, UNREADABLE, load_request, predict_shards
from maskhand.progress import Progress
from maskhand.shards.layout import manifest_uri
from maskhand.shards.manifest import Manifest, ShardRecord
from maskhand.steps.prepare_predict_shards import PreparedShardRun
from maskhand.steps.receipt import Receipt


@dataclass(frozen=True)
class HandsReceipt(Receipt):
    """Names the manifest of the shards."""

    hands: int
    no_hand: int
    """Pictures without a hand."""
    unreadable: int
    """Pictures, or films, that could not be read (to their ends)."""


def predict_by_workers(run: PreparedShardRun, progress: Progress, *, workers: int | None = None) -> HandsReceipt:
    """The hands of pictures and films as shards (see `predict_shards`).

    workers: tasks at a time, None: as many as the Ray session has cores (or GPUs); any number gives the same bytes.
    """
    with ray_session():
        # that of the model for given boxes, beside the finder's
        names = {HAND_FINDER, load_request(run.request).reconstruction.detector}
        manifest = predict_shards(
            run.sources.files,
            run.request,
            run.out,
            boxes=run.boxes,
            mapper=partial(
                map_on_gpus, concurrency=workers, carried=[detector_files(name, run.assets) for name in names]
            ),
            again=run.again,
            on_shard=_count(progress),
        )
    return _receipt(run.out, manifest)


def _count(progress: Progress) -> Callable[[ShardRecord], None]:
    pictures = hands = shards = 0

    def on_shard(record: ShardRecord) -> None:
        nonlocal pictures, hands, shards
        pictures, shards = pictures + record.planned, shards + 1
        hands += record.count - len(record.rejects)
        progress(shards, 0, f"{shards} shards, {pictures} pictures, {hands} hands")

    return on_shard


def _receipt(out: str, manifest: Manifest) -> HandsReceipt:
    without = manifest.rejects
    return HandsReceipt.of(
        manifest_uri(storage.join(out, HANDS)),
        hands=manifest.count - sum(without.values()),
        no_hand=without.get(NO_HAND, 0),
        unreadable=without.get(UNREADABLE, 0),
    )
