"""The data steps: image shards, sidecars, and their verification."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from maskhand import storage
from maskhand.progress import Progress
from maskhand.shards.layout import IMAGES, MANO, ShardError, keypoint_part, manifest_uri
from maskhand.steps.receipt import Receipt
from maskhand.workspace import Workspace

if TYPE_CHECKING:
    from maskhand.shards.manifest import Manifest


def shard(
    workspace: Workspace, dataset: str, split: str, raw: str | None, progress: Progress, rebuild: bool = False
) -> Receipt:
    """Published files of one split -> image shards. `raw` is their folder, else WORKSPACE/raw/DATASET.

    `rebuild` replaces shards made from another card, raw data or code; without it they are an error.
    """
    from maskhand.catalog import load_spec
    from maskhand.cluster.map import map_shards
    from maskhand.cluster.session import ray_session
    from maskhand.shards.build import build_shards

    set_uri = workspace.shard_set(f"{dataset}/{split}")
    folder = raw_folder(workspace, dataset, raw)
    spec, on_shard = load_spec(dataset), _count(progress)
    with ray_session():
        manifest = build_shards(spec, folder, split, set_uri, mapper=map_shards, rebuild=rebuild, on_shard=on_shard)
    return part_receipt(set_uri, IMAGES, manifest)


def annotate_keypoints(
    workspace: Workspace, name: str, detector: str, progress: Progress, rebuild: bool = False
) -> Receipt:
    """Sidecar shards `keypoints.<detector>` of the shard set `name` (or the one at this URI)."""
    from maskhand.annotate.keypoints import annotate_keypoints as annotate
    from maskhand.annotate.registry import ON_GPU
    from maskhand.cluster.map import map_on_gpus, map_shards
    from maskhand.cluster.session import ray_session

    set_uri = uri_of_set(workspace, name)
    assets, on_shard = workspace.assets, _count(progress)
    with ray_session():
        mapper = map_on_gpus if detector in ON_GPU else map_shards
        manifest = annotate(set_uri, detector, assets, mapper=mapper, rebuild=rebuild, on_shard=on_shard)
    return part_receipt(set_uri, keypoint_part(detector), manifest)


def annotate_mano(
    workspace: Workspace,
    name: str,
    progress: Progress,
    rebuild: bool = False,
    model_folder: str | None = None,
    detector: str | None = None,
) -> Receipt:
    """Sidecar shards `mano` of the shard set `name` (or at this URI): canonical MANO targets.

    detector: targets are fitted to its keypoint sidecar, whatever labels there are; model_folder: an exported model
    whose predictions are the targets (pseudo ground truth), its keypoints beside them. ValueError for both.
    """
    from maskhand.annotate.keypoint_targets import annotate_from_keypoints
    from maskhand.annotate.mano_targets import annotate_mano as annotate
    from maskhand.cluster.map import map_on_gpus, map_shards
    from maskhand.cluster.session import ray_session

    if model_folder is not None and detector is not None:
        raise ValueError("MANO targets come from keypoints or from a model, not from both: leave one of them out")
    set_uri = uri_of_set(workspace, name)
    build, mapper = partial(annotate, set_uri), map_shards
    if detector is not None:
        build = partial(annotate_from_keypoints, set_uri, detector)
    elif model_folder is not None:
        from maskhand.evaluation.pseudo_truth import annotate_by_model

        build, mapper = partial(annotate_by_model, set_uri, str(Path(model_folder).resolve())), map_on_gpus
    with ray_session():
        manifest = build(mapper=mapper, rebuild=rebuild, on_shard=_count(progress))
    return part_receipt(set_uri, MANO, manifest)


def mask(
    workspace: Workspace, name: str, share: float, seed: int, progress: Progress, rebuild: bool = False
) -> Receipt:
    """The shard set `name` (or at this URI) with a share of every hand hidden, as a set of its own beside it."""
    from maskhand.cluster.map import map_shards
    from maskhand.cluster.session import ray_session
    from maskhand.shards.masked import Masking, build_masked, masked_set

    masking, source = Masking(share, seed), uri_of_set(workspace, name)
    with ray_session():
        manifest = build_masked(source, masking, mapper=map_shards, rebuild=rebuild, on_shard=_count(progress))
    return part_receipt(masked_set(source, masking), IMAGES, manifest)


def splits(workspace: Workspace, dataset: str, raw: str | None) -> list[str]:
    """The splits of a dataset whose published files are there."""
    from maskhand.adapters import present_splits
    from maskhand.catalog import load_spec

    return list(present_splits(load_spec(dataset), raw_folder(workspace, dataset, raw)))


def checked_splits(workspace: Workspace, dataset: str, raw: str | None, asked: Sequence[str]) -> list[str]:
    """The splits that are asked for, else those whose files are there; CatalogError for a name that the card lacks."""
    from maskhand.catalog import load_spec

    spec = load_spec(dataset)
    for split in asked:
        spec.check_split(split)
    return list(asked) or splits(workspace, dataset, raw)


def raw_folder(workspace: Workspace, dataset: str, raw: str | None) -> str:
    """Where the published files of a dataset are: `raw`, else WORKSPACE/raw/DATASET."""
    return raw or str(workspace.raw / dataset)


def verify(workspace: Workspace, name_or_uri: str) -> list[str]:
    """What is wrong with a shard set and its sidecars, a sentence each; empty when they are whole."""
    from maskhand.shards.verify import verify as problems

    return [p.message for p in problems(uri_of_set(workspace, name_or_uri))]


def part_receipt(set_uri: str, part: str, manifest: Manifest) -> Receipt:
    """Names the manifest of a finished part, with what was left out of it."""
    part_uri = storage.join(set_uri, part)
    numbers: dict[str, float | int | str] = {
        "samples": manifest.count,
        "rejected": sum(manifest.rejects.values()),
        "data_digest": manifest.digest,
    }
    if manifest.rejects:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(manifest.rejects.items()))
        numbers["left_out"] = f"{reasons}; a sentence about each is in {storage.join(part_uri, '0*.json')}"
    if manifest.notes:
        numbers["notes"] = "; ".join(manifest.notes)
    return Receipt.of(manifest_uri(part_uri), **numbers)


def _count(progress: Progress) -> Callable[[object], None]:
    """A callback for one finished shard after the other; how many there will be is the builder's secret."""
    finished = 0

    def on_shard(_record: object) -> None:
        nonlocal finished
        finished += 1
        progress(finished, 0, f"{finished} shards")

    return on_shard


def uri_of_set(workspace: Workspace, name_or_uri: str) -> str:
    """Where a shard set is: a URI or an existing folder as it is, a name such as freihand/training in the workspace.

    ShardError for a name of which there is nothing in the workspace's folder.
    """
    if "://" in name_or_uri or Path(name_or_uri).is_dir():
        return storage.absolute(name_or_uri)
    set_uri, root = workspace.shard_set(name_or_uri), workspace.shards_uri
    if not storage.is_remote(root) and IMAGES not in storage.list_folders(set_uri):
        there = [f"{d}/{s}" for d in storage.list_folders(root) for s in storage.list_folders(storage.join(root, d))]
        of_dataset = [name for name in there if name.startswith(f"{name_or_uri}/")]
        near = of_dataset or difflib.get_close_matches(name_or_uri, there, n=1)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(there) or 'none'}"
        raise ShardError(f"{name_or_uri}: no such shard set in {root}; {hint}")
    return set_uri
