"""The steps of the images: shards of published files, masked sets, and their verification."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskhand import storage
from maskhand.adapters import check_present, present_splits
from maskhand.catalog import load_spec
from maskhand.cluster.map import map_shards
from maskhand.cluster.session import ray_session
from maskhand.progress import Progress
from maskhand.shards.build import build_shards
from maskhand.shards.layout import IMAGES, ShardError, manifest_uri
from maskhand.shards.manifest import Manifest
from maskhand.shards.masked import Masking, build_masked, masked_set
from maskhand.shards.verify import verify as problems
from maskhand.steps.receipt import Receipt
from maskhand.workspace import Workspace


@dataclass(frozen=True)
class PartReceipt(Receipt):
    """Names the manifest of a part of a shard set."""

    samples: int
    rejected: int
    """Hands of the plan that are in no shard."""
    data_digest: str
    left_out: str = ""
    """How many were rejected for which reason, and where to read about each."""
    notes: str = ""


def shard(
    workspace: Workspace, dataset: str, split: str, raw: str | None, progress: Progress, rebuild: bool = False
) -> PartReceipt:
    """Published files of one split -> image shards. `raw` is their folder, else WORKSPACE/raw/DATASET.

    `rebuild` replaces shards made from another card, raw data or code; without it they are an error.
    """
    set_uri = workspace.shard_set(f"{dataset}/{split}")
    folder = raw_folder(workspace, dataset, raw)
    spec, on_shard = load_spec(dataset), count_shards(progress)
    with ray_session():
        manifest = build_shards(spec, folder, split, set_uri, mapper=map_shards, rebuild=rebuild, on_shard=on_shard)
    return part_receipt(set_uri, IMAGES, manifest)


def mask(
    workspace: Workspace, name: str, share: float, seed: int, progress: Progress, rebuild: bool = False
) -> PartReceipt:
    """The shard set `name` (or at this URI) with a share of every hand hidden, as a set of its own beside it."""
    masking, source = Masking(share, seed), uri_of_set(workspace, name)
    with ray_session():
        manifest = build_masked(source, masking, mapper=map_shards, rebuild=rebuild, on_shard=count_shards(progress))
    return part_receipt(masked_set(source, masking), IMAGES, manifest)


def splits(workspace: Workspace, dataset: str, raw: str | None) -> list[str]:
    """The splits of a dataset whose published files are there."""
    return list(present_splits(load_spec(dataset), raw_folder(workspace, dataset, raw)))


def checked_splits(workspace: Workspace, dataset: str, raw: str | None, wanted: Sequence[str]) -> list[str]:
    """The wanted splits, else those whose files are there; CatalogError for a name that the card lacks, RawDataError
    where none of them is there."""
    spec = load_spec(dataset)
    for split in wanted:
        spec.check_split(split)
    if wanted:
        check_present(spec, raw_folder(workspace, dataset, raw), wanted)
    return list(wanted) or splits(workspace, dataset, raw)


def raw_folder(workspace: Workspace, dataset: str, raw: str | None) -> str:
    """Where the published files of a dataset are: `raw`, else WORKSPACE/raw/DATASET."""
    return raw or str(workspace.raw / dataset)


def verify(workspace: Workspace, name_or_uri: str) -> list[str]:
    """What is wrong with a shard set and its sidecars, a sentence each; empty when they are whole."""
    return [p.message for p in problems(uri_of_set(workspace, name_or_uri))]


def part_receipt(set_uri: str, part: str, manifest: Manifest) -> PartReceipt:
    """Names the manifest of a finished part, with what was left out of it."""
    part_uri = storage.join(set_uri, part)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(manifest.rejects.items()))
    return PartReceipt.of(
        manifest_uri(part_uri),
        samples=manifest.count,
        rejected=sum(manifest.rejects.values()),
        data_digest=manifest.digest,
        left_out=f"{reasons}; a sentence about each is in {storage.join(part_uri, '0*.json')}" if reasons else "",
        notes="; ".join(manifest.notes),
    )


def count_shards(progress: Progress) -> Callable[[object], None]:
    """A callback for one finished shard after the other, of which only the builder knows the total."""
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
    set_uri, root = workspace.shard_set(name_or_uri.rstrip("/")), workspace.shards_uri
    if not storage.is_remote(root) and IMAGES not in storage.list_folders(set_uri):
        there = [f"{d}/{s}" for d in storage.list_folders(root) for s in storage.list_folders(storage.join(root, d))]
        of_dataset = [name for name in there if name.startswith(f"{name_or_uri}/")]
        near = of_dataset or difflib.get_close_matches(name_or_uri, there, n=1)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(there) or 'none'}"
        raise ShardError(f"{name_or_uri}: no such shard set in {root}; {hint}")
    return set_uri
