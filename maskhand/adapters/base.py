"""The adapter protocol, and what layouts share to build a sample from an image, stored numbers and the card's facts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from maskhand import storage
from maskhand.adapters.image_files import Image as Image
from maskhand.adapters.image_files import check_image as check_image
from maskhand.adapters.image_files import check_upright
from maskhand.adapters.image_files import read_image as read_image
from maskhand.arrays import Array
from maskhand.catalog import CatalogError, DatasetSpec
from maskhand.conventions import AXES_TO_OPENCV, JOINT_ORDERS, NUM_JOINTS, Side
from maskhand.errors import MaskhandError
from maskhand.geometry2d import tight_box
from maskhand.sample import Camera, HandPose, HandSample, SampleError, all_finite

VERSION = 5
"""Version of the code that layouts share: this module, `image_files`, `keypoints_2d`, `mano_pose`, `quaternions`,
`lens`; of `readers` `whole_images`, `split_files`, `label_files`; `conventions`, `sample` and `hand.array_pickle`.
Raise it when one of them converts differently or lets other samples pass, so that all shards are built anew."""

MENDABLE = frozenset(
    {
        "missing_image",
        "bad_image",
        "cut_image",
        "empty_image",
        "turned_image",
        "wrong_size",
        "missing_label",
        "bad_label",
    }
)
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


def numbers(where: str, name: str, value: Any, shape: tuple[int, ...], *, finite: bool = True) -> Array:
    """A float64 array of exactly this shape; SampleError (`missing_field`, `wrong_shape`, `not_finite`) otherwise.

    `where` begins the sentence, with the sample's key and the file that holds the value: `f"{key}: {uri}"`. Without
    `finite`, NaN, infinity and null (NaN) are left for `counting_rows`.
    """
    if value is None:
        raise SampleError("missing_field", f"{where}: {name} is missing, expected shape {shape}")
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        found = f"a {type(value).__name__} that is no table of numbers"
        raise SampleError("wrong_shape", f"{where}: {name} is {found}, expected shape {shape}") from None
    if array.shape != shape:
        raise SampleError("wrong_shape", f"{where}: {name} has shape {array.shape}, expected {shape}")
    return _finite(where, name, array) if finite else array


def rotation(where: str, name: str, value: Any) -> Array:
    """(3, 3) of a rotation, like `numbers`; SampleError (`bad_camera`) for a matrix that also mirrors or scales."""
    matrix = numbers(where, name, value, (3, 3))
    if not (np.abs(matrix @ matrix.T - np.eye(3)).max() < _ROUNDED and np.linalg.det(matrix) > 0):
        raise SampleError(
            "bad_camera",
            f"{where}: {name} is {matrix.tolist()}, expected a rotation: columns of length 1 at right angles, which "
            "mirror nothing",
        )
    return matrix


_ROUNDED = 0.02
"""By how much a published rotation may miss being one: with two decimals."""


def counting_rows(where: str, name: str, table: Array, counts: Array) -> Array:
    """(N, ...) without the rows that do not count, by (N,) bool: they may hold anything, and become zeros. SampleError
    (`not_finite`) for the others."""
    return _finite(where, name, np.where(counts[:, None], table, 0.0))


def _finite(where: str, name: str, array: Array) -> Array:
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
    Raises SampleError (`turned_image`) for labels in the pixels of an image that its EXIF tag turns, unless the card
    says that they refer to it as stored.
    """
    if joints_2d_px is not None or camera is not None:
        check_upright(spec, item.key, item.image_uri, image)
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


def is_readable(uri: str) -> bool:
    """Is there a file, as far as can be told without reading it? Nothing else that has this name is an error."""
    try:
        return storage.exists(uri)
    except (storage.MissingFileError, storage.NotAFileError):
        return False


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
        try:
            digest.update(storage.read_bytes(uri))
        except (storage.MissingFileError, storage.NotAFileError):
            digest.update(b"missing")
    return digest.hexdigest()


def combined_digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
