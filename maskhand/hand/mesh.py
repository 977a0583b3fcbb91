"""Hand meshes as .obj and .glb files, the formats every viewer and modeling tool opens.

All hands of a photo are in the one frame of its camera, in meters. An .obj keeps the camera's axes and says so in its
comments; a .glb has glTF's, one named node per hand, and says so in `asset.extras`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import trimesh

SKIN_RGB = (222, 174, 149)
CAMERA_FRAME: Final = "origin at the camera of the photo, the same for all its hands"
OBJ_AXES: Final = "OpenCV camera axes: x right, y down, z away from the camera"
GLTF_AXES: Final = "glTF: x right, y up, z toward the viewer; OpenCV camera axes after half a turn about x (x, -y, -z)"


def obj_bytes(vertices_m: np.ndarray, faces: np.ndarray, name: str = "hand", frame: str = CAMERA_FRAME) -> bytes:
    """(V, 3) meters and (F, 3) triangles, in the axes given, which are to be the camera's.

    name: of the object, without spaces; frame: a line about the origin.
    """
    lines = [f"# {name}", "# units: meters", f"# axes: {OBJ_AXES}", f"# frame: {frame}", f"o {name}"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in np.asarray(vertices_m, dtype=np.float64)]
    lines += [f"f {a} {b} {c}" for a, b, c in np.asarray(faces, dtype=np.int64) + 1]
    return ("\n".join(lines) + "\n").encode()


def glb_bytes(
    hands: Sequence[tuple[np.ndarray, np.ndarray]],
    color_rgb: tuple[int, int, int] = SKIN_RGB,
    names: Sequence[str] | None = None,
    frame: str = CAMERA_FRAME,
) -> bytes:
    """One scene of hands, each (V, 3) meters in OpenCV camera axes with its (F, 3) triangles.

    glTF looks along -z with y up, so the scene is turned by half a turn about x to be upright in viewers, whose camera
    then is the photo's. names: of the hands' nodes, all different; frame: a line about the origin.
    """
    scene = trimesh.Scene()
    named = names or [f"hand_{number}" for number in range(len(hands))]
    for name, (vertices_m, faces) in zip(named, hands, strict=True):
        upright = np.asarray(vertices_m, dtype=np.float64) * (1.0, -1.0, -1.0)
        material = trimesh.visual.material.PBRMaterial(
            baseColorFactor=[*color_rgb, 255], metallicFactor=0.0, roughnessFactor=0.7, doubleSided=True
        )
        mesh = trimesh.Trimesh(upright, faces, process=False, visual=trimesh.visual.TextureVisuals(material=material))
        scene.add_geometry(mesh, node_name=name, geom_name=name)

    def describe(tree: dict[str, Any]) -> None:
        tree["asset"]["extras"] = {"units": "meters", "axes": GLTF_AXES, "frame": frame}

    data = scene.export(file_type="glb", tree_postprocessor=describe)
    assert isinstance(data, bytes)
    return data
