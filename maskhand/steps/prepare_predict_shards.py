"""The options of a prediction run on workers, checked before torch is imported and Ray starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maskhand import storage
from maskhand.conventions import Side
from maskhand.digest import short_digest
from maskhand.disk import check_writable
from maskhand.models.bundle_records import bundle_digest, bundle_facts
from maskhand.predict.box_file import BoxFile
from maskhand.predict.inputs import Sources, find_sources
from maskhand.predict.pictures import GivenCamera
from maskhand.predict.records import Method, PredictError
from maskhand.predict.shard_options import ShardRunOptions, with_earlier
from maskhand.shipped_models import OPEN
from maskhand.steps.models import model_folder
from maskhand.steps.prepare_predict import check_camera, checked_method, fallback_note, given_boxes
from maskhand.workspace import Workspace

if TYPE_CHECKING:
    from maskhand.placement import PlacedBy


@dataclass(frozen=True)
class PreparedShardRun:
    """A run on workers whose options are checked, ready for `steps.predict_shards.predict_by_workers`."""

    sources: Sources
    options: ShardRunOptions
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
    workspace: Workspace,
    inputs: Sequence[str | Path],
    out: str,
    *,
    model: str | None = None,
    boxes: Path | None = None,
    side: Side | None = None,
    focal_px: float | None = None,
    intrinsics: tuple[float, float, float, float] | None = None,
    placed_by: PlacedBy = "keypoints",
    method: Method | None = None,
    hypotheses: int = 0,
    min_confidence: float = 0.0,
    every: int = 1,
    vertices: bool = False,
    again: bool = False,
) -> PreparedShardRun:
    """The run that finds the hands of pictures and films, as shards below `out`, a folder or `s3://` prefix.

    Options as in `prepare_predict.prepare_run`. Raises PredictError, and StorageError where nothing can be written.
    """
    note = fallback_note(model, method)
    method, needs_network = checked_method(model, method, placed_by, hypotheses)
    check_camera(focal_px, intrinsics)
    sources = _sources(inputs, out)
    given = None if boxes is None else given_boxes(boxes, sources)
    check_writable(out)
    folder = model_folder(workspace, model or OPEN) if needs_network else None
    options = ShardRunOptions(
        None if folder is None else (folder, bundle_facts(folder)),
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
    place = storage.absolute(out)
    if not again:
        with_earlier(place, options.facts_of(sources.files))
    return PreparedShardRun(sources, options, given, place, workspace.assets, again, note)


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
