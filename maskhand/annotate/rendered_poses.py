"""MANO targets of rendered images, as the sidecar part `mano`: the poses with which synthetic letters were rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskhand.arrays import Array
from maskhand.kept_json import read_kept
from maskhand.sample import HandPose, SampleError
from maskhand.shards.layout import MANO
from maskhand.shards.manifest import Manifest
from maskhand.shards.part import Mapper, OnShard, serial_map
from maskhand.shards.reader import ShardSample
from maskhand.shards.sidecar import Annotator, build_sidecar
from maskhand.shards.sidecar_records import ManoTarget
from maskhand.synth.letters import POSES, RECORD

VERSION = "2"
"""Raise it whenever the targets change."""


@dataclass(frozen=True)
class RenderedPoses:
    """Annotates images of letters with the rendered hands; picklable."""

    poses: Mapping[str, Mapping[str, Array]]
    """Path of the image -> its pose."""

    def __call__(self, samples: list[ShardSample]) -> list[ManoTarget | SampleError]:
        return [self._entry(row.sample.key, row.sample.origin["path"]) for row in samples]

    def _entry(self, key: str, path: str) -> ManoTarget | SampleError:
        if path not in self.poses:
            return SampleError("no_mano", f"{key}: {path} is not in {POSES}")
        pose = HandPose(**{name: np.asarray(value, np.float32) for name, value in self.poses[path].items()})
        return ManoTarget(pose, "annotated", mirrored=False, residual_mm=0.0, residual_px=0.0)


def annotate_rendered(
    set_uri: str, root: Path, *, mapper: Mapper = serial_map, rebuild: bool = False, on_shard: OnShard | None = None
) -> Manifest:
    """Make the `mano` part of a set of rendered letters, from the poses.npz in `root`. Raises ShardError."""
    request = read_kept(root / RECORD, "render the letters again with --rebuild")
    with np.load(root / POSES, allow_pickle=False) as file:
        columns = {name: file[name] for name in file.files}
    paths = columns.pop("path")
    poses = {str(p): {name: column[k] for name, column in columns.items()} for k, p in enumerate(paths)}
    annotator = Annotator("rendered-poses", VERSION, request)
    return build_sidecar(
        set_uri, MANO, annotator, RenderedPoses(poses), mapper=mapper, rebuild=rebuild, on_shard=on_shard
    )
