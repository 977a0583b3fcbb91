"""Measure a detector's errors on a shard set, from the repository's root:

    python -m tools.detector_errors WORKSPACE/shards/freihand_synth/training --out maskhand/loading/detector_errors.npz

The set needs 2D and 3D joints, and the detector's keypoint sidecar with depth. The shipped file is of the first 1,600
of 2,000 rendered hands of the quickstart (`maskhand quickstart`), and litert-hand.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

from maskhand.loading.augment import ImageAugmentation
from maskhand.loading.collate import detected_pose, place_crops, true_pose
from maskhand.loading.detector_errors import SHIPPED, DetectorErrors, measure_errors, write_errors
from maskhand.loading.labels import stack_labels
from maskhand.shards.layout import keypoint_part
from maskhand.shards.reader import ShardSet

CROP_PX = 256
"""Any size: errors are in sizes of the hand."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", help="shard set")
    parser.add_argument("--detector", default="litert-hand")
    parser.add_argument("--most", type=int, default=1600, help="number of hands")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    errors = errors_of_set(arguments.set, arguments.detector, arguments.most)
    write_errors(arguments.out, errors)
    found = (errors.confidence > 0).any(axis=1)
    distance = np.linalg.norm(errors.relief[found, :, :2], axis=2).mean()
    world_mm = 1000 * np.linalg.norm(errors.world_m[found], axis=2).mean()
    print(f"{arguments.out}: {len(errors):,} hands, {(~found).sum()} missed, {arguments.out.stat().st_size:,} bytes")
    print(f"mean error: {distance:.3f} of the longer side, world landmarks {world_mm:.1f} mm relative to the wrist")


def errors_of_set(set_uri: str, detector: str, most: int) -> DetectorErrors:
    """The errors of the first `most` hands, left ones mirrored."""
    shards = ShardSet.open(set_uri, (keypoint_part(detector),))
    rows = list(itertools.islice(shards.between(0, len(shards)), most))
    labels = stack_labels([r.sample for r in rows], [r.keypoints(detector) for r in rows], [None] * len(rows))
    crops = place_crops(labels, 1.2, CROP_PX, 1.0, ImageAugmentation.none(len(rows)))
    return measure_errors(detected_pose(labels, crops, CROP_PX), true_pose(labels, crops, CROP_PX))


if __name__ == "__main__":
    main()
