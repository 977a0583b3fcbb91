"""The pose prior: limits, couplings, and hand shapes that mean what their names say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from scipy.spatial.transform import Rotation

from maskhand.conventions import openpose_joint_of_mano_joint
from maskhand.hand import anatomy
from maskhand.hand.anatomy import ABDUCTION, DIP_OF_PIP, DIP_SLACK_DEG, FLEXION, pose_table, to_axis_angle
from maskhand.hand.layer import ManoLayer
from maskhand.synth import collisions, pose_prior

FINGER_TIPS = {"thumb": 4, "index": 8, "middle": 12, "ring": 16, "little": 20}
LONG = ("index", "middle", "ring", "little")


@pytest.fixture(scope="module")
def layer() -> ManoLayer:
    return ManoLayer.from_default()


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return pose_prior.sample_poses(np.random.default_rng(3), 1500)


def joints_of(layer: ManoLayer, angles_deg: np.ndarray) -> np.ndarray:
    """(21, 3) meters of the mean hand."""
    pose = torch.from_numpy(to_axis_angle(angles_deg))[None].float()
    return layer.from_axis_angle(pose, torch.zeros(1, 10)).joints_m[0].numpy()


def extension(joints: np.ndarray, finger: str) -> float:
    """Straight distance from base to tip over the length along the bones: 1 for a straight finger."""
    tip = FINGER_TIPS[finger]
    chain = joints[tip - 3 : tip + 1]
    return float(np.linalg.norm(chain[-1] - chain[0]) / np.linalg.norm(np.diff(chain, axis=0), axis=1).sum())


def tip_to_palm(joints: np.ndarray, finger: str) -> float:
    """Meters from a fingertip to the middle of the palm."""
    palm = joints[[0, 5, 9, 13, 17]].mean(0)
    return float(np.linalg.norm(joints[FINGER_TIPS[finger]] - palm))


def test_the_table_holds_all_grasps_and_letters() -> None:
    table = pose_table()
    letters = {n for n, g in zip(table.names, table.groups, strict=True) if g == "alphabet"}
    assert table.groups.count("grasp") == 33
    assert letters == set("ABCDEFGHIKLMNOPQRSTUVWXY")
    assert len(set(table.names)) == len(table.names)


def test_every_sample_respects_limits_and_coupling(samples: np.ndarray) -> None:
    limits = pose_table().limits_deg
    assert (samples >= limits[..., 0]).all() and (samples <= limits[..., 1]).all()
    assert not samples[:, 0].any()
    pip, dip = samples[:, [2, 5, 8, 11], FLEXION], samples[:, [3, 6, 9, 12], FLEXION]
    slack = dip - DIP_OF_PIP * pip
    assert slack.min() >= DIP_SLACK_DEG[0] - 1e-9
    # the joint's own limit may hold DIP below what PIP asks for, never above
    assert slack.max() <= DIP_SLACK_DEG[1] + 1e-9


def test_samples_cover_flat_to_fist_and_do_not_intersect(samples: np.ndarray) -> None:
    low, high = np.percentile(samples[:, [1, 4, 7, 10], FLEXION], [3, 97])
    assert low < 2 and high > 75
    assert samples[:, [1, 4, 7, 10], ABDUCTION].std(0).min() > 3
    rotations = Rotation.from_rotvec(to_axis_angle(samples).reshape(-1, 3)).as_matrix().reshape(-1, 16, 3, 3)
    assert collisions.overlap_m(rotations).max() < pose_prior.MAX_OVERLAP_M


def test_same_seed_same_poses() -> None:
    first, again, other = (pose_prior.sample_poses(np.random.default_rng(s), 20) for s in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_axis_angle_composes_twist_then_flexion_then_abduction() -> None:
    angles = np.zeros((16, 3))
    angles[13] = (20, 35, -15)
    flexion, abduction, twist = np.deg2rad(angles[13])[:, None] * anatomy.anatomical_axes()[13]
    expected = (
        Rotation.from_rotvec(abduction) * Rotation.from_rotvec(flexion) * Rotation.from_rotvec(twist)
    ).as_rotvec()
    pose = to_axis_angle(angles)
    np.testing.assert_allclose(pose[13], expected, atol=1e-12)
    assert not np.delete(pose, 13, axis=0).any()


def test_capsule_skeleton_is_the_layers_skeleton(layer: ManoLayer, samples: np.ndarray) -> None:
    pose = to_axis_angle(samples[:40])
    points = collisions.posed_points(Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 16, 3, 3))
    mesh = layer.from_axis_angle(torch.from_numpy(pose).float(), torch.zeros(40, 10))
    np.testing.assert_allclose(points[:, :16], mesh.joints_m.numpy()[:, openpose_joint_of_mano_joint()], atol=1e-6)
    # a fingertip is skin: it follows its bone closely, not exactly
    np.testing.assert_allclose(points[:, 16:], mesh.joints_m.numpy()[:, [4, 8, 12, 16, 20]], atol=2e-3)


def test_fingers_pushed_through_each_other_are_found() -> None:
    angles = pose_table().shape("flat")[None].repeat(2, axis=0)
    angles[1, 1, ABDUCTION] -= 30  # the index crosses the middle finger in the palm's plane
    rotations = Rotation.from_rotvec(to_axis_angle(angles).reshape(-1, 3)).as_matrix().reshape(-1, 16, 3, 3)
    apart, crossed = collisions.overlap_m(rotations)
    assert apart < 0.001 < 0.005 < crossed


@pytest.mark.parametrize("name", ["A", "S", "fist"])
def test_fists_hide_all_fingertips_in_the_palm(layer: ManoLayer, name: str) -> None:
    joints = joints_of(layer, pose_table().shape(name))
    assert max(tip_to_palm(joints, f) for f in LONG) < 0.05
    assert max(extension(joints, f) for f in LONG) < 0.55


@pytest.mark.parametrize(
    ("name", "straight"),
    [
        ("B", LONG), ("flat", LONG), ("four", LONG), ("U", ("index", "middle")), ("V", ("index", "middle")),
        ("W", ("index", "middle", "ring")), ("L", ("index", "thumb")), ("I", ("little",)), ("Y", ("little", "thumb")),
        ("horns", ("index", "little")),
    ],
)  # fmt: skip
def test_exactly_the_named_fingers_are_straight(layer: ManoLayer, name: str, straight: tuple[str, ...]) -> None:
    joints = joints_of(layer, pose_table().shape(name))
    for finger in LONG:
        if finger in straight:
            assert extension(joints, finger) > 0.97 and tip_to_palm(joints, finger) > 0.08
        else:
            assert extension(joints, finger) < 0.85 and tip_to_palm(joints, finger) < 0.075
    if "thumb" in straight:
        assert extension(joints, "thumb") > 0.95


def test_v_is_spread_and_u_is_not(layer: ManoLayer) -> None:
    gap = {n: np.linalg.norm(np.diff(joints_of(layer, pose_table().shape(n))[[8, 12]], axis=0)) for n in "UV"}
    assert gap["U"] < 0.03 < 0.045 < gap["V"]


@pytest.mark.parametrize(
    ("name", "finger", "low_mm", "high_mm"),
    [
        ("O", "index", 0, 4), ("F", "index", 0, 4), ("D", "middle", 0, 4), ("tip_pinch", "index", 0, 4),
        ("six", "little", 0, 4), ("seven", "ring", 0, 4), ("eight", "middle", 0, 4), ("W", "little", 0, 5),
        ("palmar_pinch", "index", 1, 9), ("tripod", "middle", 3, 13), ("large_diameter", "middle", 40, 110),
    ],
)  # fmt: skip
def test_thumb_meets_the_finger_or_the_object_between(
    layer: ManoLayer, name: str, finger: str, low_mm: float, high_mm: float
) -> None:
    pose = torch.from_numpy(to_axis_angle(pose_table().shape(name)))[None].float()
    vertices = layer.from_axis_angle(pose, torch.zeros(1, 10)).vertices_m[0]
    last = {"thumb": 15, "index": 3, "middle": 6, "ring": 12, "little": 9}
    thumb, other = (vertices[layer.weights[last[f]] > 0.5] for f in ("thumb", finger))
    assert low_mm / 1000 <= float(torch.cdist(thumb, other).min()) <= high_mm / 1000


def test_r_crosses_index_and_middle(layer: ManoLayer) -> None:
    joints = joints_of(layer, pose_table().shape("R"))
    # in the rest frame the thumb's side is +z: the index starts there and ends beyond the middle finger
    assert joints[5, 2] > joints[9, 2] and joints[8, 2] < joints[12, 2]


def test_a_shape_outside_its_limits_is_refused(tmp_path) -> None:
    raw = yaml.safe_load(anatomy.TABLE.read_text())
    raw["shapes"]["gesture"]["flat"]["index"][2] = 170
    path = tmp_path / "hand_shapes.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(ValueError, match=r"flat: index2 column 0 is 170.*outside its limits"):
        pose_table(path)


def test_an_unknown_shape_names_the_known_ones() -> None:
    with pytest.raises(KeyError, match="tip_pinch"):
        pose_table().shape("salute")
