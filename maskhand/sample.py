"""One annotated hand as it travels from an adapter to a shard: numpy only, one convention, absent labels are None."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import LARGEST_HAND_M, NUM_BETAS, NUM_JOINTS, NUM_VERTICES, SMALLEST_HAND_M, Side
from maskhand.errors import MaskhandError


class SampleError(MaskhandError, ValueError):
    """A sample that must not enter a shard. `reason` is a short stable key by which rejects are counted."""

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
        """(N, 3) points in camera axes, meters -> (N, 2) pixels."""
        uvw = points_cam_m @ self.K_px.T
        return uvw[:, :2] / uvw[:, 2:]

    def check(self, where: str) -> None:
        """Raise SampleError (`bad_camera`) for a matrix that is not one of intrinsics; `where` begins the sentence."""
        K = self.K_px
        if not (K[0, 0] > 0 and K[1, 1] > 0 and np.array_equal(K[2], (0.0, 0.0, 1.0))):
            raise SampleError(
                "bad_camera",
                f"{where}: K is {K.tolist()}, expected [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with fx and fy above 0; "
                "is it transposed, or a projection matrix?",
            )


@dataclass(frozen=True)
class HandPose:
    """MANO parameters in the one canonical form: absolute axis-angle, meters, OpenCV camera."""

    pose_aa: Array
    """(16, 3) float32, absolute axis-angle in radians; row 0 is the global orientation in camera axes."""
    betas: Array
    """(10,) float32, shape."""
    transl_cam_m: Array
    """(3,) float32, added to the posed vertices (smplx convention)."""


@dataclass(frozen=True)
class HandSample:
    """One hand in one image. Left hands stay left here; mirroring happens when a batch is loaded."""

    key: str
    """Unique in its dataset, letters, digits, `-` and `_` only (a dot would split a WebDataset key)."""
    dataset: str
    image: bytes
    """The encoded image, byte for byte as published where nothing had to change."""
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
    """(21,) bool, annotated although something hides it; None where the dataset does not say."""
    joints_cam_m: Array | None = None
    """(21, 3) float32, OpenPose order, camera axes."""
    joints_3d_valid: Array | None = None
    """(21,) bool."""
    vertices_cam_m: Array | None = None
    """(778, 3) float32, the annotated mesh of evaluation sets."""
    mano: HandPose | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    """Ids of the dataset, enough to find the annotation again."""

    def validate(self, image_uri: str | None = None) -> None:
        """Raise SampleError with a countable reason when a field has a wrong shape, NaN, or impossible values.

        `image_uri` is where the image came from, for the error message.
        """
        hand = self.key if image_uri is None else f"{self.key}: {image_uri}"
        if not self.key.replace("-", "0").replace("_", "0").isalnum():
            raise SampleError("bad_key", f"key {self.key!r}: expected letters, digits, '-' and '_' only")
        if self.side not in ("right", "left"):
            raise SampleError("bad_side", f"{hand}: side is {self.side!r}, expected 'right' or 'left'")
        self._check_image(hand)
        for name, record, shape in SHAPES:
            owner = self if record is None else getattr(self, record)
            value = None if owner is None else getattr(owner, name)
            if value is None:
                continue
            where = name if record is None else f"{record}.{name}"
            if value.shape != shape:
                raise SampleError("wrong_shape", f"{hand}: {where} has shape {value.shape}, expected {shape}")
            if not all_finite(value):
                raise SampleError("not_finite", f"{hand}: {where} holds NaN or infinity")
        self._check_hand(hand)
        self._check_camera(hand)
        self._check_mesh(hand)
        self._check_box(hand)

    def _check_hand(self, hand: str) -> None:
        """That the annotated joints could be a hand's, in front of the lens; what cannot is mostly the card's fault."""
        if self.joints_cam_m is None:
            return
        joints = self.joints_cam_m if self.joints_3d_valid is None else self.joints_cam_m[self.joints_3d_valid]
        if not len(joints):
            return
        spread_m = float(np.linalg.norm(np.ptp(joints, axis=0)))
        smallest = SMALLEST_HAND_M if len(joints) == NUM_JOINTS else 0.0
        if not smallest <= spread_m <= LARGEST_HAND_M:
            raise SampleError(
                "impossible_size",
                f"{hand}: the joints of the hand are {spread_m:.3g} m apart, expected {SMALLEST_HAND_M:g} to "
                f"{LARGEST_HAND_M:g}; are `units` of the card those of the file (m, cm, mm)?",
            )
        # Without a camera only the differences between joints mean something.
        near_m, far_m = float(joints[:, 2].min()), float(joints[:, 2].max())
        if self.camera is not None and near_m <= 0:
            raise SampleError(
                "behind_camera",
                f"{hand}: joints lie behind the camera (z = {near_m:.3g} m), expected z > 0; are `axes` of the card "
                "those of the file (opencv: z forward; opengl: z backward), and does its camera belong to it?",
            )
        if self.camera is not None and far_m > FARTHEST_HAND_M:
            raise SampleError(
                "impossible_distance",
                f"{hand}: the hand is {far_m:.3g} m away, expected at most {FARTHEST_HAND_M:g}; are `units` of the "
                "card those of the whole file, the camera's place among them?",
            )

    def _check_camera(self, hand: str) -> None:
        """That the camera is one, and that joints in the image and in space are the same ones as it sees them."""
        if self.camera is None:
            return
        self.camera.check(hand)
        if self.joints_2d_px is None or self.joints_cam_m is None:
            return
        seen = np.ones(NUM_JOINTS, bool) if self.joints_2d_conf is None else self.joints_2d_conf > 0
        seen = seen if self.joints_3d_valid is None else seen & self.joints_3d_valid
        if seen.sum() < ENOUGH_JOINTS:
            return
        points, projected = self.joints_2d_px[seen], self.camera.project(self.joints_cam_m[seen])
        apart_px = float(np.median(np.linalg.norm(projected - points, axis=1)))
        size_px = min(float(np.ptp(places, axis=0).max()) for places in (points, projected))
        if apart_px > max(size_px, MOST_PX_APART):
            raise SampleError(
                "labels_disagree",
                f"{hand}: joints in the image, and joints in space as seen by the camera, are {apart_px:.0f} px apart, "
                f"and the hand is {size_px:.0f} px large; are they of one picture, one hand, one size of the picture?",
            )

    def _check_mesh(self, hand: str) -> None:
        """That the mesh and MANO's parameters could be of the hand that the joints in space are of."""
        if self.mano is not None and (turn := float(np.linalg.norm(self.mano.pose_aa, axis=1).max())) > MOST_TURN:
            raise SampleError(
                "impossible_pose",
                f"{hand}: a joint of MANO's pose is turned by {turn:.3g} radians, expected at most {MOST_TURN:.3g}; "
                "is the pose in degrees?",
            )
        if self.camera is None or self.joints_cam_m is None:
            return
        joints = self.joints_cam_m if self.joints_3d_valid is None else self.joints_cam_m[self.joints_3d_valid]
        for name, place in {
            "mesh": None if self.vertices_cam_m is None else self.vertices_cam_m.mean(axis=0),
            "translation of MANO's parameters": None if self.mano is None else self.mano.transl_cam_m,
        }.items():
            if place is None or not len(joints):
                continue
            apart_m = float(np.linalg.norm(place - joints.mean(axis=0)))
            if apart_m > MOST_M_APART:
                raise SampleError(
                    "labels_disagree",
                    f"{hand}: the {name} is {apart_m:.3g} m from the joints, expected at most {MOST_M_APART:g}; are "
                    "they in one unit, in the axes of one camera, and of one hand?",
                )

    def _check_box(self, hand: str) -> None:
        """That the box is one, in the image, and around the joints in the image."""
        x0, y0, x1, y1 = box = self.box_xyxy_px.tolist()
        width, height = self.image_size_px
        if x1 - x0 < 2 or y1 - y0 < 2:
            raise SampleError("empty_box", f"{hand}: box {box} is smaller than 2 pixels")
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise SampleError("box_outside", f"{hand}: box {box} lies outside the image of {width} x {height}")
        if x0 < -width or y0 < -height or x1 > 2 * width or y1 > 2 * height:
            raise SampleError(
                "box_outside",
                f"{hand}: box {box} exceeds the image of {width} x {height} by more than its size, expected a hand in "
                "it; is a joint marked as annotated that is not, or are the labels of a larger picture?",
            )
        if self.joints_2d_px is None or self.joints_2d_conf is None:
            return
        points = self.joints_2d_px[self.joints_2d_conf > 0]
        if len(points) < ENOUGH_JOINTS:
            return
        low, high = points.min(axis=0), points.max(axis=0)
        if (high < (x0, y0)).any() or (low > (x1, y1)).any():
            raise SampleError(
                "labels_disagree",
                f"{hand}: the joints in the image are in {[*low.tolist(), *high.tolist()]}, expected in the box {box}; "
                "are both in pixels of one picture, and of one hand?",
            )

    def _check_image(self, hand: str) -> None:
        if self.image_format not in _MAGIC:
            raise SampleError("bad_image", f"{hand}: image format {self.image_format!r}, expected jpg or png")
        head, tail = _MAGIC[self.image_format]
        if not self.image.startswith(head):
            raise SampleError("bad_image", f"{hand}: the image is not a {self.image_format} file")
        # Others may lie behind the end (a phone's preview, a film); `adapters.readers.whole_images` reads up to it.
        if self.image.rfind(tail) < 0:
            raise SampleError("cut_image", f"{hand}: the {self.image_format} file ends too early; copy it again")


FARTHEST_HAND_M = 50.0
ENOUGH_JOINTS = 6
"""To tell from whether labels are of one hand."""
MOST_PX_APART = 20.0
"""Of labels that agree; a lens bends, and people click, by less."""
MOST_M_APART = 0.4
"""Middle of a mesh, or MANO's translation, which lies up to 0.2 m from its mesh, and middle of the joints."""
MOST_TURN = 4 * math.pi
"""Radians; optimizers wind a joint up by a turn, and degrees are 57 times as many."""

_MAGIC = {"jpg": (b"\xff\xd8\xff", b"\xff\xd9"), "png": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82")}
SHAPES: tuple[tuple[str, str | None, tuple[int, ...]], ...] = (
    ("box_xyxy_px", None, (4,)),
    ("K_px", "camera", (3, 3)),
    ("joints_2d_px", None, (NUM_JOINTS, 2)),
    ("joints_2d_conf", None, (NUM_JOINTS,)),
    ("joints_2d_occluded", None, (NUM_JOINTS,)),
    ("joints_cam_m", None, (NUM_JOINTS, 3)),
    ("joints_3d_valid", None, (NUM_JOINTS,)),
    ("vertices_cam_m", None, (NUM_VERTICES, 3)),
    ("pose_aa", "mano", (16, 3)),
    ("betas", "mano", (NUM_BETAS,)),
    ("transl_cam_m", "mano", (3,)),
)
"""Field, the record of the sample that has it (None: the sample), shape."""


def all_finite(values: Array) -> bool:
    """Whether no number is NaN or infinite."""
    # A finite sum of squares proves it in a third of the time; finite numbers may still overflow in it.
    return math.isfinite(np.vdot(values, values)) or bool(np.isfinite(values).all())
