"""The steps that annotate shard sets: detected keypoints and MANO targets as sidecars."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from maskhand.annotate import keypoints, mano_targets
from maskhand.annotate.by_model import annotate_by_model
from maskhand.annotate.keypoint_targets import annotate_from_keypoints
from maskhand.annotate.registry import ON_GPU, detector_files
from maskhand.cluster.map import map_on_gpus, map_shards
from maskhand.cluster.session import ray_session
from maskhand.progress import Progress
from maskhand.shards.layout import MANO, keypoint_part
from maskhand.steps.data import PartReceipt, count_shards, part_receipt, uri_of_set
from maskhand.workspace import Workspace


def annotate_keypoints(
    workspace: Workspace, name: str, detector: str, progress: Progress, rebuild: bool = False
) -> PartReceipt:
    """Sidecar shards `keypoints.<detector>` of the shard set `name` (or the one at this URI)."""
    set_uri = uri_of_set(workspace, name)
    with ray_session():
        weights = detector_files(detector, workspace.assets)
        mapper: Any = partial(map_shards, carried=[weights])
        if detector in ON_GPU:
            mapper = partial(map_on_gpus, carried=[weights])
        manifest = keypoints.annotate_keypoints(
            set_uri, detector, workspace.assets, mapper=mapper, rebuild=rebuild, on_shard=count_shards(progress)
        )
    return part_receipt(set_uri, keypoint_part(detector), manifest)


def annotate_mano(
    workspace: Workspace,
    name: str,
    progress: Progress,
    rebuild: bool = False,
    model_folder: str | None = None,
    detector: str | None = None,
) -> PartReceipt:
    """Sidecar shards `mano` of the shard set `name` (or at this URI): canonical MANO targets.

    detector: targets are fitted to its keypoint sidecar, whatever labels there are; model_folder: an exported model
    whose predictions are the targets (pseudo ground truth), its keypoints beside them. ValueError for both.
    """
    if model_folder is not None and detector is not None:
        raise ValueError("MANO targets come from keypoints or from a model, not from both: leave one of them out")
    set_uri = uri_of_set(workspace, name)
    build, mapper = partial(mano_targets.annotate_mano, set_uri), map_shards
    if detector is not None:
        build = partial(annotate_from_keypoints, set_uri, detector)
    elif model_folder is not None:
        build, mapper = partial(annotate_by_model, set_uri, str(Path(model_folder).resolve())), map_on_gpus
    with ray_session():
        manifest = build(mapper=mapper, rebuild=rebuild, on_shard=count_shards(progress))
    return part_receipt(set_uri, MANO, manifest)
