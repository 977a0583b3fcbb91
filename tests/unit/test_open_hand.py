"""The shipped open-hand files behave like MANO's: same format, a sound surface, an anatomically plausible skeleton."""

from __future__ import annotations

import json
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import smplx
import torch
import trimesh
from scipy.spatial.transform import Rotation

from maskhand.hand.model_file import OPEN_HAND_FOLDER

TIPS = {"thumb": 744, "index": 320, "middle": 443, "ring": 554, "little": 671}
FIRST_JOINT = {"index": 1, "middle": 4, "little": 7, "ring": 10, "thumb": 13}
PARENTS = [0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]
# The 14 triangles with which MANO renderers close the wrist.
WRIST_CAP = [
    [92, 38, 234], [234, 38, 239], [38, 122, 239], [239, 122, 279], [122, 118, 279], [279, 118, 215], [118, 117, 215],
    [215, 117, 214], [117, 119, 214], [214, 119, 121], [119, 120, 121], [121, 120, 78], [120, 108, 78], [78, 108, 79],
]  # fmt: skip
# Plausible adult means, millimeters: base joint to middle joint, middle to last, last to the tip of the skin.
BONES_MM = {
    "index": ((37, 47), (21, 29), (18, 27)),
    "middle": ((41, 51), (24, 32), (19, 28)),
    "ring": ((38, 48), (23, 31), (19, 28)),
    "little": ((30, 40), (16, 23), (17, 25)),
    "thumb": ((38, 50), (29, 38), (24, 33)),
}


def load(side: str) -> dict[str, Any]:
    return pickle.loads((OPEN_HAND_FOLDER / f"OPEN_HAND_{side}.pkl").read_bytes())


@pytest.fixture(scope="module")
def right() -> dict[str, Any]:
    return load("RIGHT")


@pytest.fixture(scope="module")
def left() -> dict[str, Any]:
    return load("LEFT")


@pytest.fixture(scope="module")
def anatomy() -> dict[str, Any]:
    return json.loads((OPEN_HAND_FOLDER / "anatomy.json").read_text())


def layer(side: str, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(OPEN_HAND_FOLDER / f"OPEN_HAND_{side}.pkl")
        return smplx.MANO(path, is_rhand=side == "RIGHT", **options)


def posed(model: Any, **parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out = model(**{k: torch.as_tensor(v, dtype=torch.float32)[None] for k, v in parameters.items()})
    return out.vertices[0].detach().numpy(), out.joints[0].detach().numpy()


@pytest.mark.parametrize("side", ["RIGHT", "LEFT"])
def test_arrays_have_manos_shapes(side: str) -> None:
    hand = load(side)
    shapes = {key: np.shape(value) for key, value in hand.items() if key not in {"bs_style", "bs_type"}}
    coefficients = shapes.pop("hands_coeffs")
    assert shapes == {
        "v_template": (778, 3), "f": (1538, 3), "weights": (778, 16), "J_regressor": (16, 778), "J": (16, 3),
        "kintree_table": (2, 16), "shapedirs": (778, 3, 10), "posedirs": (778, 3, 135),
        "hands_mean": (45,), "hands_components": (45, 45),
    }  # fmt: skip
    assert coefficients[1] == 45
    assert hand["kintree_table"][0][1:].tolist() == PARENTS[1:]


@pytest.mark.parametrize("side", ["RIGHT", "LEFT"])
def test_surface_closes_with_manos_wrist_cap_and_faces_outward(side: str) -> None:
    hand = load(side)
    cap = np.array(WRIST_CAP)[:, :: 1 if side == "RIGHT" else -1]
    open_mesh = trimesh.Trimesh(hand["v_template"], hand["f"].astype(int), process=False)
    closed = trimesh.Trimesh(hand["v_template"], np.vstack([hand["f"].astype(int), cap]), process=False)
    edges = np.sort(open_mesh.edges, axis=1)
    _, uses = np.unique(edges, axis=0, return_counts=True)
    assert np.bincount(uses).tolist()[1:] == [16, uses.size - 16]
    assert closed.is_watertight and closed.is_winding_consistent and closed.body_count == 1
    assert 250e-6 < closed.volume < 500e-6
    assert closed.euler_number == 2


def test_weights_and_regressor_are_averages(right: dict[str, Any]) -> None:
    regressor = np.asarray(right["J_regressor"].todense())
    for rows in (right["weights"], regressor):
        assert rows.min() >= 0.0
        np.testing.assert_allclose(rows.sum(1), 1.0, atol=1e-5)
    assert (right["weights"] > 0).sum(1).max() <= 4
    np.testing.assert_allclose(regressor @ right["v_template"], right["J"], atol=1e-6)


def test_tip_ids_are_the_farthest_points_of_their_fingers(right: dict[str, Any]) -> None:
    owner = right["weights"].argmax(1)
    for finger, tip in TIPS.items():
        first = FIRST_JOINT[finger]
        heading = right["J"][first + 2] - right["J"][first + 1]
        own = np.flatnonzero(owner == first + 2)
        reach = (right["v_template"] - right["J"][first + 2]) @ (heading / np.linalg.norm(heading))
        assert reach[tip] > reach[own].max() - 1e-3, finger


def test_other_data_sets_tip_ids_lie_next_to_the_tip(right: dict[str, Any]) -> None:
    for finger, others in {"index": (317, 333), "middle": (444, 445), "ring": (555, 556), "little": (672, 673),
                           "thumb": (745,)}.items():  # fmt: skip
        away = np.linalg.norm(right["v_template"][list(others)] - right["v_template"][TIPS[finger]], axis=1)
        assert away.max() < 0.009, finger


def test_rest_frame_is_manos(right: dict[str, Any]) -> None:
    wrist, joints, tips = right["J"][0], right["J"], right["v_template"][list(TIPS.values())]
    np.testing.assert_allclose(wrist, [0.0957, 0.0064, 0.0062], atol=1e-5)
    assert (tips[1:, 0] < joints[4, 0]).all() and tips[0, 2] > tips[1, 2] > tips[4, 2]
    # a flat hand: no finger rises or dips much
    assert np.ptp(tips[1:, 1]) < 0.015


def test_bones_have_adult_lengths(right: dict[str, Any]) -> None:
    joints, vertices = right["J"], right["v_template"]
    for finger, ranges in BONES_MM.items():
        first = FIRST_JOINT[finger]
        chain = np.vstack([joints[first : first + 3], vertices[TIPS[finger]]])
        for length, (low, high) in zip(1000.0 * np.linalg.norm(np.diff(chain, axis=0), axis=1), ranges, strict=True):
            assert low < length < high, finger
    assert 79.0 < 1000.0 * np.linalg.norm(joints[4] - joints[0]) < 95.0


def test_left_hand_mirrors_the_right_in_any_pose_and_shape() -> None:
    rng = np.random.default_rng(3)
    pose, betas = rng.normal(0.0, 0.5, 45), rng.normal(0.0, 1.0, 10)
    options = {"use_pca": False, "flat_hand_mean": False}
    flip = np.tile([1.0, -1.0, -1.0], 15)
    vertices, joints = posed(layer("RIGHT", **options), hand_pose=pose, betas=betas)
    other_vertices, other_joints = posed(layer("LEFT", **options), hand_pose=pose * flip, betas=betas)
    np.testing.assert_allclose(other_vertices, vertices * [-1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(other_joints, joints * [-1, 1, 1], atol=1e-6)


def test_pose_basis_is_orthonormal_and_reaches_from_relaxed_to_fist(right: dict[str, Any]) -> None:
    basis = right["hands_components"].astype(np.float64)
    np.testing.assert_allclose(basis @ basis.T, np.eye(45), atol=1e-5)
    spread = right["hands_coeffs"].std(0)
    assert spread[0] > 3 * spread[5] > 0
    coefficients = right["hands_coeffs"][:, :12]
    pca = layer("RIGHT", use_pca=True, num_pca_comps=12, flat_hand_mean=False)
    full = layer("RIGHT", use_pca=False, flat_hand_mean=True)
    pose = right["hands_mean"] + coefficients[0] @ basis[:12]
    expected, _ = posed(full, hand_pose=pose)
    actual, _ = posed(pca, hand_pose=coefficients[0])
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_anatomical_axes_are_right_handed_frames_along_the_bones(
    right: dict[str, Any], anatomy: dict[str, Any]
) -> None:
    assert [j["joint"] for j in anatomy["joints"].values()] == list(range(1, 16))
    for name, entry in anatomy["joints"].items():
        frame = np.array([entry["twist"], entry["flexion"], entry["abduction"]])
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-5)
        np.testing.assert_allclose(np.cross(frame[0], frame[1]), frame[2], atol=1e-5)
        finger, joint = name[:-1], entry["joint"]
        end = right["v_template"][TIPS[finger]] if name.endswith("3") else right["J"][joint + 1]
        bone = end - right["J"][joint]
        assert frame[0] @ bone / np.linalg.norm(bone) > 0.9, name


def test_flexion_curls_toward_the_palm_and_back_again(right: dict[str, Any], anatomy: dict[str, Any]) -> None:
    model = layer("RIGHT", use_pca=False, flat_hand_mean=True)
    flat, _ = posed(model)
    palm_center = right["J"][[0, 1, 4, 7]].mean(0) - [0.0, 0.02, 0.0]
    for name, entry in anatomy["joints"].items():
        tip = TIPS[name[:-1]]
        moved = {}
        for angle in (60.0, -20.0):
            pose = np.zeros((15, 3))
            pose[entry["joint"] - 1] = np.deg2rad(angle) * np.array(entry["flexion"])
            moved[angle] = posed(model, hand_pose=pose.ravel())[0][tip]
        if not name.startswith("thumb"):
            assert moved[60.0][1] < flat[tip][1] - 0.010 and moved[-20.0][1] > flat[tip][1], name
        else:
            # the thumb curls across the palm
            assert np.linalg.norm(moved[60.0] - palm_center) < np.linalg.norm(flat[tip] - palm_center) - 0.004, name


def test_abduction_turns_fingers_toward_the_thumb(anatomy: dict[str, Any], right: dict[str, Any]) -> None:
    for finger in ("index", "middle", "ring", "little"):
        entry = anatomy["joints"][finger + "1"]
        turn = Rotation.from_rotvec(np.deg2rad(15) * np.array(entry["abduction"]))
        assert turn.apply(entry["twist"])[2] > entry["twist"][2] + 0.15


def test_first_shape_coefficient_spans_adult_hand_lengths() -> None:
    model = layer("RIGHT", use_pca=False, flat_hand_mean=True)
    lengths = []
    for beta in (-2.0, 0.0, 2.0):
        vertices, joints = posed(model, betas=np.array([beta] + [0.0] * 9))
        lengths.append(1000.0 * np.linalg.norm(vertices[TIPS["middle"]] - joints[0]))
    assert 160.0 < lengths[0] < 172.0 and 180.0 < lengths[1] < 192.0 and 198.0 < lengths[2] < 210.0


def test_shape_directions_are_ordered_and_independent(right: dict[str, Any]) -> None:
    flat = right["shapedirs"].reshape(-1, 10).astype(np.float64)
    size = np.linalg.norm(flat, axis=0)
    assert (np.diff(size) <= 1e-6).all()
    assert np.linalg.cond(flat / size) < 1.5


def test_joints_follow_the_shape(right: dict[str, Any]) -> None:
    """A larger hand keeps its proportions: every bone grows like the hand."""
    model = layer("RIGHT", use_pca=False, flat_hand_mean=True)
    bones = []
    for beta in (0.0, 2.0):
        _, joints = posed(model, betas=np.array([beta] + [0.0] * 9))
        bones.append(np.linalg.norm(joints[1:16] - joints[PARENTS[1:]], axis=1))
    growth = bones[1] / bones[0]
    assert growth.min() > 1.05 and growth.max() < 1.20


def test_correctives_are_silent_when_flat_and_keep_folds_apart(right: dict[str, Any], anatomy: dict[str, Any]) -> None:
    """Opposite skin of a finger bent at its middle joint stays on its own side of the bend's bisecting plane."""
    model = layer("RIGHT", use_pca=False, flat_hand_mean=True)
    np.testing.assert_allclose(posed(model)[0], right["v_template"], atol=1e-6)
    entry = anatomy["joints"]["index2"]
    twist, flexion, back = (np.array(entry[k]) for k in ("twist", "flexion", "abduction"))
    joint = right["J"][entry["joint"]]
    offset = right["v_template"] - joint
    near = (np.linalg.norm(offset, axis=1) < 0.018) & (right["weights"][:, [1, 2]].sum(1) > 0.9) & (offset @ back < 0)
    proximal = near & (offset @ twist < -0.002)
    pose = np.zeros((15, 3))
    pose[entry["joint"] - 1] = np.deg2rad(90) * flexion
    normal = Rotation.from_rotvec(np.deg2rad(45) * flexion).apply(twist)
    plain = np.zeros_like(right["posedirs"])
    depth = {}
    for name, posedirs in (("with", right["posedirs"]), ("without", plain)):
        model.posedirs.copy_(torch.from_numpy(posedirs.reshape(-1, 135).T.copy()))
        vertices, joints = posed(model, hand_pose=pose.ravel())
        depth[name] = ((vertices[proximal] - joints[entry["joint"]]) @ normal).max()
    assert depth["without"] > 0.001
    assert depth["with"] < 0.0005
