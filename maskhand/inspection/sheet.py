"""The contact sheet of a shard set: per hand its image, its keypoints, the detectors' and its mesh."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import chain

import cv2
import numpy as np

from maskhand.annotate.images import decode_rgb
from maskhand.arrays import Array
from maskhand.geometry2d import box_center_px, crop_affine
from maskhand.inspection.targets import mesh_of, target_of
from maskhand.loading.crop import cut_crop
from maskhand.render import GROUND_TRUTH_RGB, MESH_RGB, contact_sheet, draw_keypoints, overlay_mesh
from maskhand.shards.layout import detector_of
from maskhand.shards.reader import ShardSample
from maskhand.shards.sidecar_records import ManoTarget

TILE_PX = 200
TILES_ACROSS = 10
"""A row shows as many hands as there is room for, one at least."""
CONTEXT = 1.5
"""Side of the cut-out, in longer sides of the hand's box."""
MIN_SIDE_PX = 24.0
"""A smaller cut-out would show nothing but a few pixels."""
BOX_RGB, _OUTLINE_RGB = (255, 214, 10), (20, 20, 20)
_BOX_WIDTH_PX = max(2, TILE_PX // 100)
_LETTERS = 30
"""That fit under a tile."""

Tile = tuple[Array, str]
"""(TILE_PX, TILE_PX, 3) or smaller, and its caption."""


def set_sheet(rows: Sequence[ShardSample], parts: Sequence[str], title: str) -> bytes:
    """A PNG with the hands `rows`, whose sidecars `parts` were read. Raises SampleError for an undecodable image."""
    detectors = [detector for part in parts if (detector := detector_of(part))]
    columns = ["image", "annotated", *detectors, "MANO"]
    hands_across = max(1, min(TILES_ACROSS // len(columns), len(rows)))
    tiles = [_tiles(row, detectors) for row in rows]
    lines = [list(chain(*tiles[k : k + hands_across])) for k in range(0, len(tiles), hands_across)]
    return contact_sheet(
        [[image for image, _ in line] for line in lines],
        [[caption for _, caption in line] for line in lines],
        columns * hands_across,
        title,
        TILE_PX,
    )


def _tiles(row: ShardSample, detectors: Sequence[str]) -> list[Tile]:
    """One tile per column; everything is drawn in the pixels of the stored image, so left hands look left."""
    sample = row.sample
    image = decode_rgb(sample)
    size = sample.box_xyxy_px[2:] - sample.box_xyxy_px[:2]
    side_px = max(float(size.max()) * CONTEXT, MIN_SIDE_PX)
    center = box_center_px(sample.box_xyxy_px)
    tile_from_image = crop_affine(center[None], np.array([side_px]), np.zeros(1), TILE_PX)[0]
    crop = np.ascontiguousarray(cut_crop(image, tile_from_image, TILE_PX))
    facts = _wrapped(f"{sample.side}, {sample.dataset}", sample.key)
    return [
        (boxed_image(image, sample.box_xyxy_px), facts),
        _annotated(row, crop, tile_from_image),
        *(_detected(row, detector, crop, tile_from_image) for detector in detectors),
        _mesh(row, crop, tile_from_image),
    ]


def boxed_image(image: Array, box_xyxy_px: Array) -> Array:
    """The whole image with the hand's box, outlined: a thin line alone is lost on a busy image."""
    height, width = image.shape[:2]
    scale = TILE_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    x0, y0, x1, y1 = (int(v) for v in np.rint((box_xyxy_px + 0.5) * scale - 0.5))
    for color, width_px in ((_OUTLINE_RGB, _BOX_WIDTH_PX + 2), (BOX_RGB, _BOX_WIDTH_PX)):
        cv2.rectangle(small, (x0, y0), (x1, y1), color, width_px, cv2.LINE_AA)
    return small


def _annotated(row: ShardSample, crop: Array, tile_from_image: Array) -> Tile:
    sample = row.sample
    if sample.joints_2d_px is None:
        return crop, "no 2D joints"
    conf = np.ones(len(sample.joints_2d_px)) if sample.joints_2d_conf is None else sample.joints_2d_conf
    caption = f"{int((conf > 0).sum())} of {len(conf)} joints"
    if sample.joints_2d_occluded is not None:
        hidden = int(sample.joints_2d_occluded.sum())
        caption += f", {hidden} hidden" + (" (rings)" if hidden else "")
    return _skeleton(crop, sample.joints_2d_px, conf, tile_from_image, sample.joints_2d_occluded), caption


def _detected(row: ShardSample, detector: str, crop: Array, tile_from_image: Array) -> Tile:
    seen = row.keypoints(detector)
    if seen is None:
        return crop, "rejected"
    skeleton = _skeleton(crop, seen.keypoints_px, seen.confidence, tile_from_image)
    return skeleton, f"confidence {seen.confidence.mean():.2f}"


def _skeleton(
    crop: Array, joints_px: Array, conf: Array, tile_from_image: Array, occluded: Array | None = None
) -> Array:
    return draw_keypoints(crop, joints_px @ tile_from_image[:, :2].T + tile_from_image[:, 2], conf, occluded)


def _mesh(row: ShardSample, crop: Array, tile_from_image: Array) -> Tile:
    target = target_of(row)
    mesh = mesh_of(row, target)
    if mesh is None:
        return crop, "no parameters, no mesh"
    annotated = target is None or target.source == "annotated"
    color, color_name = (GROUND_TRUTH_RGB, "green") if annotated else (MESH_RGB, "blue")
    caption = f"annotated mesh ({color_name})" if target is None else _described(target, color_name)
    if mesh.vertices_cam_m[:, 2].min() <= 0:
        return crop, _wrapped(caption, "behind the camera")
    K_px = np.vstack([tile_from_image, [0, 0, 1]]) @ mesh.K_px
    caption += ", camera assumed" if row.sample.camera is None else ""
    return overlay_mesh(crop, mesh.vertices_cam_m, mesh.faces, K_px, color), _wrapped(caption)


def _described(target: ManoTarget, color_name: str) -> str:
    residuals = ((target.residual_mm, "mm"), (target.residual_px, "px"))
    off = [f"{value:.1f} {unit}" for value, unit in residuals if not math.isnan(value)]
    return ", ".join([f"{target.source} ({color_name})", *off, *((f"BAD: {target.fault}",) if target.fault else ())])


def _wrapped(*lines: str) -> str:
    return "\n".join(part for line in lines for part in textwrap.wrap(line, _LETTERS))
