"""The hands of a photo drawn over it, and the sheet of a photo: the original, the drawn hands, small hands enlarged."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from maskhand.arrays import Array
from maskhand.geometry2d import box_center_px, crop_affine
from maskhand.loading.crop import crop_side_px, cut_crop
from maskhand.predict.records import PlacedHand, PredictedHand
from maskhand.render import (
    MESH_RGB,
    draw_box,
    draw_joints,
    draw_labels,
    error_rgb,
    framed,
    label_text_px,
    legend,
    overlay_mesh,
    place_labels,
)

VIEW_PX = (480, 2048)
"""Limits of the longer side of a drawn photo: a small photo is enlarged, or labels and joints would hide it."""
MESH_OPACITY = 0.5
"""The fingers below stay visible."""
SMALL_PX = 110
"""A hand whose joints extend less in the drawn photo is also shown enlarged."""
TINY_PX = 48
"""A hand whose joints extend less is drawn with a box instead of joints, which would overlap."""
MOST_ENLARGED = 12
LEGEND = "expected error of a joint"


def draw_hands(image_rgb: Array, hands: Sequence[PredictedHand], names: Sequence[str] | None = None) -> Array:
    """The photo (H, W, 3) with all hands: half transparent meshes with outlines, far ones first, joints colored by
    expected error (`render/scale.py`), and labels, which stay inside the photo and do not overlap.

    names: the hands' names in labels; by default their numbers. A photo outside of `VIEW_PX` is resized.
    """
    view, view_from_image = _view(image_rgb)
    drawn = view
    for hand in sorted(hands, key=lambda h: -float(h.transl_cam_m[2])):
        drawn = with_mesh(drawn, hand, hand, view_from_image)
    boxes = []
    for hand in hands:
        boxes.append(_drawn_box_px(hand, view_from_image))
        if _extent_px(hand, view_from_image) < TINY_PX:
            drawn = draw_box(drawn, moved(hand.box_xyxy_px.reshape(2, 2), view_from_image).ravel())
        else:
            drawn = draw_joints(drawn, moved(hand.joints_px, view_from_image), error_rgb(hand.joint_error_mm))
    text_px, around = label_text_px(view.shape[:2]), np.reshape(boxes, (-1, 4))
    names = [str(k) for k in range(len(hands))] if names is None else names
    texts = [_texts(name, hand) for name, hand in zip(names, hands, strict=True)]
    return draw_labels(drawn, place_labels(texts, around, view.shape[:2], text_px), around, text_px)


def photo_sheet(image_rgb: Array, hands: Sequence[PredictedHand]) -> Array:
    """The photo and, beside it (below it for a wide photo), the photo with its hands; below them the legend and
    enlargements of small hands."""
    original, view_from_image = _view(image_rgb)
    height, width = original.shape[:2]
    text_px = label_text_px((height, width))
    both = [original, draw_hands(image_rgb, hands)]
    across = width * 2 if height >= 0.6 * width else width
    rows = [both] if across > width else [[part] for part in both]
    tile_px = max(160, max(height, width) // 5)
    known = any(np.isfinite(hand.joint_error_mm).all() for hand in hands)
    footer = [legend(LEGEND, text_px)] if known else []
    small = [k for k, hand in enumerate(hands) if _extent_px(hand, view_from_image) < SMALL_PX]
    footer += [_enlarged(image_rgb, k, hands[k], tile_px) for k in small[:MOST_ENLARGED]]
    return framed([*rows, *_in_rows(footer, across)])


def hand_view(image_rgb: Array, hand: PredictedHand, tile_px: int, margin: float = 1.2) -> tuple[Array, Array]:
    """A crop (tile_px, tile_px, 3) of the photo around a hand, and the (3, 3) affine from the photo to it."""
    box = hand.box_xyxy_px[None]
    (tile_from_image,) = crop_affine(box_center_px(box), crop_side_px(box, margin, 0.75), np.zeros(1), tile_px)
    return cut_crop(image_rgb, tile_from_image, tile_px), np.vstack([tile_from_image, [0, 0, 1]])


def hand_name(number: int, hand: PredictedHand) -> str:
    """The name of a hand in sheets: its number, side and expected joint error."""
    error = f", {hand.joint_error_mm.mean():.0f} mm" if np.isfinite(hand.joint_error_mm).all() else ""
    return f"hand {number}, {_side(hand)}" + (", a guess" if hand.is_guess else error)


def with_mesh(
    view: Array,
    placed: PlacedHand,
    hand: PredictedHand,
    view_from_image: Array,
    color: Array | None = None,
    opacity: float = MESH_OPACITY,
) -> Array:
    """A view (h, w, 3) of the photo with the outlined mesh of a hand, or of a hypothesis of it.

    color: (3,) or (778, 3) RGB. A mesh that is not in front of the camera is left out.
    """
    K_px = view_from_image @ hand.K_px
    if not placed.vertices_cam_m[:, 2].min() > 0:  # a badly trained model may place a hand behind the camera
        return view.copy()
    across_px = K_px[0, 0] * float(np.ptp(placed.joints_cam_m[:, :2], axis=0).max() / placed.joints_cam_m[:, 2].mean())
    width_px = float(np.clip(across_px / 160, 0.9, 4))
    shown = np.array(MESH_RGB) if color is None else color
    return overlay_mesh(view, placed.vertices_cam_m, hand.faces, K_px, shown, opacity, width_px)


def _texts(name: str, hand: PredictedHand) -> list[str]:
    """The possible texts of a label, the longest first."""
    error = f"{hand.joint_error_mm.mean():.0f} mm" if np.isfinite(hand.joint_error_mm).all() else None
    facts = [_side(hand), "a guess" if hand.is_guess else error]
    score = None if hand.detection_score is None else f"score {hand.detection_score:.2f}"
    short = f"{name} " + ", ".join(fact for fact in facts if fact)
    return [*([f"{short}, {score}"] if score else []), short, name]


def _side(hand: PredictedHand) -> str:
    return hand.side if hand.side_known else "side unknown"


def _enlarged(image_rgb: Array, number: int, hand: PredictedHand, tile_px: int) -> Array:
    view, view_from_image = hand_view(image_rgb, hand, tile_px)
    drawn = with_mesh(view, hand, hand, view_from_image)
    drawn = draw_joints(drawn, moved(hand.joints_px, view_from_image), error_rgb(hand.joint_error_mm))
    text_px, corner = max(11, tile_px // 14), np.zeros((1, 4))
    labels = place_labels([_texts(str(number), hand)], corner, (tile_px, tile_px), text_px)
    return draw_labels(drawn, labels, corner, text_px)


def _drawn_box_px(hand: PredictedHand, view_from_image: Array) -> Array:
    """(4,) bounding box of the drawn mesh and joints of a hand, or its detection box."""
    points = hand.joints_px
    if hand.vertices_cam_m[:, 2].min() > 0:
        mesh = hand.vertices_cam_m @ hand.K_px.T
        points = np.vstack([points, mesh[:, :2] / mesh[:, 2:]])
    points = points[np.isfinite(points).all(1)]
    shown = moved(points if len(points) else hand.box_xyxy_px.reshape(2, 2), view_from_image)
    return np.concatenate([shown.min(0), shown.max(0)])


def _extent_px(hand: PredictedHand, view_from_image: Array) -> float:
    """The longer side of the box around a hand's joints in the view; of its detection box if they are not finite."""
    points = hand.joints_px if np.isfinite(hand.joints_px).all() else hand.box_xyxy_px.reshape(2, 2)
    return float(np.ptp(moved(points, view_from_image), axis=0).max())


def moved(points_px: Array, affine: Array) -> Array:
    """Points (N, 2) transformed by an affine (3, 3)."""
    return points_px @ affine[:2, :2].T + affine[:2, 2]


def _in_rows(tiles: Sequence[Array], width_px: int) -> list[list[Array]]:
    rows: list[list[Array]] = []
    for tile in tiles:
        if not rows or sum(t.shape[1] for t in rows[-1]) + tile.shape[1] > width_px:
            rows.append([])
        rows[-1].append(tile)
    return rows


def _view(image_rgb: Array) -> tuple[Array, Array]:
    """The image at the size of the overlay, and the (3, 3) affine from image pixels to overlay pixels."""
    height, width = image_rgb.shape[:2]
    longer_px = float(np.clip(max(height, width), *VIEW_PX))
    if longer_px == max(height, width):
        return image_rgb, np.eye(3)
    size = np.maximum(1, np.rint(np.array([width, height]) * (longer_px / max(height, width)))).astype(int)
    scale = size / (width, height)
    offset = (scale - 1) / 2  # cv2's pixel centers: x' = (x + 1/2) s - 1/2
    affine = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]], [0, 0, 1]])
    interpolation = cv2.INTER_AREA if longer_px < max(height, width) else cv2.INTER_CUBIC
    return cv2.resize(image_rgb, size.tolist(), interpolation=interpolation), affine
