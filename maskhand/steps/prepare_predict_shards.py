"""The options of a prediction run on workers, checked before torch is imported and Ray starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from maskhand import storage
from maskhand.digest import short_digest
from maskhand.disk import check_writable
from maskhand.models.bundle_records import bundle_digest
from maskhand.predict.box_file import BoxFile
from maskhand.predict.inputs import Sources, find_sources
from maskhand.predict.options import PredictOptions
from maskhand.predict.records import PredictError
from maskhand.predict.shard_request import ShardRequest, with_earlier
from maskhand.shipped_models import OPEN
from maskhand.steps.given_options import GivenOptions
from maskhand.steps.models import model_folder
from maskhand.workspace import Workspace


@dataclass(frozen=True)
class PreparedShardRun:
    """A run on workers whose options are checked, ready for `steps.predict_shards.predict_by_workers`."""

    sources: Sources
    request: ShardRequest
    boxes: BoxFile | None
    out: str
    """Folder, absolute, or `s3://` prefix."""
    assets: Path
    """Where the detector's files are, or are fetched to."""
    again: bool
    """Whether an earlier run is removed."""
    note: str | None
    """Tells the user that the default method is a fit alone, and why."""


def prepare_shard_run(
    workspace: Workspace, inputs: Sequence[str | Path], out: str, given: GivenOptions
) -> PreparedShardRun:
    """The run that finds the hands of pictures and films, as shards below `out`, a folder or `s3://` prefix.

    Raises PredictError, and StorageError where nothing can be written.
    """
    method = given.checked_method()
    sources = _sources(inputs, out)
    boxes = given.boxes_of(sources)
    check_writable(out)
    network = given.network(workspace, method)
    options = PredictOptions(
        boxes=None if boxes is None else replace(boxes, pictures=()),
        side=given.side,
        camera=given.camera,
        min_confidence=given.min_confidence,
        every=given.every,
        vertices=given.vertices,
    )
    request = ShardRequest(given.settings(method, network), network, str(workspace.assets), options)
    place = storage.absolute(out)
    if not given.again:
        with_earlier(place, request.facts_of(sources.files))
    return PreparedShardRun(sources, request, boxes, place, workspace.assets, given.again, given.note())


def input_digests(workspace: Workspace, inputs: Sequence[str], out: str, model: str | None) -> dict[str, str]:
    """Everything that decides the results beside the options: the files and the network's weights."""
    files = "\n".join(f"{source.path} {source.mark}" for source in _sources(inputs, out).files)
    return {"files": short_digest(files), "model": bundle_digest(model_folder(workspace, model or OPEN))}


def default_place(workspace: Workspace, inputs: Sequence[str], *options: object) -> str:
    """WORKSPACE/predictions/DIGEST: a folder for these inputs and options, whatever the inputs hold now."""
    return str(workspace.root / "predictions" / short_digest(json.dumps([list(inputs), *options])))


def _sources(inputs: Sequence[str | Path], out: str) -> Sources:
    if not inputs:
        raise PredictError("no inputs: name pictures, films, folders of them, or an s3:// prefix")
    return find_sources(inputs, out)
