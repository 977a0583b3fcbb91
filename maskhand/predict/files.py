"""The files of a picture: overlay PNG, an .obj per hand, one .glb, one JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from maskhand import storage
from maskhand.annotate.detectors import HandDetector
from maskhand.arrays import Array
from maskhand.conventions import OPENPOSE_21
from maskhand.hand.mesh import glb_bytes, obj_bytes
from maskhand.hand.pose_convention import BodyConvention
from maskhand.models.bundle import ModelBundle
from maskhand.placement import PlacedBy
from maskhand.predict.camera import Intrinsics, photo_camera
from maskhand.predict.drawing import photo_sheet
from maskhand.predict.hand_group import Reconstruction
from maskhand.predict.hands import DEFAULT_METHOD, predict_images
from maskhand.predict.hypothesis_files import write_hypotheses
from maskhand.predict.photo import Box, decode_photo, read_encoded
from maskhand.predict.records import Method, PredictedHand, PredictError
from maskhand.predict.rows import SCHEMA, hand_row
from maskhand.predict.saved import SAVED, Saved
from maskhand.render import png_bytes


def predict_photo(
    path: str | Path,
    bundle: ModelBundle | None,
    out_dir: str | Path,
    box: Box | None = None,
    side: Literal["right", "left"] | None = None,
    *,
    method: Method = DEFAULT_METHOD,
    focal_px: float | None = None,
    intrinsics: Intrinsics | None = None,
    camera: PlacedBy = "keypoints",
    hypotheses: int = 0,
    min_confidence: float = 0.0,
    finder: HandDetector | None = None,
    assets: str | Path | None = None,
    image_rgb: Array | None = None,
) -> list[Path]:
    """Predict the hands of a photo file and write NAME_overlay.png, NAME_hand0.obj ..., NAME.glb and NAME.json.

    box: x0, y0, x1, y1 of the only hand to predict (default: all hands are detected); side: of the hand in the box, or
    of all hands (default: as detected); focal_px, or intrinsics fx, fy, cx, cy: of the upright photo in pixels
    (default: from EXIF, else HaMeR's long focal length is assumed and depth is relative: see `photo_camera`); bundle,
    method, camera, min_confidence, finder: see `predict_hands`. hypotheses: number sampled for each hand; then
    NAME_hypotheses.png and, per hand, NAME_hand0_hypotheses.glb show some of them, and the JSON has all distinct
    ones. image_rgb: the decoded image, if available. Returns the paths, the JSON last. Raises PredictError, also if
    no hand is found.
    """
    photo = Path(path)
    encoded = read_encoded(photo)
    image = decode_photo(encoded, str(photo)) if image_rgb is None else image_rgb
    size_px = image.shape[1], image.shape[0]
    (hands,) = predict_images(
        [image],
        bundle,
        [None if box is None else [box]],
        [side],
        method=method,
        cameras=[photo_camera(size_px, focal_px=focal_px, intrinsics=intrinsics, encoded=encoded)],
        placed_by=camera,
        hypotheses=hypotheses,
        min_confidence=min_confidence,
        finder=finder,
        assets=assets,
    )
    if not hands:
        raise PredictError(f"{photo}: {no_hand_found(min_confidence)}; give its box with --box X0,Y0,X1,Y1")
    reconstruction = Reconstruction(bundle, method, camera, hypotheses)
    return write_picture_files(photo.name, image, hands, reconstruction, Path(out_dir), photo.stem)


def no_hand_found(min_confidence: float) -> str:
    """The reason in the row of a picture without hands."""
    condition = f" whose keypoints have a mean confidence of {min_confidence:g}" if min_confidence else ""
    return f"no hand found{condition}"


def write_picture_files(
    picture: str,
    image_rgb: Array,
    hands: Sequence[PredictedHand],
    reconstruction: Reconstruction,
    out: Path,
    name: str,
    saved: Sequence[Saved] = SAVED,
    convention: BodyConvention | None = None,
) -> list[Path]:
    """Write the files of a picture with at least one hand into `out`; returns their paths, the JSON last.

    picture: its name in the JSON; name: prefix of the file names; convention: see `picture_rows`.
    """
    out = (out / name).parent
    out.mkdir(parents=True, exist_ok=True)
    stem = name.rpartition("/")[2]
    overlay, scene, summary = (out / f"{stem}{end}" for end in ("_overlay.png", ".glb", ".json"))
    meshes = [out / f"{stem}_hand{k}.obj" for k in range(len(hands))]
    written: list[Path] = []
    if "overlay" in saved:
        storage.write_bytes_atomic(overlay, png_bytes(photo_sheet(image_rgb, hands)))
        written.append(overlay)
    if "mesh" in saved:
        names = [f"hand_{k}_{hand.side}" for k, hand in enumerate(hands)]
        for mesh, hand, node in zip(meshes, hands, names, strict=True):
            storage.write_bytes_atomic(mesh, obj_bytes(hand.vertices_cam_m, hand.faces, node))
        storage.write_bytes_atomic(scene, glb_bytes([(hand.vertices_cam_m, hand.faces) for hand in hands], names=names))
        written += [*meshes, scene]
    if reconstruction.hypotheses and "overlay" in saved:
        written += write_hypotheses(image_rgb, hands, out, stem)
    if "json" in saved:
        rows = [hand_row(hand, reconstruction, convention=convention) for hand in hands]
        if "mesh" in saved:
            rows = [row | {"mesh": mesh.name} for row, mesh in zip(rows, meshes, strict=True)]
        facts = {
            "schema": SCHEMA,
            "photo": picture,
            "image_size_px": [image_rgb.shape[1], image_rgb.shape[0]],
            "camera_from": reconstruction.placed_by,
            "joint_names": list(OPENPOSE_21),
            "hands": rows,
        }
        storage.write_bytes_atomic(summary, readable_json(facts))
        written.append(summary)
    return written


def readable_json(facts: dict[str, Any]) -> bytes:
    """Indented JSON with each innermost list on one line."""
    text = re.sub(r"\[[^\[\]{}]*\]", lambda numbers: " ".join(numbers.group().split()), json.dumps(facts, indent=1))
    return (text + "\n").encode()
