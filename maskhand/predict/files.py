"""The output files of a photo: overlay PNG, an .obj per hand, one .glb, one JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from maskhand import storage
from maskhand.annotate.detectors import HandDetector
from maskhand.arrays import Array
from maskhand.conventions import MANO_16, OPENPOSE_21, Side
from maskhand.hand.camera import FOCAL
from maskhand.hand.mesh import glb_bytes, obj_bytes
from maskhand.models.bundle import ModelBundle
from maskhand.placement import CameraSource
from maskhand.predict.camera import Intrinsics, photo_camera
from maskhand.predict.drawing import draw_hands
from maskhand.predict.hands import DEFAULT_METHOD, predict_hands
from maskhand.predict.hypothesis_files import write_hypotheses
from maskhand.predict.photo import Box, decode_photo, read_encoded
from maskhand.predict.records import Method, PlacedHand, PredictedHand, PredictError
from maskhand.render import png_bytes


def predict_photo(
    path: str | Path,
    bundle: ModelBundle | None,
    out_dir: str | Path,
    box: Box | None = None,
    side: Side | None = None,
    *,
    method: Method = DEFAULT_METHOD,
    focal_px: float | None = None,
    intrinsics: Intrinsics | None = None,
    camera: CameraSource = "keypoints",
    hypotheses: int = 0,
    min_confidence: float = 0.0,
    finder: HandDetector | None = None,
    assets: str | Path | None = None,
    image_rgb: Array | None = None,
) -> list[Path]:
    """Predict the hands of a photo file and write NAME_overlay.png, NAME_hand0.obj ..., NAME.glb and NAME.json.

    box: x0, y0, x1, y1 of the one hand to look at (else all hands are found); side: of the hand in the box, or of all
    hands (else as detected); focal_px, or intrinsics fx, fy, cx, cy: of the upright photo in pixels (else EXIF's, else
    a long focal length is assumed, as HaMeR does, and depth is relative: see `photo_camera`); bundle, method, camera,
    min_confidence, finder: see `predict_hands`. hypotheses: number of
    hypotheses for each hand; then NAME_hypotheses.png and, per hand, NAME_hand0_hypotheses.glb show some of them, and
    the JSON holds all distinct ones. image_rgb: the decoded image, if available. Returns the paths, the JSON last.
    Raises PredictError.
    """
    photo = Path(path)
    encoded = read_encoded(photo)
    image = decode_photo(encoded, str(photo)) if image_rgb is None else image_rgb
    size_px = image.shape[1], image.shape[0]
    K_px = photo_camera(size_px, focal_px=focal_px, intrinsics=intrinsics, encoded=encoded)
    boxes = None if box is None else [box]
    hands = predict_hands(
        image,
        bundle,
        boxes,
        side,
        method=method,
        K_px=K_px,
        camera=camera,
        hypotheses=hypotheses,
        min_confidence=min_confidence,
        finder=finder,
        assets=assets,
    )
    if not hands:
        condition = f" whose keypoints have a mean confidence of {min_confidence:g}" if min_confidence else ""
        raise PredictError(f"{photo}: no hand found{condition}; give its box with --box X0,Y0,X1,Y1")
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    overlay, scene, summary = (out / f"{photo.stem}{end}" for end in ("_overlay.png", ".glb", ".json"))
    storage.write_bytes_atomic(overlay, png_bytes(draw_hands(image, hands)))
    meshes = [out / f"{photo.stem}_hand{k}.obj" for k in range(len(hands))]
    names = [f"hand_{k}_{hand.side}" for k, hand in enumerate(hands)]
    for mesh, hand, name in zip(meshes, hands, names, strict=True):
        storage.write_bytes_atomic(mesh, obj_bytes(hand.vertices_cam_m, hand.faces, name))
    storage.write_bytes_atomic(scene, glb_bytes([(hand.vertices_cam_m, hand.faces) for hand in hands], names=names))
    more = write_hypotheses(image, hands, out, photo.stem) if hypotheses else []
    facts = {
        "photo": photo.name,
        "image_size_px": list(size_px),
        "camera_from": camera,
        "method": method,
        "model": None if bundle is None else {"digest": bundle.digest, "recipe": bundle.recipe.name},
        "hand_model": hands[0].hand_model,
        "keypoint_detector": hands[0].detector,
        "hands": [to_json(hand) | {"mesh": mesh.name} for hand, mesh in zip(hands, meshes, strict=True)],
    }
    # One line per innermost list, for readability.
    text = re.sub(r"\[[^\[\]{}]*\]", lambda numbers: " ".join(numbers.group().split()), json.dumps(facts, indent=1))
    storage.write_bytes_atomic(summary, (text + "\n").encode())
    return [overlay, *meshes, scene, *more, summary]


def to_json(hand: PredictedHand) -> dict[str, Any]:
    """The JSON record of a hand without the mesh: meters, radians, pixels."""
    facts = {
        "side": hand.side if hand.side_known else None,
        "guess": hand.is_guess,
        "box_xyxy_px": _numbers(hand.box_xyxy_px, 2),
        "detection_score": None if hand.detection_score is None else round(float(hand.detection_score), 4),
        **_pose_json(hand, hand.side),
        "camera": {
            "K_px": _numbers(hand.K_px, 4),
            "source": hand.camera_origin,
            "crop": dict(zip(("scale", "tx", "ty"), _numbers(hand.crop_camera, 6), strict=True)),
            "crop_focal": FOCAL,
            "crop_from_image": _numbers(hand.crop_from_image, 6),
            "crop_is_mirrored": hand.side == "left",
        },
        "joint_names": list(OPENPOSE_21),
        "joints_cam_m": _numbers(hand.joints_cam_m, 6),
        "joints_px": _numbers(hand.joints_px, 3),
        "p_within_10mm": _numbers_or_none(hand.p_within_10mm, 3),
        "joint_error_mm": _numbers_or_none(hand.joint_error_mm, 2),
        "keypoints_px": _numbers(hand.keypoints_px, 3),
        "keypoints_confidence": _numbers(hand.keypoints_confidence, 4),
    }
    if hand.hypotheses:
        facts["joint_spread_mm"] = _numbers(1e3 * hand.joint_spread_m, 2)
        facts["hypotheses"] = [
            {"drawn": h.drawn, "score": round(h.score, 4), **_pose_json(h, hand.side)} for h in hand.hypotheses
        ]
    return facts


def _pose_json(hand: PlacedHand, side: Side) -> dict[str, Any]:
    from_tokens = {
        "log_probability": round(hand.log_probability, 4),
        "token_confidence_of_joints": dict(zip(MANO_16, _numbers(hand.joint_confidence, 4), strict=True)),
        "tokens": hand.tokens.tolist(),
        "token_confidence": _numbers(hand.token_confidence, 4),
    }
    return (from_tokens if len(hand.tokens) else {}) | {
        "mano": {
            "side": side,
            "flat_hand_mean": True,
            "global_orient": _numbers(hand.pose_aa[0], 6),
            "hand_pose": _numbers(hand.pose_aa[1:], 6),
            "betas": _numbers(hand.betas, 6),
            "transl_cam_m": _numbers(hand.transl_cam_m, 6),
        },
    }


def _numbers_or_none(values: Array, digits: int) -> list[Any] | None:
    """As `_numbers`; None where the values are NaN (the method is not calibrated)."""
    return _numbers(values, digits) if np.isfinite(values).all() else None


def _numbers(values: Array, digits: int) -> list[Any]:
    """Rounded nested lists."""
    return (np.round(np.asarray(values, np.float64), digits) + 0.0).tolist()  # + 0.0: no negative zeros
