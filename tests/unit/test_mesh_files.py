"""Mesh files of a photo's hands, read back by trimesh: one frame, units and axes said in the file."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import trimesh

from maskhand.hand.mesh import glb_bytes, obj_bytes
from support.known_hands import known_hands

HANDS = known_hands(2, seed=1)
NAMES = ["hand_0_right", "hand_1_left"]
FACES = np.array([[0, 1, 2], [2, 1, 3]])
MESHES = [(vertices, FACES) for vertices in HANDS.vertices_m]


def test_a_glb_holds_each_hand_by_name_where_its_camera_sees_it() -> None:
    data = glb_bytes(MESHES, names=NAMES)
    scene = trimesh.load_scene(io.BytesIO(data), file_type="glb", process=False)
    assert sorted(scene.graph.nodes_geometry) == NAMES
    for name, vertices in zip(NAMES, HANDS.vertices_m, strict=True):
        transform, geometry = scene.graph[name]
        placed = trimesh.transform_points(scene.geometry[geometry].vertices, transform)
        # half a turn about x: up is up, and what the camera sees has negative z
        np.testing.assert_allclose(placed, vertices @ np.diag([1, -1, -1]), atol=1e-6)
        assert (placed[:, 2] < 0).all()
    length = struct.unpack("<I", data[12:16])[0]
    extras = json.loads(data[20 : 20 + length])["asset"]["extras"]
    assert extras["units"] == "meters" and "y up" in extras["axes"] and "camera of the photo" in extras["frame"]


def test_an_obj_has_the_cameras_axes_and_says_so() -> None:
    for name, (vertices, faces) in zip(NAMES, MESHES, strict=True):
        data = obj_bytes(vertices, faces, name)
        mesh = trimesh.load_mesh(io.BytesIO(data), file_type="obj", process=False, maintain_order=True)
        np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-6)
        np.testing.assert_array_equal(mesh.faces, faces)
        comments = [line for line in data.decode().splitlines() if line.startswith("#")]
        assert comments[:2] == [f"# {name}", "# units: meters"]
        assert "y down, z away from the camera" in comments[2] and "camera of the photo" in comments[3]
