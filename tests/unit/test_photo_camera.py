"""The camera of a photo: what is given, what EXIF tells, and a known hand found again through a camera that is skew."""

from __future__ import annotations

import io

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image

from maskhand.predict import PredictError
from maskhand.predict.camera import photo_camera

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
    assert camera.origin == ("assumed" if focal is None else "exif") and camera.is_known == (focal is not None)
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
        ({"intrinsics": (700, 0, 3, 4)}, "intrinsics 700,0,3,4: expected fx,fy,cx,cy in pixels, the first two above 0"),
        ({"intrinsics": (700, 700, float("nan"), 4)}, "intrinsics 700,700,nan,4"),
        ({"intrinsics": (7e3, 7e3, 1e4, 240)}, "far outside of the 640 x 480 photo; are they for another size"),
        ({"focal_px": 7, "intrinsics": (7, 7, 3, 4)}, "both a focal length and intrinsics"),
    ],
)
def test_what_no_camera_has_is_refused(given: dict, words: str) -> None:
    with pytest.raises(PredictError, match=words):
        photo_camera((640, 480), **given)
