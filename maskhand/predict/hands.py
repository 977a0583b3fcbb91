"""A photo in, hands out: find them, crop, 2D keypoints, model, full-image camera.

Left hands pass the model mirrored and come out as left hands: mesh, joints, MANO parameters (of a left model that is
the mirror of the right one) and camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch

from maskhand.annotate.detectors import load_detector
from maskhand.annotate.hand_finder import find_hands
from maskhand.batch import HandBatch, HandPrediction
from maskhand.conventions import MIRROR_AXIS_ANGLE, MIRROR_POINT, Side
from maskhand.hand.camera import assumed_camera, camera_on_keypoints, crop_camera_to_full
from maskhand.hand.rotations import matrix_to_axis_angle
from maskhand.loading.photo import photo_batch
from maskhand.models.bundle import ModelBundle
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.sampling import hypothesis_sampler, sample
from maskhand.predict.records import Array, Hypothesis, PlacedHand, PredictedHand, PredictError
from maskhand.workspace import Workspace

Box = tuple[float, float, float, float]
CameraSource = Literal["keypoints", "model"]
"""What places a hand in the photo: the 2D keypoints that were seen, or the network alone."""


def predict_hands(
    image_rgb: Array,
    bundle: ModelBundle,
    boxes_xyxy_px: Sequence[Box] | Array | None = None,
    side: Side | None = None,
    *,
    focal_px: float | None = None,
    camera: CameraSource = "keypoints",
    hypotheses: int = 0,
    assets: str | Path | None = None,
) -> list[PredictedHand]:
    """The hands of a picture (H, W, 3) uint8 RGB, best detection first; an empty list when none is found.

    camera: `model` places the hands where the network says, `keypoints` where the 2D keypoints that it was given say
    (the network's own place and size when too few are seen). hypotheses: so many hands are drawn beside each one, from
    the same encoding (`hypothesis_sampler`). Raises PredictError, BundleError when the model reads captions.
    """
    bundle.require("image")
    if hypotheses and not isinstance(bundle.model, MaskedTransformer):
        raise PredictError(
            f"model {bundle.digest} (recipe {bundle.recipe.name}) knows one hand per picture; it has no "
            "distribution to draw hypotheses from"
        )
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
    faces = bundle.model.mano.faces.cpu().numpy()
    first, drawn = _placed_hands(bundle, batch, K_px, image_rgb.shape[1], camera, hypotheses)
    return [
        PredictedHand(
            side=known[k],
            box_xyxy_px=boxes[k],
            detection_score=scores[k],
            keypoints_px=seen.keypoints_px[k],
            keypoints_confidence=seen.confidence[k],
            faces=faces[:, ::-1] if known[k] == "left" else faces,
            K_px=K_px,
            crop_from_image=batch.crop_from_image[k].numpy(),
            hypotheses=drawn[k],
            **vars(first[k]),
        )
        for k in range(len(boxes))
    ]


@torch.no_grad()
def _placed_hands(
    bundle: ModelBundle, batch: HandBatch, K_px: Array, width_px: int, camera: CameraSource, hypotheses: int
) -> tuple[list[PlacedHand], list[tuple[Hypothesis, ...]]]:
    """For every row of the batch the prediction, and the different ones among `hypotheses` draws."""
    model, sampler = bundle.model, bundle.recipe.sampler
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(bundle.recipe.seed)
    there = batch.to(device)
    context = model.encode(model.condition(there), there.keypoints_2d)

    def placed(prediction: HandPrediction, hands: HandBatch) -> list[PlacedHand]:
        if not bool(prediction.vertices_m.isfinite().all() and prediction.camera.isfinite().all()):
            raise PredictError(f"model {bundle.digest} predicts numbers that are not finite; train or export it again")
        if camera == "keypoints":
            aligned = camera_on_keypoints(prediction.camera, prediction.joints_m, hands.keypoints_2d)
            prediction = replace(prediction, camera=aligned)
        return _place(prediction, hands, bundle.recipe.data.crop_px, K_px, width_px)

    first = placed(sample(model, context, sampler, generator).to("cpu"), batch)
    if not hypotheses:
        return first, [()] * len(first)
    drawn = sample(model, context, hypothesis_sampler(sampler), generator, hypotheses).to("cpu")
    kept = [distinct_strings(ids.numpy()) for ids in drawn.tokens.ids.split(hypotheses)]
    rows = torch.cat([torch.from_numpy(places) + hypotheses * k for k, (places, _) in enumerate(kept)])
    picture = torch.div(rows, hypotheses, rounding_mode="floor")
    hands, scores = iter(placed(drawn[rows], batch[picture])), iter(drawn.score[rows].tolist())
    return first, [
        tuple(Hypothesis(**vars(next(hands)), drawn=int(n), score=next(scores)) for n in counts) for _, counts in kept
    ]


def distinct_strings(ids: Array) -> tuple[Array, Array]:
    """(H, L) token strings -> where each different one stands first, in that order, and how often it is there."""
    _, first, counts = np.unique(ids, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    return first[order], counts[order]


def _place(prediction: HandPrediction, batch: HandBatch, crop_px: int, K_px: Array, width_px: int) -> list[PlacedHand]:
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
    pose_aa = pose_aa * np.where(left[:, None, None], MIRROR_AXIS_ANGLE, 1.0)
    return [
        PlacedHand(
            pose_aa=pose_aa[k],
            betas=prediction.betas[k].numpy(),
            transl_cam_m=translation[k],
            vertices_cam_m=vertices[k],
            joints_cam_m=joints[k],
            joints_px=projected[k, :, :2] / projected[k, :, 2:],
            crop_camera=prediction.camera[k].numpy(),
            joint_confidence=prediction.joint_confidence[k].numpy(),
            tokens=prediction.tokens.ids[k].numpy(),
            token_confidence=prediction.tokens.confidence[k].numpy(),
            log_probability=float(prediction.log_probability[k]),
        )
        for k in range(len(left))
    ]


def camera_matrix(image_rgb: Array, focal_px: float | None) -> Array:
    """(3, 3) `assumed_camera` of a picture (H, W, 3). Raises PredictError."""
    if focal_px is not None and not (np.isfinite(focal_px) and focal_px > 0):
        raise PredictError(f"focal length {focal_px!r}: expected a positive number of pixels")
    return assumed_camera((image_rgb.shape[1], image_rgb.shape[0]), focal_px)


def read_photo(path: str | Path) -> Array:
    """(H, W, 3) uint8 RGB, turned as its EXIF tag says (what people see is what they mean). Raises PredictError."""
    try:
        data = Path(path).read_bytes()
    except IsADirectoryError:
        raise PredictError(f"{path}: a folder; give one picture, a JPEG or PNG file") from None
    except OSError as error:
        raise PredictError(f"{path}: cannot be read ({error.strerror or error})") from None
    return decode_photo(data, str(path))


def decode_photo(data: bytes, name: str) -> Array:
    """(H, W, 3) uint8 RGB of an encoded picture, as `read_photo`. Raises PredictError, which begins with the name."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise PredictError(f"{name}: not a picture that can be decoded; give a JPEG or PNG file")
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
