"""The adapter protocol, and what layouts share to build a sample from an image, stored numbers and the card's facts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from maskhand import storage
from maskhand.adapters.readers.whole_images import whole_image
from maskhand.arrays import Array
from maskhand.catalog import CatalogError, DatasetSpec
from maskhand.conventions import AXES_TO_OPENCV, JOINT_ORDERS, NUM_JOINTS, Side
from maskhand.errors import MaskhandError
from maskhand.geometry2d import tight_box
from maskhand.sample import Camera, HandPose, HandSample, SampleError, all_finite

VERSION = 3
"""Version of the code that layouts share: this module, `keypoints_2d`, `mano_pose`, `quaternions`, `lens`; of `readers`
`whole_images`, `split_files`, `label_files`; `conventions`, `sample` and `hand.array_pickle`. Raise it when one of them
converts differently or lets other samples pass, so that shards of every layout are built anew."""

MENDABLE = frozenset({"missing_image", "bad_image", "cut_image", "wrong_size", "missing_label", "bad_label"})
"""Reasons for rejection that end when one file of that hand alone is copied again; label files of a whole split are
part of the plan."""


class RawDataError(MaskhandError, ValueError):
    """Raw files that cannot be used as a whole (missing, cut, another layout); the message states what to do."""


@dataclass(frozen=True)
class Item:
    """One hand to be read: small, picklable, and all that `Adapter.read` needs beside the image."""

    key: str
    """Letters, digits, `-` and `_`; unique in the dataset."""
    image_uri: str
    annotation: Mapping[str, Any]
    """The stored numbers of this hand, unconverted and unchecked."""
    origin: Mapping[str, Any]
    """Ids of the dataset, enough to find the annotation again."""


@dataclass(frozen=True)
class RawPlan:
    """Every hand of one split, in the official order; lives in the driver only."""

    keys: Sequence[str]
    item: Callable[[int], Item]
    """Position -> item, built on access, since a split may have millions."""
    source_digest: str
    """Hex digest that changes with the annotation files, the images (spot check) and the conversion."""
    notes: tuple[str, ...] = ()
    """Sentences about what was left out, for the manifest."""
    listed: int | None = None
    """Number of images or hands that the label files list, counted like the card's `splits`; None: not comparable."""


class Adapter(Protocol):
    """Reads one split of one published layout."""

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None: ...

    def present(self) -> bool:
        """Whether this split's annotation files are there at all."""

    def plan(self) -> RawPlan:
        """Read the annotation files; RawDataError when they are missing, cut or of another layout."""

    def read(self, item: Item) -> HandSample:
        """One hand in maskhand's conventions; SampleError with a countable reason when it cannot be read."""


def read_hand(adapter: Adapter, item: Item) -> HandSample:
    """The sample of an item, validated; SampleError when it must not enter a shard. Every hand is read through this."""
    sample = adapter.read(item)
    sample.validate(item.image_uri)
    return sample


@dataclass(frozen=True)
class Image:
    data: bytes
    format: str
    size_px: tuple[int, int]


def read_image(key: str, uri: str) -> Image:
    """Read and check one image; its bytes are kept as published."""
    try:
        data = storage.read_bytes(uri)
    except storage.MissingFileError:
        raise SampleError("missing_image", f"{key}: {uri} does not exist") from None
    return check_image(key, uri, data)


def check_image(key: str, uri: str, data: bytes) -> Image:
    """An image's bytes, which came from `uri`, if they are whole; SampleError (`bad_image`, `cut_image`)."""
    try:
        return Image(data, *whole_image(data))
    except TypeError:
        raise SampleError("bad_image", f"{key}: {uri} is neither a JPEG nor a PNG file") from None
    except ValueError as error:
        raise SampleError("cut_image", f"{key}: {uri} cannot be decoded to its end ({error}); copy it again") from None


def numbers(where: str, name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """A float64 array of exactly this shape; SampleError (`missing_field`, `wrong_shape`, `not_finite`) otherwise.

    `where` begins the sentence, with the sample's key and the file that holds the value: `f"{key}: {uri}"`.
    """
    if value is None:
        raise SampleError("missing_field", f"{where}: {name} is missing, expected shape {shape}")
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        found = f"a {type(value).__name__} that is no table of numbers"
        raise SampleError("wrong_shape", f"{where}: {name} is {found}, expected shape {shape}") from None
    if array.shape != shape:
        raise SampleError("wrong_shape", f"{where}: {name} has shape {array.shape}, expected {shape}")
    if not all_finite(array):
        raise SampleError("not_finite", f"{where}: {name} holds NaN or infinity, expected finite numbers")
    return array


def _constant(values: Any) -> Array:
    array = np.array(values)
    array.flags.writeable = False
    return array


_AXES = {name: _constant(factors) for name, factors in AXES_TO_OPENCV.items()}
_ORDERS = {name: _constant(order) for name, order in JOINT_ORDERS.items()}


def axes_to_opencv(spec: DatasetSpec) -> Array:
    """(3,) factors that take the dataset's camera axes to OpenCV's."""
    if spec.axes is None:
        raise CatalogError(f"{spec.name}: the card has axes: null, but its layout has labels in camera axes")
    return _AXES[spec.axes]


def joint_order(spec: DatasetSpec) -> Array:
    """(21,) `openpose = joints[joint_order(spec)]`."""
    if spec.joint_order is None:
        raise CatalogError(f"{spec.name}: the card has joint_order: null, but its layout has joints")
    return _ORDERS[spec.joint_order]


def hand_sample(
    spec: DatasetSpec,
    item: Item,
    image: Image,
    *,
    side: Side,
    box_xyxy_px: Array | None = None,
    camera: Camera | None = None,
    joints_2d_px: Array | None = None,
    joints_2d_conf: Array | None = None,
    joints_2d_occluded: Array | None = None,
    joints_cam_m: Array | None = None,
    joints_3d_valid: Array | None = None,
    vertices_cam_m: Array | None = None,
    mano: HandPose | None = None,
    more_origin: Mapping[str, Any] | None = None,
) -> HandSample:
    """The hand of an item, with the labels that exist; `HandSample` has their units and frames, and gets its dtypes.

    Of what is not named: every joint given is annotated; where there is a camera, 2D joints are the valid 3D ones seen
    by it; the box is the tight one around the annotated 2D joints, and the whole image where there are none.
    """
    everywhere = np.ones(NUM_JOINTS, bool)
    if joints_cam_m is not None:
        valid = joints_3d_valid = everywhere if joints_3d_valid is None else joints_3d_valid
        # Joints without annotation may hold a dummy position; zeros with a zero flag cannot be mistaken for one.
        joints_cam_m = np.where(valid[:, None], joints_cam_m, 0.0)
        if joints_2d_px is None and camera is not None:
            joints_2d_px, joints_2d_conf = np.zeros((NUM_JOINTS, 2)), valid
            joints_2d_px[valid] = camera.project(joints_cam_m[valid])
    box = np.array([0, 0, *image.size_px]) if box_xyxy_px is None else box_xyxy_px
    if joints_2d_px is not None:
        joints_2d_conf = everywhere if joints_2d_conf is None else joints_2d_conf
        if box_xyxy_px is None and (joints_2d_conf > 0).any():
            box = tight_box(joints_2d_px[joints_2d_conf > 0])
    return HandSample(
        key=item.key,
        dataset=spec.name,
        image=image.data,
        image_format=image.format,
        image_size_px=image.size_px,
        side=side,
        box_xyxy_px=box.astype(np.float32),
        camera=camera,
        joints_2d_px=_as(np.float32, joints_2d_px),
        joints_2d_conf=_as(np.float32, joints_2d_conf),
        joints_2d_occluded=_as(bool, joints_2d_occluded),
        joints_cam_m=_as(np.float32, joints_cam_m),
        joints_3d_valid=_as(bool, joints_3d_valid),
        vertices_cam_m=_as(np.float32, vertices_cam_m),
        mano=mano,
        origin={**item.origin, **(more_origin or {})},
    )


def _as(dtype: type, values: Array | None) -> Array | None:
    return None if values is None else values.astype(dtype)


def any_exists(uris: Sequence[str]) -> bool:
    return any(storage.exists(uri) for uri in uris)


def first_existing(uris: Sequence[str], what: str) -> str:
    """The first of several places where the layout may keep a file; RawDataError that names the first place."""
    for uri in uris:
        if storage.exists(uri):
            return uri
    raise RawDataError(f"{uris[0]}: {what} not found; see how_to_get in the dataset's card for the folder's layout")


def spot_check(uris: Sequence[str], count: int = 16) -> str:
    """Hex digest over `count` images spread evenly over the split: notices images that were made anew."""
    digest = hashlib.sha256()
    for position in np.linspace(0, len(uris) - 1, min(count, len(uris))).astype(int):
        uri = uris[position]
        digest.update(storage.read_bytes(uri) if storage.exists(uri) else b"missing")
    return digest.hexdigest()


def combined_digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
