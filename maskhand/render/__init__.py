"""Rendering of results: keypoints, shaded mesh overlays and contact sheets. Software only, no GL, deterministic.

Images are (H, W, 3) uint8 RGB, pixels with the center of the top-left pixel at (0, 0).
"""

from maskhand.render.drawing import FINGER_RGB, WRIST_RGB, draw_keypoints, draw_label
from maskhand.render.mesh import GROUND_TRUTH_RGB, MESH_RGB, overlay_mesh
from maskhand.render.sheet import bar_tile, contact_sheet, png_bytes

__all__ = [
    "FINGER_RGB",
    "GROUND_TRUTH_RGB",
    "MESH_RGB",
    "WRIST_RGB",
    "bar_tile",
    "contact_sheet",
    "draw_keypoints",
    "draw_label",
    "overlay_mesh",
    "png_bytes",
]
