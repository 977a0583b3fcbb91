"""2D keypoints of every hand of a shard set, as the sidecar part `keypoints.<detector>`.

The detector sees the picture as it is stored and the hand's annotated box and side; nothing is mirrored, so the
keypoints of a left hand are where a left hand's joints are. Mirroring happens once, when batches are made.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskhand.annotate.detectors import KeypointDetector, load_detector
from maskhand.annotate.pictures import decode_rgb
from maskhand.sample import SampleError
from maskhand.shards.build import Mapper, OnShard, serial_map
from maskhand.shards.layout import keypoint_part
from maskhand.shards.manifest import Manifest
from maskhand.shards.reader import ShardSample
from maskhand.shards.sidecar import Annotator, build_sidecar


@dataclass(frozen=True)
class AnnotateKeypoints:
    """Annotates the samples of one shard; picklable, loads its detector once per process."""

    detector: str
    assets: str

    def __call__(self, samples: list[ShardSample]) -> list[dict[str, np.ndarray] | SampleError]:
        """Per sample `keypoints_px` (21, 2), `confidence` (21,), `presence` () and `right_probability` (), float32."""
        return [self._one(sample) for sample in samples]

    def _one(self, row: ShardSample) -> dict[str, np.ndarray] | SampleError:
        sample = row.sample
        try:
            image = decode_rgb(sample)
        except SampleError as error:
            return error
        found = _detector(self.detector, self.assets).detect([image], sample.box_xyxy_px[None], [sample.side])
        return {
            "keypoints_px": found.keypoints_px[0],
            "confidence": found.confidence[0],
            "presence": found.presence[0],
            "right_probability": found.right_probability[0],
        }


@functools.lru_cache(maxsize=2)
def _detector(name: str, assets: str) -> KeypointDetector:
    return load_detector(name, assets)


def annotate_keypoints(
    set_uri: str,
    detector: str,
    assets: str | Path,
    *,
    mapper: Mapper = serial_map,
    rebuild: bool = False,
    on_shard: OnShard | None = None,
) -> Manifest:
    """Annotate every shard of a set that is not annotated yet.

    assets: folder of the detector's model files (fetched there when missing, see `maskhand.assets`). The manifest names
    the detector and its version. Raises ShardError when the part was made by another version (`rebuild=True` replaces
    it), AssetError when the model cannot be had.
    """
    annotator = Annotator(detector, _detector(detector, str(assets)).version)
    annotate = AnnotateKeypoints(detector, str(assets))
    part = keypoint_part(detector)
    return build_sidecar(set_uri, part, annotator, annotate, mapper=mapper, rebuild=rebuild, on_shard=on_shard)
