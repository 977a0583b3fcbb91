"""The files of hypotheses: a sheet for all hands of a photo, and a scene for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskhand import storage
from maskhand.arrays import Array
from maskhand.geometry2d import box_center_px, crop_affine
from maskhand.hand.mesh import glb_bytes
from maskhand.loading.crop import crop_side_px, cut_crop
from maskhand.predict.drawing import hand_name
from maskhand.predict.records import PlacedHand, PredictedHand
from maskhand.render import contact_sheet, draw_keypoints, overlay_mesh

SHOWN = 6
"""Number of hypotheses of a hand in the image and the scene: the first, the last and others evenly between."""
TILE_PX, SPACING_M = 240, 0.22


def write_hypotheses(image_rgb: Array, hands: Sequence[PredictedHand], out: Path, stem: str) -> list[Path]:
    """Write STEM_hypotheses.png and, per hand, STEM_hand0_hypotheses.glb into `out`; returns their paths."""
    sheet = out / f"{stem}_hypotheses.png"
    rows = [_hypothesis_row(image_rgb, hand, hand_name(k, hand)) for k, hand in enumerate(hands)]
    headings = ("2D pose", "prediction", "hypotheses, nearest to their mean first")
    storage.write_bytes_atomic(
        sheet,
        contact_sheet([tiles for tiles, _ in rows], [captions for _, captions in rows], headings, tile_px=TILE_PX),
    )
    scenes = [out / f"{stem}_hand{k}_hypotheses.glb" for k in range(len(hands))]
    for path, hand in zip(scenes, hands, strict=True):
        in_a_row = [
            (
                hand.hypotheses[rank].vertices_cam_m - hand.hypotheses[rank].transl_cam_m + (SPACING_M * k, 0, 0),
                hand.faces,
            )
            for k, rank in enumerate(_shown(hand))
        ]
        storage.write_bytes_atomic(
            path, glb_bytes(in_a_row, frame="hypotheses side by side, not where the photo has them")
        )
    return [sheet, *scenes]


def _hypothesis_row(image_rgb: Array, hand: PredictedHand, name: str) -> tuple[list[Array], list[str]]:
    """Crops of the photo around the hand with 2D pose, prediction and hypotheses, and a caption for each."""
    box = hand.box_xyxy_px[None]
    (tile_from_image,) = crop_affine(box_center_px(box), crop_side_px(box, 1.2, 0.75), np.zeros(1), TILE_PX)
    view = cut_crop(image_rgb, tile_from_image, TILE_PX)
    K_px = np.vstack([tile_from_image, [0, 0, 1]]) @ hand.K_px

    def drawn(placed: PlacedHand) -> Array:
        visible = placed.vertices_cam_m[:, 2].min() > 0
        return overlay_mesh(view, placed.vertices_cam_m, hand.faces, K_px, opacity=0.9) if visible else view

    points = hand.keypoints_px @ tile_from_image[:, :2].T + tile_from_image[:, 2]
    tiles = [draw_keypoints(view, points, hand.keypoints_confidence), drawn(hand)]
    captions = [name, f"mean log probability {hand.log_probability:.2f}"]
    predicted = hand.joints_cam_m - hand.joints_cam_m[0]
    for rank in _shown(hand):
        other = hand.hypotheses[rank]
        apart_mm = 1e3 * np.linalg.norm(other.joints_cam_m - other.joints_cam_m[0] - predicted, axis=1).mean()
        tiles.append(drawn(other))
        captions.append(
            f"{rank + 1} of {len(hand.hypotheses)}: {-other.score:.0f} mm from the mean\n"
            f"{apart_mm:.0f} mm from the prediction"
        )
    return tiles, captions


def _shown(hand: PredictedHand) -> list[int]:
    last = len(hand.hypotheses) - 1
    return sorted({round(rank) for rank in np.linspace(0, last, SHOWN)})
