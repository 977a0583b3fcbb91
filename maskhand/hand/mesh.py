"""Hand meshes as .obj and .glb files, the formats every viewer and modeling tool opens."""

from __future__ import annotations

import numpy as np
import trimesh

SKIN_RGB = (222, 174, 149)


def obj_bytes(vertices_m: np.ndarray, faces: np.ndarray) -> bytes:
    """(V, 3) meters and (F, 3) triangles, in the axes given."""
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in np.asarray(vertices_m, dtype=np.float64)]
    lines += [f"f {a} {b} {c}" for a, b, c in np.asarray(faces, dtype=np.int64) + 1]
    return ("\n".join(lines) + "\n").encode()


def glb_bytes(hands: list[tuple[np.ndarray, np.ndarray]], color_rgb: tuple[int, int, int] = SKIN_RGB) -> bytes:
    """One scene of hands, each (V, 3) meters in OpenCV camera axes with its (F, 3) triangles.

    glTF looks along -z with y up, so the scene is turned by half a turn about x to be upright in viewers.
    """
    scene = trimesh.Scene()
    for number, (vertices_m, faces) in enumerate(hands):
        upright = np.asarray(vertices_m, dtype=np.float64) * (1.0, -1.0, -1.0)
        material = trimesh.visual.material.PBRMaterial(
            baseColorFactor=[*color_rgb, 255], metallicFactor=0.0, roughnessFactor=0.7, doubleSided=True
        )
        mesh = trimesh.Trimesh(upright, faces, process=False, visual=trimesh.visual.TextureVisuals(material=material))
        scene.add_geometry(mesh, node_name=f"hand_{number}", geom_name=f"hand_{number}")
    data = scene.export(file_type="glb")
    assert isinstance(data, bytes)
    return data
