"""A photo in, hands out: find them, crop, 2D keypoints, model, full-image camera, and the files people ask for.

`predict_hands` works on an array and returns records; `predict_photo` reads a file and writes an overlay PNG, an .obj
per hand, one .glb and one JSON. Left hands pass the model mirrored and come out as left hands: mesh, joints, MANO
parameters (of a left model that is the mirror of the right one) and camera.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch

from maskhand.annotate.detectors import load_detector
from maskhand.annotate.hand_finder import find_hands
from maskhand.batch import HandBatch, HandPrediction
from maskhand.conventions import MANO_16, MIRROR_AXIS_ANGLE, MIRROR_POINT, OPENPOSE_21, Side
from maskhand.hand.camera import FOCAL, camera_on_keypoints, crop_camera_to_full
from maskhand.hand.mesh import write_glb, write_obj
from maskhand.hand.rotations import matrix_to_axis_angle
from maskhand.loading.photo import photo_batch
from maskhand.models.bundle import ModelBundle
from maskhand.models.sampling import predict
from maskhand.render import draw_keypoints, overlay_mesh, png_bytes
from maskhand.workspace import Workspace

Array = np.ndarray
Box = tuple[float, float, float, float]
CameraSource = Literal["keypoints", "model"]
"""What places a hand in the photo: the 2D keypoints that were seen, or the network alone."""


class PredictError(ValueError):
    """A photo, box or setting that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class PredictedHand:
    """One hand of a photo, as it is seen there. Camera axes are OpenCV's; pixels are the photo's."""

    side: Side
    box_xyxy_px: Array
    """(4,)."""
    detection_score: float | None
    """0..1, how sure the hand finder is; None when the box was given."""
    keypoints_px: Array
    """(21, 2) what the 2D detector saw, OpenPose order."""
    keypoints_confidence: Array
    """(21,)."""
    pose_aa: Array
    """(16, 3) absolute MANO axis-angle, global orientation first, radians."""
    betas: Array
    """(10,)."""
    transl_cam_m: Array
    """(3,) added to the model's vertices and joints: places the hand before the photo's camera."""
    vertices_cam_m: Array
    """(778, 3)."""
    joints_cam_m: Array
    """(21, 3) OpenPose order."""
    joints_px: Array
    """(21, 2) projections of joints_cam_m."""
    faces: Array
    """(1538, 3) outward winding for this side."""
    K_px: Array
    """(3, 3) the camera used: the given focal length, or the assumed one."""
    crop_camera: Array
    """(3,) s, tx, ty for the (mirrored, if left) crop: the network's, or the one that its 2D keypoints say."""
    crop_from_image: Array
    """(2, 3) affine from the (mirrored, if left) photo to the crop."""
    joint_confidence: Array
    """(16,) mean probability of the pose tokens of each MANO joint."""
    score: float
    """Mean log probability of the pose tokens."""


def predict_photo(
    path: str | Path,
    bundle: ModelBundle,
    out_dir: str | Path,
    box: Box | None = None,
    side: Side | None = None,
    *,
    focal_px: float | None = None,
    camera: CameraSource = "keypoints",
    assets: str | Path | None = None,
) -> list[Path]:
    """Predict the hands of a photo file and write NAME_overlay.png, NAME_hand0.obj ..., NAME.glb and NAME.json.

    box: x0, y0, x1, y1 of the one hand to look at (else all hands are found); side: of the hand in the box, or of all
    hands (else as detected); focal_px: the photo's focal length in pixels (else a long one is assumed, as HaMeR does,
    and depth is relative); camera: see `predict_hands`. Returns the paths, the JSON last. Raises PredictError.
    """
    photo = Path(path)
    image = read_photo(photo)
    boxes = None if box is None else [box]
    hands = predict_hands(image, bundle, boxes, side, focal_px=focal_px, camera=camera, assets=assets)
    if not hands:
        raise PredictError(f"{photo}: no hand found; give its box with --box X0,Y0,X1,Y1")
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    overlay, scene = out / f"{photo.stem}_overlay.png", out / f"{photo.stem}.glb"
    _write(overlay, png_bytes(draw_hands(image, hands)))
    meshes = [out / f"{photo.stem}_hand{k}.obj" for k in range(len(hands))]
    for mesh, hand in zip(meshes, hands, strict=True):
        write_obj(mesh, hand.vertices_cam_m, hand.faces)
    write_glb(scene, [(hand.vertices_cam_m, hand.faces) for hand in hands])
    summary = out / f"{photo.stem}.json"
    facts = {
        "photo": photo.name,
        "image_size_px": [image.shape[1], image.shape[0]],
        "focal_given": focal_px is not None,
        "camera_from": camera,
        "model": {"digest": bundle.digest, "recipe": bundle.recipe.name, "hand_model": bundle.hand_digest},
        "keypoint_detector": bundle.recipe.data.keypoints.detector,
        "hands": [to_json(hand) | {"mesh": mesh.name} for hand, mesh in zip(hands, meshes, strict=True)],
    }
    # One line per innermost list: a file that people can read.
    text = re.sub(r"\[[^\[\]{}]*\]", lambda numbers: " ".join(numbers.group().split()), json.dumps(facts, indent=1))
    _write(summary, (text + "\n").encode())
    return [overlay, *meshes, scene, summary]


def predict_hands(
    image_rgb: Array,
    bundle: ModelBundle,
    boxes_xyxy_px: Sequence[Box] | Array | None = None,
    side: Side | None = None,
    *,
    focal_px: float | None = None,
    camera: CameraSource = "keypoints",
    assets: str | Path | None = None,
) -> list[PredictedHand]:
    """The hands of a picture (H, W, 3) uint8 RGB, best detection first; an empty list when none is found.

    camera: `model` places the hands where the network says, `keypoints` where the 2D keypoints that it was given say
    (the network's own place and size when too few are seen).
    """
    folder = Workspace.default().assets if assets is None else Path(assets)
    K_px = camera_matrix(image_rgb, focal_px)
    scores: list[float | None]
    sides: list[Side | None]
    if boxes_xyxy_px is None:
        found = find_hands(image_rgb, folder)
        boxes = np.array([hand.box_xyxy_px for hand in found], np.float32).reshape(-1, 4)
        scores, sides = [hand.score for hand in found], [side or hand.side for hand in found]
    else:
        boxes = np.asarray(boxes_xyxy_px, np.float32).reshape(-1, 4)
        _check_boxes(boxes, image_rgb)
        scores, sides = [None] * len(boxes), [side] * len(boxes)
    if not len(boxes):
        return []

    detector = load_detector(bundle.recipe.data.keypoints.detector, folder)
    seen = detector.detect([image_rgb] * len(boxes), boxes, sides)
    known: list[Side] = [
        known_side or ("right" if probability > 0.5 else "left")
        for known_side, probability in zip(sides, seen.right_probability, strict=True)
    ]
    batch = photo_batch(
        image_rgb,
        boxes,
        known,
        bundle.recipe.data,
        keypoints_px=seen.keypoints_px,
        confidence=seen.confidence,
        K_px=None if focal_px is None else K_px,
    )
    device = next(bundle.model.parameters()).device
    generator = torch.Generator(device).manual_seed(bundle.recipe.seed)
    prediction = predict(bundle.model, batch.to(device), bundle.recipe.sampler, generator).to("cpu")
    if not bool(prediction.vertices_m.isfinite().all() and prediction.camera.isfinite().all()):
        raise PredictError(f"model {bundle.digest} predicts numbers that are not finite; train or export it again")
    if camera == "keypoints":
        aligned = camera_on_keypoints(prediction.camera, prediction.joints_m, batch.keypoints_2d)
        prediction = replace(prediction, camera=aligned)
    placed = _place(prediction, batch, bundle.recipe.data.crop_px, K_px, image_rgb.shape[1])
    faces = bundle.model.mano.faces.cpu().numpy()
    return [
        PredictedHand(
            side=known[k],
            box_xyxy_px=boxes[k],
            detection_score=scores[k],
            keypoints_px=seen.keypoints_px[k],
            keypoints_confidence=seen.confidence[k],
            faces=faces[:, ::-1] if known[k] == "left" else faces,
            K_px=K_px,
            crop_camera=prediction.camera[k].numpy(),
            crop_from_image=batch.crop_from_image[k].numpy(),
            joint_confidence=prediction.joint_confidence[k].numpy(),
            score=float(prediction.score[k]),
            **{name: values[k] for name, values in placed.items()},
        )
        for k in range(len(boxes))
    ]


def _place(prediction: HandPrediction, batch: HandBatch, crop_px: int, K_px: Array, width_px: int) -> dict[str, Array]:
    """Mirror left hands back and put all hands before the photo's camera."""
    left = batch.is_left.numpy()
    # Left hands were seen in the mirrored photo, whose principal point is mirrored too.
    principal = np.tile(K_px[:2, 2], (len(left), 1))
    principal[left, 0] = width_px - 1 - principal[left, 0]
    translation = crop_camera_to_full(
        prediction.camera.double(),
        batch.crop_from_image,
        crop_px,
        torch.full((len(left),), float(K_px[0, 0])),
        torch.from_numpy(principal),
    ).numpy()
    mirror_point = np.where(left[:, None], MIRROR_POINT, 1.0)
    translation = translation * mirror_point
    vertices = prediction.vertices_m.double().numpy() * mirror_point[:, None] + translation[:, None]
    joints = prediction.joints_m.double().numpy() * mirror_point[:, None] + translation[:, None]
    projected = joints @ K_px.T
    pose_aa = matrix_to_axis_angle(prediction.rotmats.double()).numpy()
    return {
        "pose_aa": pose_aa * np.where(left[:, None, None], MIRROR_AXIS_ANGLE, 1.0),
        "betas": prediction.betas.numpy(),
        "transl_cam_m": translation,
        "vertices_cam_m": vertices,
        "joints_cam_m": joints,
        "joints_px": projected[..., :2] / projected[..., 2:],
    }


def camera_matrix(image_rgb: Array, focal_px: float | None) -> Array:
    """(3, 3) pinhole with the principal point in the middle of the picture.

    Without a focal length HaMeR's choice: the crop camera's, on the picture's longer side. Raises PredictError.
    """
    height, width = image_rgb.shape[:2]
    focal = FOCAL * max(height, width) if focal_px is None else float(focal_px)
    if not np.isfinite(focal) or focal <= 0:
        raise PredictError(f"focal length {focal_px!r}: expected a positive number of pixels")
    return np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])


def draw_hands(image_rgb: Array, hands: Sequence[PredictedHand]) -> Array:
    """The photo with every mesh over it, far hands first, and the 2D keypoints the network was given."""
    picture = image_rgb
    for hand in sorted(hands, key=lambda h: -float(h.transl_cam_m[2])):
        if hand.vertices_cam_m[:, 2].min() > 0:  # a badly trained model may place a hand behind the camera
            picture = overlay_mesh(picture, hand.vertices_cam_m, hand.faces, hand.K_px)
    for hand in hands:
        picture = draw_keypoints(picture, hand.keypoints_px, hand.keypoints_confidence)
    return picture


def to_json(hand: PredictedHand) -> dict[str, Any]:
    """Everything but the mesh, as plain numbers: metres, radians, pixels."""
    return {
        "side": hand.side,
        "box_xyxy_px": _numbers(hand.box_xyxy_px, 2),
        "detection_score": None if hand.detection_score is None else round(float(hand.detection_score), 4),
        "score": round(hand.score, 4),
        "joint_confidence": dict(zip(MANO_16, _numbers(hand.joint_confidence, 4), strict=True)),
        "mano": {
            "side": hand.side,
            "flat_hand_mean": True,
            "global_orient": _numbers(hand.pose_aa[0], 6),
            "hand_pose": _numbers(hand.pose_aa[1:], 6),
            "betas": _numbers(hand.betas, 6),
            "transl_cam_m": _numbers(hand.transl_cam_m, 6),
        },
        "camera": {
            "K_px": _numbers(hand.K_px, 4),
            "crop": dict(zip(("scale", "tx", "ty"), _numbers(hand.crop_camera, 6), strict=True)),
            "crop_focal": FOCAL,
            "crop_from_image": _numbers(hand.crop_from_image, 6),
            "crop_is_mirrored": hand.side == "left",
        },
        "joint_names": list(OPENPOSE_21),
        "joints_cam_m": _numbers(hand.joints_cam_m, 6),
        "joints_px": _numbers(hand.joints_px, 3),
        "keypoints_px": _numbers(hand.keypoints_px, 3),
        "keypoints_confidence": _numbers(hand.keypoints_confidence, 4),
    }


def read_photo(path: str | Path) -> Array:
    """(H, W, 3) uint8 RGB, turned as its EXIF tag says (what people see is what they mean). Raises PredictError."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PredictError(f"{path}: cannot be read ({error.strerror or error})") from None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise PredictError(f"{path}: not a picture that can be decoded; give a JPEG or PNG file")
    return np.ascontiguousarray(image[:, :, ::-1])


def _check_boxes(boxes: Array, image_rgb: Array) -> None:
    height, width = image_rgb.shape[:2]
    for x0, y0, x1, y1 in boxes.tolist():
        overlaps = x1 - x0 >= 2 and y1 - y0 >= 2 and x0 < width and y0 < height and x1 > 0 and y1 > 0
        # a hand may leave the picture, but not by more than a picture
        if not (overlaps and x0 > -width and y0 > -height and x1 < 2 * width and y1 < 2 * height):
            raise PredictError(
                f"box {x0:g},{y0:g},{x1:g},{y1:g}: expected x0,y0,x1,y1 with x0 < x1 and y0 < y1, "
                f"in pixels of the {width} x {height} picture"
            )


def _numbers(values: Array, digits: int) -> list[Any]:
    """Rounded nested lists."""
    return (np.round(np.asarray(values, np.float64), digits) + 0.0).tolist()  # + 0.0: no negative zeros


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
