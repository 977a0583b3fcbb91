"""HaMeR's training tars: WebDataset tars of whole images with a pickled list of hands beside each.

Facts: docs/formats.md#hamer.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maskhand import storage
from maskhand.adapters.base import Item, RawDataError, RawPlan, check_image, combined_digest, hand_sample, numbers
from maskhand.adapters.layouts.hamer_labels import HamerLabels, read_labels
from maskhand.adapters.mano_pose import mano_reader
from maskhand.adapters.readers.label_files import field
from maskhand.adapters.readers.tar_index import NOWHERE, Span, index_tar
from maskhand.catalog import CatalogError, DatasetSpec, LabelFilters
from maskhand.hand.array_pickle import UnreadablePickleError, UnsafePickleError, read_array_pickle
from maskhand.sample import HandSample, SampleError

VERSION = 2
"""Raise it when the conversion changes, so that shards are built anew."""

LABELS = "data.pyd"
IMAGES = ("jpg", "jpeg", "png")
PIXELS_PER_SCALE = 200.0
_FIELDS = ("keypoints_2d", "keypoints_3d", "center", "scale", "right")
_OPTIONAL = ("hand_pose", "betas", "has_hand_pose", "has_betas")
_SPOT_CHECKS = 16
_READERS = 8
"""Tars on S3 that are indexed side by side: each is streamed whole, and one connection is slower than a store. Local
ones are skipped through, in which threads would only wait for the interpreter."""


class HamerTarsLayout:
    """`<split>/*.tar` with `{key}.jpg` and `{key}.data.pyd`; the split is the name of HaMeR's tar folder."""

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        if spec.filters is None:
            raise CatalogError(f"{spec.name}: the layout hamer_tars needs the key filters in its card")
        self.spec, self.split, self.filters = spec, split, spec.filters
        places = ("hamer_training_data/dataset_tars", "dataset_tars", "")
        self.folders = [storage.join(raw_dir, place, split) for place in places]
        self.mano, self.notes = mano_reader(spec)

    def present(self) -> bool:
        return any(_tars(folder) for folder in self.folders)

    def plan(self) -> RawPlan:
        """Index every tar once; labels are counted, not converted."""
        tars = next((found for folder in self.folders if (found := _tars(folder))), [])
        if not tars:
            raise RawDataError(f"{self.folders[0]}: tars not found; see how_to_get in the dataset's card")
        with ThreadPoolExecutor(_READERS if storage.is_remote(tars[0]) else 1) as pool:
            indices = list(pool.map(_index, tars))
        # Tar, then the columns of its rows.
        rows = np.concatenate([np.insert(index.rows, 0, tar, axis=1) for tar, index in enumerate(indices)])

        def item(position: int) -> Item:
            tar, image, hand, *spans = (int(v) for v in rows[position])
            origin = {"tar": _stem(tars[tar]), "member": indices[tar].members[image], "hand": hand}
            annotation = {"hand": hand, "image": Span(*spans[:2]), "labels": Span(*spans[2:])}
            return Item(keys[position], tars[tar], annotation, origin)

        keys = [f"{self.split}-{_stem(tars[tar])}-{image:06d}-{hand}" for tar, image, hand in rows[:, :3]]
        spots = np.linspace(0, len(keys) - 1, min(_SPOT_CHECKS, len(keys))).astype(int)
        images = (_read_span(tars[rows[k, 0]], Span(*rows[k, 3:5].tolist())) for k in spots)
        digest = combined_digest(
            f"hamer tars layout {VERSION}",
            self.mano.digest() if self.mano else "no mano",
            *(index.digest for index in indices),
            *(hashlib.sha256(data or b"missing").hexdigest() for data in images),
        )
        return RawPlan(keys, item, digest, self.notes, listed=len(keys))

    def read(self, item: Item) -> HandSample:
        key = item.key
        labels = self._labels(item)
        data = _read_span(item.image_uri, item.annotation["image"])
        if data is None:
            raise SampleError("missing_image", f"{key}: {item.origin['member']} has no image in {item.image_uri}")
        image = check_image(key, item.image_uri, data)
        return hand_sample(
            self.spec,
            item,
            image,
            side=labels.side,
            mano=labels.mano(self.spec, self.mano),
            more_origin={"box_xyxy_px": labels.box_xyxy_px.tolist()},
            **labels.joints(self.spec),
        )

    def _labels(self, item: Item) -> HamerLabels:
        """The hand's labels after the card's filters; SampleError where those leave the hand out."""
        key = item.key
        data = _read_span(item.image_uri, item.annotation["labels"])
        if data is None:
            raise SampleError("missing_label", f"{key}: {item.origin['member']}.{LABELS} is not in {item.image_uri}")
        name = f"{item.image_uri}: {item.origin['member']}.{LABELS}"
        try:
            hands = read_array_pickle(data, name)
        except UnsafePickleError as error:
            raise SampleError("unsafe_pickle", f"{key}: {error}") from None
        except UnreadablePickleError as error:
            raise SampleError("bad_label", f"{key}: {error}; copy the tar again") from None
        if not isinstance(hands, list) or not isinstance(hands[item.annotation["hand"]], dict):
            raise SampleError("bad_label", f"{key}: {name} is not a list of hands")
        stored = hands[item.annotation["hand"]]
        where = f"{key}: {name}"
        required = {required: field(where, stored, required) for required in _FIELDS}
        labels = read_labels(where, {o: stored.get(o) for o in _OPTIONAL} | required, PIXELS_PER_SCALE)
        return _filtered(where, labels, _reprojection_loss(where, stored), self.filters)


def _filtered(where: str, labels: HamerLabels, loss: float | None, filters: LabelFilters) -> HamerLabels:
    """HaMeR's filters, in its order: doubtful keypoints, strange shapes, few keypoints, bad fits."""
    assert labels.keypoints_2d is not None, "a required field"
    keypoints = labels.keypoints_2d.copy()
    keypoints[keypoints[:, 2] < filters.min_keypoint_conf, 2] = 0
    count = int((keypoints[:, 2] > 0).sum())
    if count < filters.min_keypoints:
        raise SampleError("few_keypoints", f"{where}: {count} annotated keypoints, expected {filters.min_keypoints}")
    if loss is not None and not loss < filters.max_reprojection_loss:
        raise SampleError(
            "bad_fit", f"{where}: reprojection loss {loss:g}, the limit is {filters.max_reprojection_loss:g}"
        )
    if labels.betas is not None and np.abs(labels.betas).max() > filters.max_abs_beta:
        labels = replace(labels, pose=None, betas=None)
    return replace(labels, keypoints_2d=keypoints)


def _reprojection_loss(where: str, stored: dict[str, Any]) -> float | None:
    """`extra_info["fitting_loss"]` is an array without dimensions around a dictionary; every part may be absent."""
    extra = stored.get("extra_info")
    losses = extra.get("fitting_loss") if isinstance(extra, dict) else None
    losses = losses.item() if isinstance(losses, np.ndarray) and losses.ndim == 0 else losses
    loss = losses.get("reprojection_loss") if isinstance(losses, dict) else None
    return None if loss is None else float(numbers(where, "reprojection_loss", np.ravel(loss), (1,))[0])


@dataclass(frozen=True)
class _TarIndex:
    """Every hand of one tar, compact: a split holds more than a million."""

    rows: np.ndarray
    """(N, 6) int64: image in the tar, hand in it; offset and length of the image, then of the labels."""
    members: Sequence[str]
    """WebDataset key of every image."""
    digest: str
    """Over all labels and the places of all images."""


def _index(uri: str) -> _TarIndex:
    rows, members, digest = array("q"), list[str](), hashlib.sha256()
    for sample in index_tar(uri, read=(LABELS,)):
        labels = sample.contents.get(LABELS, b"")
        image = next((sample.members[name] for name in IMAGES if name in sample.members), NOWHERE)
        place = sample.members.get(LABELS, NOWHERE)
        digest.update(f"{sample.key} {image} {place}\n".encode() + labels)
        for hand in range(_count_hands(labels)):
            rows.extend((len(members), hand, image.offset, image.length, place.offset, place.length))
        members.append(sample.key)
    return _TarIndex(np.array(rows, np.int64).reshape(-1, 6), members, digest.hexdigest())


def _read_span(uri: str, span: Span) -> bytes | None:
    return None if span == NOWHERE else storage.read_range(uri, span.offset, span.length)


def _count_hands(labels: bytes) -> int:
    """Hands of one image; a label that cannot be read counts as one, which is rejected when it is read."""
    try:
        hands = read_array_pickle(labels, LABELS)
    except (UnsafePickleError, UnreadablePickleError):
        return 1
    return len(hands) if isinstance(hands, list) else 1


def _tars(folder: str) -> list[str]:
    return [uri for uri in storage.list_uris(folder) if uri.endswith(".tar")]


def _stem(uri: str) -> str:
    return uri.rsplit("/", 1)[-1].removesuffix(".tar")
