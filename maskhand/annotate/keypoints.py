"""2D keypoints of every hand of a shard set, as the sidecar part `keypoints.<detector>`.

The detector gets the stored image and the hand's annotated box and side; nothing is mirrored, so the keypoints of a
left hand are at its joints in the stored image. Mirroring is done when batches are made.
"""

from __future__ import annotations

import functools
import itertools
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskhand.annotate.detectors import KeypointDetector
from maskhand.annotate.images import decode_rgb
from maskhand.annotate.registry import load_detector
from maskhand.carried import OtherFileError
from maskhand.sample import SampleError
from maskhand.shards.layout import keypoint_part
from maskhand.shards.manifest import Manifest
from maskhand.shards.part import Mapper, OnShard, serial_map
from maskhand.shards.read_ahead import in_order
from maskhand.shards.reader import ShardSample
from maskhand.shards.sidecar import Annotator, build_sidecar
from maskhand.shards.sidecar_records import DetectedKeypoints

_AT_ONCE = 16
"""Number of hands per detector call."""
_DECODERS = 4
"""Number of threads that decode images: a single one cannot keep up with a GPU (one hand per millisecond)."""


@dataclass(frozen=True)
class AnnotateKeypoints:
    """Annotates the samples of one shard; picklable, loads its detector once per process."""

    detector: str
    assets: str
    version: str
    """Version of the detector on the driver; a worker with another version raises OtherFileError."""

    def __call__(self, samples: list[ShardSample]) -> list[DetectedKeypoints | SampleError]:
        """For each sample, in order, its detected keypoints, or why there are none."""
        detector = _detector(self.detector, self.assets)
        if detector.version != self.version:
            raise OtherFileError(
                f"{self.assets}: the detector {self.detector} is {detector.version} on {socket.gethostname()}, and "
                f"{self.version} on the machine that started the work; copy its weights there"
            )
        answers: list[DetectedKeypoints | SampleError] = []
        with ThreadPoolExecutor(_DECODERS) as pool:
            images = in_order(pool, _image, samples, ahead=2 * _AT_ONCE)
            for start in range(0, len(samples), _AT_ONCE):
                rows = samples[start : start + _AT_ONCE]
                answers += _answers(detector, rows, list(itertools.islice(images, len(rows))))
        return answers


def _image(row: ShardSample) -> np.ndarray | SampleError:
    try:
        return decode_rgb(row.sample)
    except SampleError as error:
        return error


def _answers(
    detector: KeypointDetector, rows: Sequence[ShardSample], images: Sequence[np.ndarray | SampleError]
) -> Iterator[DetectedKeypoints | SampleError]:
    readable = [(row.sample, p) for row, p in zip(rows, images, strict=True) if not isinstance(p, SampleError)]
    found = detector.detect(
        [image for _, image in readable],
        np.array([sample.box_xyxy_px for sample, _ in readable]).reshape(-1, 4),
        [sample.side for sample, _ in readable],
    )
    hands = iter(found.hands())
    for image in images:
        yield image if isinstance(image, SampleError) else next(hands)


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
    """Annotate all shards of a set that are not annotated yet.

    assets: folder of the detector's model files (downloaded if missing, see `fetched_models`). The manifest names the
    detector and its version. Raises ShardError if the part was made by another version (`rebuild=True` replaces it),
    AssetError if the model is not available.
    """
    annotator = Annotator(detector, _detector(detector, str(assets)).version)
    annotate = AnnotateKeypoints(detector, str(assets), annotator.version)
    part = keypoint_part(detector)
    return build_sidecar(set_uri, part, annotator, annotate, mapper=mapper, rebuild=rebuild, on_shard=on_shard)
