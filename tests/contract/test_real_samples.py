"""A few published files as they are, where someone has them: what no fixture of ours can tell.

MASKHAND_SAMPLES names a folder with `interhand26m/` (four images and their three label files, as in mmpose's tests)
and `dexycb/` (color.png, labels.npz and the camera's SERIAL_640x480.yml of one frame).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from maskhand import catalog
from maskhand.adapters import Item, open_adapter, read_hand
from maskhand.adapters.readers.yaml_files import read_yaml

SAMPLES = Path(os.environ.get("MASKHAND_SAMPLES") or "nowhere")

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="MASKHAND_SAMPLES names no folder of published files")


def test_interhand_s_joints_lie_in_their_boxes() -> None:
    folder = SAMPLES / "interhand26m"
    adapter = open_adapter(catalog.load_spec("interhand26m"), str(folder), "test")
    plan = adapter.plan()
    labels = json.loads((folder / "test_interhand2.6m_data.json").read_text())
    boxes = {entry["id"]: np.array(entry["bbox"]) for entry in labels["annotations"]}
    sizes, sides = set(), set()
    for position in range(len(plan.keys)):
        sample = read_hand(adapter, plan.item(position))
        corner, extent = np.split(boxes[sample.origin["annotation"]], 2)
        joints = sample.joints_2d_px[sample.joints_3d_valid]
        assert (corner <= joints).all() and (joints <= corner + extent).all() and (joints >= 0).all()
        assert (joints < sample.image_size_px).all()
        assert 0.5 < sample.joints_cam_m[0, 2] < 2, "meters"
        sizes.add(sample.image_size_px)
        sides.add(sample.side)
    assert sizes == {(334, 512), (512, 334)} and sides == {"right", "left"}


def test_dexycb_s_published_pixels_are_the_projection_of_its_joints() -> None:
    folder = SAMPLES / "dexycb"
    (intrinsics,) = folder.glob("*_640x480.yml")
    color = read_yaml(str(intrinsics)).value["color"]
    K = [[color["fx"], 0, color["ppx"]], [0, color["fy"], color["ppy"]], [0, 0, 1]]
    files = {"K_file": str(intrinsics), "label": str(folder / "labels.npz")}
    given = {"side": "right", "betas": None, "K": K, **files}
    adapter = open_adapter(catalog.load_spec("dexycb").model_copy(update={"mano": None}), str(folder), "s0_train")
    sample = read_hand(adapter, Item("frame", str(folder / "color.png"), given, {}))
    published = np.load(folder / "labels.npz")["joint_2d"][0]
    np.testing.assert_allclose(sample.joints_2d_px, published, atol=0.01)
