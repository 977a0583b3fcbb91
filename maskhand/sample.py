"""One annotated hand as it travels from an adapter to a shard: numpy only, one convention, absent labels are None."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maskhand.conventions import NUM_BETAS, NUM_JOINTS, NUM_VERTICES, Side

Array = np.ndarray


class SampleError(ValueError):
    """A sample that must not enter a shard. `reason` is a short stable word by which rejects are counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with OpenCV axes, in the pixels of the stored image."""

    K_px: Array
    """(3, 3) float64, intrinsics in pixels."""

    def project(self, points_cam_m: Array) -> Array:
        """(N, 3) points in camera axes, metres -> (N, 2) pixels."""
        uvw = points_cam_m @ self.K_px.T
        return uvw[:, :2] / uvw[:, 2:]


@dataclass(frozen=True)
class HandPose:
    """MANO parameters in the one canonical form: absolute axis-angle, metres, OpenCV camera."""

    pose_aa: Array
    """(16, 3) float32, absolute axis-angle in radians; row 0 is the global orientation in camera axes."""
    betas: Array
    """(10,) float32, shape."""
    transl_cam_m: Array
    """(3,) float32, added to the posed vertices (smplx convention)."""


@dataclass(frozen=True)
class HandSample:
    """One hand in one picture. Left hands stay left here; mirroring happens when a batch is loaded."""

    key: str
    """Unique in its data set, letters, digits, `-` and `_` only (a dot would split a WebDataset key)."""
    dataset: str
    image: bytes
    """The encoded picture, byte for byte as published where nothing had to change."""
    image_format: str
    """`jpg` or `png`."""
    image_size_px: tuple[int, int]
    """(width, height)."""
    side: Side
    box_xyxy_px: Array
    """(4,) float32, the hand's box in pixels; never a crop."""
    camera: Camera | None = None
    joints_2d_px: Array | None = None
    """(21, 2) float32, OpenPose order."""
    joints_2d_conf: Array | None = None
    """(21,) float32 in 0..1; 0 where a joint is not annotated."""
    joints_2d_occluded: Array | None = None
    """(21,) bool, annotated although something hides it; None where the data set does not say."""
    joints_cam_m: Array | None = None
    """(21, 3) float32, OpenPose order, camera axes."""
    joints_3d_valid: Array | None = None
    """(21,) bool."""
    vertices_cam_m: Array | None = None
    """(778, 3) float32, the annotated mesh of evaluation sets."""
    mano: HandPose | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    """The data set's own ids, enough to find the annotation again."""

    def validate(self) -> None:
        """Raise SampleError with a countable reason when a field has the wrong shape, a bad number or no sense."""
        if not self.key or not all(c.isalnum() or c in "-_" for c in self.key):
            raise SampleError("bad_key", f"key {self.key!r}: expected letters, digits, '-' and '_' only")
        if self.side not in ("right", "left"):
            raise SampleError("bad_side", f"{self.key}: side is {self.side!r}, expected 'right' or 'left'")
        self._check_image()
        shapes: dict[str, tuple[Array | None, tuple[int, ...]]] = {
            "box_xyxy_px": (self.box_xyxy_px, (4,)),
            "camera.K_px": (self.camera.K_px if self.camera else None, (3, 3)),
            "joints_2d_px": (self.joints_2d_px, (NUM_JOINTS, 2)),
            "joints_2d_conf": (self.joints_2d_conf, (NUM_JOINTS,)),
            "joints_2d_occluded": (self.joints_2d_occluded, (NUM_JOINTS,)),
            "joints_cam_m": (self.joints_cam_m, (NUM_JOINTS, 3)),
            "joints_3d_valid": (self.joints_3d_valid, (NUM_JOINTS,)),
            "vertices_cam_m": (self.vertices_cam_m, (NUM_VERTICES, 3)),
            "mano.pose_aa": (self.mano.pose_aa if self.mano else None, (16, 3)),
            "mano.betas": (self.mano.betas if self.mano else None, (NUM_BETAS,)),
            "mano.transl_cam_m": (self.mano.transl_cam_m if self.mano else None, (3,)),
        }
        for name, (value, expected) in shapes.items():
            if value is None:
                continue
            if value.shape != expected:
                raise SampleError("wrong_shape", f"{self.key}: {name} has shape {value.shape}, expected {expected}")
            if not np.isfinite(value).all():
                raise SampleError("not_finite", f"{self.key}: {name} holds NaN or infinity")
        x0, y0, x1, y1 = self.box_xyxy_px
        width, height = self.image_size_px
        if x1 - x0 < 2 or y1 - y0 < 2:
            raise SampleError("empty_box", f"{self.key}: box {self.box_xyxy_px.tolist()} is smaller than 2 pixels")
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise SampleError("box_outside", f"{self.key}: box {self.box_xyxy_px.tolist()} lies outside the picture")

    def _check_image(self) -> None:
        magic = {"jpg": (b"\xff\xd8\xff", b"\xff\xd9"), "png": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82")}
        if self.image_format not in magic:
            raise SampleError("bad_image", f"{self.key}: image format {self.image_format!r}, expected jpg or png")
        head, tail = magic[self.image_format]
        if not self.image.startswith(head):
            raise SampleError("bad_image", f"{self.key}: the picture is not a {self.image_format} file")
        if tail not in self.image[-64:]:
            raise SampleError("cut_image", f"{self.key}: the {self.image_format} file ends too early; copy it again")
