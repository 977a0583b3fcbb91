"""The door: every kind of bad sample is refused with a countable reason."""

import dataclasses
import pickle

import cv2
import numpy as np
import pytest

from maskhand.conventions import (
    BONES,
    FINGERS,
    FINGERTIPS,
    FIRST_MANO_JOINT,
    JOINT_ORDERS,
    MANO_16,
    OPENPOSE_21,
    OPENPOSE_FROM_MANO_AND_TIPS,
    openpose_joint_of_mano_joint,
)
from maskhand.sample import Camera, HandSample, SampleError


def _sample(**changes) -> HandSample:
    image = cv2.imencode(".jpg", np.full((32, 40, 3), 128, np.uint8))[1].tobytes()
    good = HandSample(
        key="set-training-00000001",
        dataset="set",
        image=image,
        image_format="jpg",
        image_size_px=(40, 32),
        side="right",
        box_xyxy_px=np.array([4, 4, 30, 30], np.float32),
        camera=Camera(np.array([[50.0, 0, 20], [0, 50, 16], [0, 0, 1]])),
        joints_2d_px=np.zeros((21, 2), np.float32),
    )
    return dataclasses.replace(good, **changes)


def test_a_good_sample_passes() -> None:
    _sample().validate()
    _sample(joints_2d_px=np.full((21, 2), 1e30, np.float32)).validate()  # finite, although its square is not
    _sample(key="---").validate()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": "a.b"}, "bad_key"),
        ({"key": ""}, "bad_key"),
        ({"side": "both"}, "bad_side"),
        ({"image": b"GIF89a"}, "bad_image"),
        ({"image": _sample().image[:200]}, "cut_image"),
        ({"image_format": "gif"}, "bad_image"),
        ({"joints_cam_m": np.zeros((20, 3), np.float32)}, "wrong_shape"),
        ({"joints_2d_px": np.full((21, 2), np.nan, np.float32)}, "not_finite"),
        ({"joints_2d_px": np.full((21, 2), -np.inf, np.float32)}, "not_finite"),
        ({"box_xyxy_px": np.array([4, 4, 4, 30], np.float32)}, "empty_box"),
        ({"box_xyxy_px": np.array([50, 4, 90, 30], np.float32)}, "box_outside"),
    ],
)
def test_a_bad_sample_is_refused_by_reason(changes: dict, reason: str) -> None:
    with pytest.raises(SampleError) as caught:
        _sample(**changes).validate()
    assert caught.value.reason == reason


def test_the_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(SampleError("cut_image", "the file ends too early")))
    assert (error.reason, str(error)) == ("cut_image", "the file ends too early")


def test_projection_is_the_pinhole_formula() -> None:
    camera = Camera(np.array([[500.0, 0, 112], [0, 400, 100], [0, 0, 1]]))
    np.testing.assert_allclose(camera.project(np.array([[0.1, -0.2, 0.5]])), [[212, -60]])


def test_joint_orders_are_permutations_that_agree_on_names() -> None:
    for order in JOINT_ORDERS.values():
        assert sorted(order) == list(range(21))
    tips = ("thumb_tip", "index_tip", "middle_tip", "ring_tip", "little_tip")
    part = {"1": ("mcp", "cmc"), "2": ("pip", "mcp"), "3": ("dip", "ip")}
    for openpose, source in zip(OPENPOSE_21, OPENPOSE_FROM_MANO_AND_TIPS, strict=True):
        name = (MANO_16 + tips)[source]
        if name[-1].isdigit():
            finger, digit = name[:-1], name[-1]
            name = f"{finger}_{part[digit][finger == 'thumb']}"
        assert name == openpose
    assert tuple(OPENPOSE_21[j] for j in FINGERTIPS) == tips
    assert [MANO_16[first] for first in FIRST_MANO_JOINT.values()] == [f"{finger}1" for finger in FINGERS]
    assert [OPENPOSE_21[j] for j in openpose_joint_of_mano_joint()][:4] == ["wrist", *OPENPOSE_21[5:8]]


def test_bones_form_one_tree_rooted_at_the_wrist() -> None:
    children = [child for _, child in BONES]
    assert sorted(children) == list(range(1, 21))
    assert all(parent < child for parent, child in BONES)
