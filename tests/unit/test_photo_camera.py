"""The camera of a photo: what is given, what EXIF tells, and a known hand found again through a camera that is skew."""

from __future__ import annotations

import io

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image

from maskhand.annotate.detectors import Detections, HandBox
from maskhand.annotate.fit.detected import DEPTH_FACTOR
from maskhand.conventions import MIRROR_POINT
from maskhand.geometry2d import tight_box
from maskhand.hand.assumed_camera import assumed_camera
from maskhand.metrics.alignment import distances, procrustes_align
from maskhand.predict import PredictError, photo_camera, predict_hands
from support.known_hands import KnownHands, known_hands, pixels

PHONE = (4032, 3024)
AT_26_MM = 26 / np.hypot(36, 24) * 5040


def photo(
    film_mm: object = 26, told: tuple[int, int] | None = PHONE, kind: str = "JPEG", orientation: int = 1
) -> bytes:
    """A small picture with the EXIF of a phone's."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    entries = exif.get_ifd(ExifTags.IFD.Exif)
    entries[ExifTags.Base.FocalLengthIn35mmFilm] = film_mm
    if told is not None:
        entries[ExifTags.Base.ExifImageWidth], entries[ExifTags.Base.ExifImageHeight] = told
    file = io.BytesIO()
    picture = Image.new("RGB", (64, 48))
    if kind == "HEIC":
        pillow_heif.from_pillow(picture).save(file, exif=exif.tobytes())
    else:
        picture.save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "encoded", "focal"),
    [
        (PHONE, photo(), AT_26_MM),
        (PHONE[::-1], photo(orientation=6), AT_26_MM),
        (PHONE[::-1], photo(), AT_26_MM),  # turned by a program that left the entries
        ((2016, 1512), photo(), AT_26_MM / 2),
        ((1000, 667), photo(50, None), 50 / 36 * 1000),  # on a frame of 3:2 by the width too
        (PHONE, photo(kind="PNG"), AT_26_MM),
        (PHONE, photo(kind="WEBP"), AT_26_MM),
        (PHONE, photo(kind="HEIC", orientation=6), AT_26_MM),
        ((3024, 3024), photo(), None),  # cut
        (PHONE, photo(0), None),
        (PHONE, photo(65535), None),
        (PHONE, b"no photo", None),
        (PHONE, b"", None),
    ],
)
def test_exif_is_believed_where_it_speaks_of_this_picture(
    size: tuple[int, int], encoded: bytes, focal: float | None
) -> None:
    camera = photo_camera(size, encoded=encoded)
    assert camera.origin == ("assumed" if focal is None else "exif")
    assert camera.K_px[0, 0] == camera.K_px[1, 1] == pytest.approx(focal or 5000 / 256 * max(size), rel=1e-3)
    assert camera.K_px[:2, 2].tolist() == [(size[0] - 1) / 2, (size[1] - 1) / 2]


def test_what_is_given_goes_before_exif() -> None:
    focal = photo_camera((640, 480), focal_px=700, encoded=photo())
    assert focal.origin == "focal" and focal.K_px.tolist() == [[700, 0, 319.5], [0, 700, 239.5], [0, 0, 1]]
    given = photo_camera((640, 480), intrinsics=(700, 650, 300, 250), encoded=photo())
    assert given.origin == "intrinsics" and given.K_px.tolist() == [[700, 0, 300], [0, 650, 250], [0, 0, 1]]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"focal_px": 0.0}, r"focal length 0\.0: expected a positive number"),
        ({"focal_px": float("inf")}, "focal length inf"),
        ({"focal_px": 28.0}, "focal length 28: expected 64 to 640000 pixels for a 640 x 480 picture; is it in millim"),
        ({"focal_px": 1e12}, "of another picture"),
        ({"intrinsics": (35, 700, 320, 240)}, "intrinsics 35,700,320,240: expected 64 to"),
        ({"intrinsics": (700, 0, 3, 4)}, "intrinsics 700,0,3,4: expected fx,fy,cx,cy in pixels, the first two above 0"),
        ({"intrinsics": (700, 700, float("nan"), 4)}, "intrinsics 700,700,nan,4"),
        ({"intrinsics": (7e3, 7e3, 1e4, 240)}, "far outside of the 640 x 480 photo; are they for another size"),
        ({"focal_px": 7, "intrinsics": (7, 7, 3, 4)}, "both a focal length and intrinsics"),
    ],
)
def test_what_no_camera_has_is_refused(given: dict, words: str) -> None:
    with pytest.raises(PredictError, match=words):
        photo_camera((640, 480), **given)


SKEW = np.array([[520.0, 0, 60], [0, 340.0, 150], [0, 0, 1]])
"""Focal lengths that differ by half, and a principal point that is far from the middle of 224 x 224."""


def detected(truth: KnownHands, k: int, side: str, K_px: np.ndarray) -> HandBox:
    """A known hand, or its mirror image, as a detector without error sees it through a camera."""
    mirror = MIRROR_POINT if side == "left" else np.ones(3)
    joints = truth.joints_m[k] * mirror
    points = pixels(joints[None], K_px[None])[0]
    world = joints - joints.mean(0)
    found = Detections(
        points[None].astype(np.float32),
        np.full((1, 21), 0.9, np.float32),
        np.ones(1, np.float32),
        np.full(1, 0.9 if side == "right" else 0.1, np.float32),
        z_px=(world[:, 2] - world[0, 2])[None].astype(np.float32) * K_px[0, 0] / joints[0, 2] / DEPTH_FACTOR,
        world_m=world[None].astype(np.float32),
    )
    return HandBox(tight_box(points), side, 0.9, found)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_hand_before_a_skew_camera_is_placed_where_it_is(side: str) -> None:
    truth = known_hands(6, seed=5)
    true = truth.joints_m * (MIRROR_POINT if side == "left" else np.ones(3))
    straight = assumed_camera((224, 224), 520.0)

    def found(seen_through: np.ndarray, K_px: np.ndarray) -> np.ndarray:
        in_picture = [detected(truth, k, side, seen_through) for k in range(6)]
        hands = predict_hands(np.zeros((224, 224, 3), np.uint8), None, K_px=K_px, finder=lambda _: in_picture)
        assert all(hand.camera_origin == "intrinsics" and np.array_equal(hand.K_px, K_px) for hand in hands)
        joints = np.stack([hand.joints_cam_m for hand in hands])
        projected = pixels(joints, np.broadcast_to(K_px, (6, 3, 3)))
        np.testing.assert_allclose(np.stack([hand.joints_px for hand in hands]), projected, atol=1e-6)
        return joints

    def misplaced(joints: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.linalg.norm(joints[:, 0] - other[:, 0], axis=1) / np.linalg.norm(other[:, 0], axis=1)

    def misshaped_mm(joints: np.ndarray) -> float:
        return float(1e3 * distances(procrustes_align(joints, true), true).mean())

    through_skew, wrong = found(SKEW, SKEW), found(SKEW, straight)
    assert misplaced(through_skew, true).max() < 0.05 < 0.1 < misplaced(wrong, true).min()
    assert misshaped_mm(through_skew) < 2.5 < 5 < misshaped_mm(wrong)
    assert misplaced(through_skew, found(straight, straight)).max() < 0.005, "as well as through any camera"
