"""MANO targets of hands without labels, as the sidecar part `mano`: fits to detected keypoints.

The fit is that of `maskhand predict`: to 2D keypoints and, from a detector with depth, depth and world landmarks. Only
good targets are used for training, which makes real photos usable: all fingers were seen, the hand is large enough, and
the fit is close to its keypoints (`annotate.fit.hands`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskhand.annotate.detectors import Detections
from maskhand.annotate.fit.detected import observe
from maskhand.annotate.fit.evidence import Evidence
from maskhand.annotate.fit.hands import target_of_fit
from maskhand.annotate.mano_targets import Entry, fitter_of
from maskhand.hand.assumed_camera import assumed_camera
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.sample import HandSample, SampleError
from maskhand.shards.layout import MANO, keypoint_part
from maskhand.shards.manifest import Manifest
from maskhand.shards.part import Mapper, OnShard, serial_map
from maskhand.shards.reader import ShardSample
from maskhand.shards.sidecar import Annotator, build_sidecar

VERSION = "2"


@dataclass(frozen=True)
class AnnotateFromKeypoints:
    """Makes the targets of one shard; picklable, loads the hand model once per process."""

    hand_path: str
    detector: str
    """Name of the detector whose keypoint sidecar is used."""

    def __call__(self, samples: list[ShardSample]) -> list[Entry]:
        """For each sample, in order, its target, or why it has none."""
        found = {k: keypoints for k, row in enumerate(samples) if (keypoints := row.keypoints(self.detector))}
        entries: list[Entry] = [
            SampleError("no_keypoints", f"{row.sample.key}: the detector gave no keypoints of it") for row in samples
        ]
        if not found:
            return entries
        hands = [samples[k].sample for k in found]
        detections, cameras = Detections.of_hands([*found.values()]), np.stack([_camera(hand) for hand in hands])
        sizes = np.array([hand.image_size_px for hand in hands])
        observed = observe(detections, [hand.side for hand in hands], sizes, cameras)
        fits = fitter_of(self.hand_path, "smplx").fit(observed)
        for place, k in enumerate(found):
            evidence = Evidence.of(detections.confidence[place])
            mirrored = hands[place].side == "left"
            entries[k] = target_of_fit(fits, place, evidence, "keypoints", mirrored=mirrored)
        return entries


def _camera(hand: HandSample) -> np.ndarray:
    return assumed_camera(hand.image_size_px) if hand.camera is None else hand.camera.K_px.astype(np.float64)


def annotate_from_keypoints(
    set_uri: str,
    detector: str,
    *,
    hand_path: str | Path | None = None,
    mapper: Mapper = serial_map,
    rebuild: bool = False,
    on_shard: OnShard | None = None,
) -> Manifest:
    """Make the `mano` part of a set from its sidecar `keypoints.DETECTOR`; labels are not used.

    Raises ShardError if the keypoints are missing, or the part was made in another way (`rebuild=True` replaces it).
    """
    path = str(default_hand_path("right") if hand_path is None else hand_path)
    annotator = Annotator("mano-from-keypoints", VERSION, {"hand_model": load_hand_model(path).digest})
    return build_sidecar(
        set_uri,
        MANO,
        annotator,
        AnnotateFromKeypoints(path, detector),
        inputs=(keypoint_part(detector),),
        mapper=mapper,
        rebuild=rebuild,
        on_shard=on_shard,
    )
