"""Evaluation sets of masked hands (table 4 and supplement E: 80 % and 90 % of the hand hidden), derived from a set.

The paper does not say how it draws its masks, so this is the published generator: the hand's box grown by GROWTH about
its center is divided into GRID x GRID cells, and a share of them is painted black. Which ones is a pure function of the
seed and the sample's key. The masked images are a shard set of their own: 2D keypoints are detected on them like on
any other set, so that no detector has seen what is hidden. Labels, keys and order are those of the source.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import cv2
import numpy as np

from maskhand import storage
from maskhand.arrays import Array
from maskhand.digest import short_digest
from maskhand.sample import HandSample, SampleError
from maskhand.shards.codec import Members, encode_sample
from maskhand.shards.layout import FORMAT_VERSION, IMAGES, ShardError
from maskhand.shards.manifest import Manifest, ShardRecord
from maskhand.shards.part import Mapper, OnShard, build_part, serial_map
from maskhand.shards.reader import ShardSet
from maskhand.shards.writer import write_shard

VERSION = 1
"""Raise it when the same sample gets another mask."""
GRID, GROWTH = 16, 1.2


@dataclass(frozen=True)
class Masking:
    """How much is hidden, and by which draw."""

    share: float
    """Fraction of the cells that is hidden, above 0 and at most 1; rounded to whole cells."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share={self.share}: expected a number above 0 and at most 1, for example 0.8")


@dataclass(frozen=True)
class MaskTask:
    """One shard to derive."""

    source: ShardSet
    shard: int
    part_uri: str
    plan_digest: str
    masking: Masking


def masked_set(source_uri: str, masking: Masking) -> str:
    """Where the masked set of a set is kept: beside it, `.../evaluation` -> `.../evaluation-masked80`."""
    seed = f"-seed{masking.seed}" if masking.seed else ""
    return f"{source_uri.rstrip('/')}-masked{100 * masking.share:g}{seed}"


def build_masked(
    source_uri: str,
    masking: Masking,
    *,
    mapper: Mapper = serial_map,
    rebuild: bool = False,
    on_shard: OnShard | None = None,
) -> Manifest:
    """Derive the images of `masked_set`; resumable and reproducible like `build_shards`. Raises ShardError."""
    source = ShardSet.open(storage.absolute(source_uri))
    set_uri = masked_set(source.uri, masking)
    text = json.dumps([FORMAT_VERSION, VERSION, GRID, GROWTH, source.manifest.digest, asdict(masking)])
    plan_digest = short_digest(text)
    part_uri = storage.join(set_uri, IMAGES)

    about = replace(
        source.manifest,
        split=masked_set(source.manifest.split, masking),
        plan_digest=plan_digest,
        planned=source.manifest.count,
        annotator={"name": "masked", "version": str(VERSION), "settings": asdict(masking)},
        inputs={IMAGES: source.manifest.digest},
    )
    return build_part(
        set_uri,
        about,
        [entry.name for entry in source.manifest.shards],
        lambda shard: MaskTask(source, shard, part_uri, plan_digest, masking),
        write_masked_shard,
        mapper=mapper,
        rebuild=rebuild,
        on_shard=on_shard,
    )


def write_masked_shard(task: MaskTask) -> ShardRecord:
    """Mask and write one shard (runs in a worker)."""

    def outcomes() -> Iterator[tuple[str, Members | SampleError]]:
        for row in task.source.read_shard(task.shard):
            yield row.sample.key, encode_sample(mask_sample(row.sample, task.masking))

    return write_shard(task.part_uri, task.source.manifest.shards[task.shard].name, task.plan_digest, outcomes())


def mask_sample(sample: HandSample, masking: Masking) -> HandSample:
    """The sample with its hand masked, its image as a PNG, so that what is left is as it was."""
    # Annotations refer to the stored pixels, whatever orientation an EXIF tag names.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(sample.image, np.uint8), flags)
    if image is None:
        raise ShardError(f"{sample.key}: its image cannot be decoded; build the source set again")
    hidden = hidden_cells(sample.key, masking)
    x0, y0, x1, y1 = np.asarray(sample.box_xyxy_px, np.float64)
    grown = GROWTH / 2 * np.array([x1 - x0, y1 - y0])
    low, high = np.array([x0 + x1, y0 + y1]) / 2 - grown, np.array([x0 + x1, y0 + y1]) / 2 + grown
    size = np.array([image.shape[1], image.shape[0]])
    edges = np.clip(np.round(np.linspace(low, high, GRID + 1)), 0, size).astype(int)
    for row, column in np.argwhere(hidden):
        image[edges[row, 1] : edges[row + 1, 1], edges[column, 0] : edges[column + 1, 0]] = 0
    return replace(sample, image=cv2.imencode(".png", image)[1].tobytes(), image_format="png")


def hidden_cells(key: str, masking: Masking) -> Array:
    """(GRID, GRID) bool, rows from the top: which cells are hidden."""
    digest = hashlib.sha256(key.encode()).digest()
    draws = np.random.Philox(key=[masking.seed, int.from_bytes(digest[:8], "little")]).random_raw(GRID * GRID)
    hidden = np.zeros(GRID * GRID, bool)
    hidden[np.argsort(draws, kind="stable")[: round(masking.share * GRID * GRID)]] = True
    return hidden.reshape(GRID, GRID)
