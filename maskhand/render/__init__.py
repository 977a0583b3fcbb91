"""Rendering of results: keypoints, shaded mesh overlays, colors of errors, labels and contact sheets.

Software only, no GL, deterministic. Images are (H, W, 3) uint8 RGB, with the center of the top-left pixel at (0, 0).
"""

from maskhand.render.data_url import data_url, jpeg_url
from maskhand.render.drawing import FINGER_RGB, WRIST_RGB, draw_box, draw_joints, draw_keypoints
from maskhand.render.labels import draw_labels, label_text_px, place_labels
from maskhand.render.mesh import GROUND_TRUTH_RGB, MESH_RGB, overlay_mesh
from maskhand.render.scale import error_rgb, legend
from maskhand.render.sheet import bar_tile, contact_sheet, framed, png_bytes

__all__ = [
    "FINGER_RGB",
    "GROUND_TRUTH_RGB",
    "MESH_RGB",
    "WRIST_RGB",
    "bar_tile",
    "contact_sheet",
    "data_url",
    "draw_box",
    "draw_joints",
    "draw_keypoints",
    "draw_labels",
    "error_rgb",
    "framed",
    "jpeg_url",
    "label_text_px",
    "legend",
    "overlay_mesh",
    "place_labels",
    "png_bytes",
]
