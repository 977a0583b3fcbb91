"""The hands of pictures and films, looked at by Ray workers; the results are shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maskhand import storage
from maskhand.annotate.registry import detector_files
from maskhand.cluster.map import map_on_gpus
from maskhand.cluster.session import ray_session
from maskhand.conventions import Side
from maskhand.digest import short_digest
from maskhand.models.bundle_records import bundle_digest
from maskhand.placement import CameraSource
from maskhand.predict.box_file import BoxFile
from maskhand.predict.detect import HAND_FINDER
from maskhand.predict.inputs import Sources, find_sources
from maskhand.predict.pictures import GivenCamera
from maskhand.predict.records import Method, PredictError
from maskhand.predict.shards import HANDS, NO_HAND, UNREADABLE, Asked, predict_shards
from maskhand.progress import Progress
from maskhand.shards.layout import manifest_uri
from maskhand.shards.manifest import Manifest, ShardRecord
from maskhand.shipped_models import OPEN
from maskhand.steps.ask_hands import asked_method, check_camera
from maskhand.steps.models import model_folder
from maskhand.steps.receipt import Receipt
from maskhand.workspace import Workspace


@dataclass(frozen=True)
class HandsReceipt(Receipt):
    """Names the manifest of the shards."""

    hands: int
    no_hand: int
    """Pictures without a hand."""
    unreadable: int
    """Pictures, or films, that could not be read (to their ends)."""


def predict_by_workers(
    workspace: Workspace,
    inputs: Sequence[str | Path],
    out: str,
    progress: Progress,
    *,
    workers: int | None = None,
    model: str | None = None,
    boxes: Path | None = None,
    side: Side | None = None,
    focal_px: float | None = None,
    intrinsics: tuple[float, float, float, float] | None = None,
    placed_by: CameraSource = "keypoints",
    method: Method | None = None,
    hypotheses: int = 0,
    min_confidence: float = 0.0,
    every: int = 1,
    vertices: bool = False,
    again: bool = False,
) -> HandsReceipt:
    """The hands of pictures and films as shards below `out`, a folder or `s3://` prefix (see `predict_shards`).

    workers: tasks at a time, None: as many as the Ray session has cores (or GPUs); any number gives the same bytes.
    Everything else as `steps.ask_hands.ask`.
    """
    method, needs_network = asked_method(model, method, placed_by, hypotheses)
    check_camera(focal_px, intrinsics)
    sources = _sources(inputs, out, boxes)
    given = None if boxes is None else BoxFile.read(boxes)
    storage.check_writable(out)
    network = None
    if needs_network:
        folder = model_folder(workspace, model or OPEN)
        network = (folder, bundle_digest(folder))
    asked = Asked(
        network,
        method,
        str(workspace.assets),
        placed_by=placed_by,
        hypotheses=hypotheses,
        boxes=None if given is None else given.version,
        side=side,
        camera=GivenCamera(focal_px, intrinsics),
        min_confidence=min_confidence,
        every=every,
        vertices=vertices,
    )
    with ray_session():
        # that of the model for given boxes, beside the finder's
        names = {HAND_FINDER, asked.question().how.detector}
        manifest = predict_shards(
            sources.files,
            asked,
            storage.absolute(out),
            boxes=given,
            mapper=partial(
                map_on_gpus, concurrency=workers, carried=[detector_files(name, workspace.assets) for name in names]
            ),
            again=again,
            on_shard=_count(progress),
        )
    return _receipt(storage.absolute(out), manifest)


def input_digests(workspace: Workspace, inputs: Sequence[str], out: str, model: str | None) -> dict[str, str]:
    """Everything that decides the results beside the question: the files and the network's weights."""
    files = "\n".join(f"{source.path} {source.mark}" for source in _sources(inputs, out, None).files)
    return {"files": short_digest(files), "model": bundle_digest(model_folder(workspace, model or OPEN))}


def default_place(workspace: Workspace, inputs: Sequence[str], *question: object) -> str:
    """WORKSPACE/predictions/DIGEST: a folder for each question about each list of inputs, whatever they hold now."""
    return str(workspace.root / "predictions" / short_digest(json.dumps([list(inputs), *question])))


def _sources(inputs: Sequence[str | Path], out: str, boxes: Path | None) -> Sources:
    if not inputs:
        raise PredictError("no inputs: name pictures, films, folders of them, or an s3:// prefix")
    sources = find_sources(inputs, out)
    if boxes is not None and (films := [source.path for source in sources.files if source.kind == "film"]):
        raise PredictError(f"--boxes: {films[0]} is a film, and boxes are of pictures; save its frames as pictures")
    return sources


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
