"""The files of hypotheses: a contact sheet with the modes of a photo's hands, and a 3D scene for each hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskhand import storage
from maskhand.arrays import Array
from maskhand.hand.mesh import glb_bytes
from maskhand.predict.drawing import hand_name, hand_view, moved, with_mesh
from maskhand.predict.records import PredictedHand
from maskhand.render import MESH_RGB, contact_sheet, draw_keypoints, error_rgb, legend

SHOWN = 6
"""Number of modes of a hand shown in the sheet and in the scene, the most frequent ones."""
TILE_PX, SPACING_M = 260, 0.22


def write_hypotheses(image_rgb: Array, hands: Sequence[PredictedHand], out: Path, stem: str) -> list[Path]:
    """Write STEM_hypotheses.png and, per hand, STEM_hand0_hypotheses.glb into `out`; returns their paths.

    Both show the medoids of the modes; the sheet also shows their frequencies and the spread of the hypotheses.
    """
    sheet = out / f"{stem}_hypotheses.png"
    rows = [_row(image_rgb, hand, hand_name(k, hand)) for k, hand in enumerate(hands)]
    headings = ("2D pose", "spread of the hypotheses", "modes, the most frequent first")
    storage.write_bytes_atomic(
        sheet,
        contact_sheet(
            [tiles for tiles, _ in rows],
            [captions for _, captions in rows],
            headings,
            tile_px=TILE_PX,
            footer=legend("spread of a point", TILE_PX // 16),
        ),
    )
    scenes = [out / f"{stem}_hand{k}_hypotheses.glb" for k in range(len(hands))]
    for path, hand in zip(scenes, hands, strict=True):
        medoids = [hand.hypotheses[mode.medoid] for mode in hand.modes[:SHOWN]]
        in_a_row = [
            (medoid.vertices_cam_m - medoid.transl_cam_m + (SPACING_M * k, 0, 0), hand.faces)
            for k, medoid in enumerate(medoids)
        ]
        storage.write_bytes_atomic(
            path, glb_bytes(in_a_row, frame="hypotheses side by side, not where the photo has them")
        )
    return [sheet, *scenes]


def _row(image_rgb: Array, hand: PredictedHand, name: str) -> tuple[list[Array], list[str]]:
    """Crops of the photo around the hand with 2D pose, prediction and modes, and a caption for each."""
    view, view_from_image = hand_view(image_rgb, hand, TILE_PX)
    points = moved(hand.keypoints_px, view_from_image)
    spread_mm = 1e3 * hand.vertex_spread_m
    spread = with_mesh(view, hand, hand, view_from_image, error_rgb(spread_mm), opacity=0.9)
    tiles = [draw_keypoints(view, points, hand.keypoints_confidence), spread]
    draws = sum(h.drawn for h in hand.hypotheses)
    captions = [name, f"the prediction\nspread {spread_mm.mean():.0f} mm over {draws} draws"]
    predicted = hand.joints_cam_m - hand.joints_cam_m[0]
    for number, mode in enumerate(hand.modes[:SHOWN]):
        medoid = hand.hypotheses[mode.medoid]
        apart_mm = 1e3 * np.linalg.norm(medoid.joints_cam_m - medoid.joints_cam_m[0] - predicted, axis=1).mean()
        tiles.append(with_mesh(view, medoid, hand, view_from_image, np.array(MESH_RGB), opacity=0.9))
        captions.append(
            f"mode {number + 1} of {len(hand.modes)}: {100 * mode.share:.0f} % of draws\n"
            f"{apart_mm:.0f} mm from the prediction"
        )
    return tiles, captions
