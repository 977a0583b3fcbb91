"""Labeled images of your own as a shard set: `python examples/own_dataset.py FOLDER SET`.

FOLDER holds images and `hands.csv`, a row per hand: image, right or left, and x, y of 21 keypoints in pixels (OpenPose
order). Cameras, 3D joints, MANO parameters, and a test that catches mistakes: docs/add_a_dataset.md.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from maskhand.adapters.base import Item, RawPlan, combined_digest, numbers, read_image, spot_check
from maskhand.adapters.keypoints_2d import hand_in_2d
from maskhand.catalog import DatasetSpec
from maskhand.sample import HandSample
from maskhand.shards.build import build_shards
from maskhand.shards.reader import ShardSet

CARD = {
    "name": "snapshots",
    "title": "My snapshots",
    "layout": "own_dataset:SnapshotLayout",  # this file and the class below
    "license": {"name": "mine", "commercial_use": False, "redistribution": False},
    "how_to_get": "Run the camera.",
    "splits": {"train": None},
    "joint_order": "openpose21",
    "fingertip_vertices": None,  # clicked, not vertices of a mesh
    "units": None,  # keypoints in the image only
    "axes": None,
    "mano": None,
    "handedness": "both",
    "shard_size": 1000,
}


class SnapshotLayout:
    """`hands.csv` beside the images that it names."""

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        self.spec, self.folder, self.split = spec, Path(raw_dir), split

    def present(self) -> bool:
        return (self.folder / "hands.csv").is_file()

    def plan(self) -> RawPlan:
        text = (self.folder / "hands.csv").read_text()
        rows = list(csv.reader(text.splitlines()))
        images = [str(self.folder / row[0]) for row in rows]
        keys = [f"{self.split}-{position:06d}" for position in range(len(rows))]
        return RawPlan(
            keys,
            lambda position: Item(keys[position], images[position], rows[position], {"row": position}),
            combined_digest("snapshots 1", text, spot_check(images)),  # new labels, images or reader: a new set
        )

    def read(self, item: Item) -> HandSample:
        where = f"{item.key}: {self.folder / 'hands.csv'}"
        points_px = numbers(where, "keypoints", item.annotation[2:], (42,)).reshape(21, 2)
        image = read_image(item.key, item.image_uri)
        return hand_in_2d(self.spec, item, where, image, item.annotation[1], points_px, np.ones(21))


def main(folder: str, shard_set: str) -> None:
    manifest = build_shards(DatasetSpec.model_validate(CARD), folder, "train", shard_set)
    print(f"{manifest.count} hands, left out: {manifest.rejects or 'none'}")
    for row in ShardSet.open(shard_set):
        print(row.sample.key, row.sample.side, row.sample.box_xyxy_px)


if __name__ == "__main__":
    main(*sys.argv[1:])
