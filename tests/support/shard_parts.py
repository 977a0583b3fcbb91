"""A small set in FreiHAND's layout with two bad images, and ways of building it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec, load_spec
from maskhand.sample import SampleError
from maskhand.shards.build import build_shards
from maskhand.shards.manifest import Manifest
from maskhand.shards.reader import ShardSample
from support.published_layouts import WRITERS, Fixture

SPEC = load_spec("freihand_synth").model_copy(update={"shard_size": 5, "mano": None, "images_per_annotation": {}})
COUNT = 23


def write_raw(folder: Path) -> Fixture:
    """23 hands; the image of hand 7 is cut and that of hand 11 is missing."""
    fixture = WRITERS["freihand"](folder, SPEC, "training", COUNT)
    paths = [truth.image_path for truth in fixture.truths.values()]
    paths[7].write_bytes(paths[7].read_bytes()[:-500])
    paths[11].unlink()
    return fixture


def build(raw: Fixture, folder: Path, spec: DatasetSpec = SPEC, **how: Any) -> Manifest:
    return build_shards(spec, str(raw.raw_dir), "training", str(folder), **how)


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def two_workers(fn: Callable, items: Sequence, *, on_done: Callable | None = None) -> list:
    """Last item first, two at a time. Processes take part in tests/integration/test_ray_map.py."""
    with ThreadPoolExecutor(2) as pool:
        coming = {
            position: pool.submit(fn, pickle.loads(pickle.dumps(items[position]))) for position in _backwards(items)
        }
        for done in as_completed(coming.values()):
            if on_done:
                on_done(done.result())
        return [coming[position].result() for position in range(len(items))]


def _backwards(items: Sequence) -> range:
    return range(len(items) - 1, -1, -1)


@dataclass(frozen=True)
class MeanJoint:
    """An entry of a sidecar that the package does not know."""

    mean_cam_m: np.ndarray

    def encode(self) -> dict[str, np.ndarray]:
        return {"mean_cam_m": self.mean_cam_m}


def annotate(samples: list[ShardSample]) -> list[MeanJoint | SampleError]:
    """Mean joint of every sample; hands with an odd official index have none."""
    return [
        SampleError("odd", "an odd index") if s.sample.origin["index"] % 2 else MeanJoint(s.sample.joints_cam_m.mean(0))  # type: ignore[union-attr]
        for s in samples
    ]
