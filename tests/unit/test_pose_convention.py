"""Hand poses for SMPL-X and SMPL-H, against smplx's own classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from smplx.utils import Struct

from maskhand.conventions import MIRROR_AXIS_ANGLE, Side
from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import MANO_DIR_VARIABLE, HandModelError, default_hand_path, load_hand_model
from maskhand.hand.pose_convention import BodyConvention, body_hand_json, hand_pose_space
from maskhand.hand.smplx_layer import smplx_fields

POSES = np.random.default_rng(0).normal(0, 0.4, (3, 15, 3))
SPACES = [(flat, components) for flat in (False, True) for components in (None, 6, 44)]


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32)


def reachable(side: Side, flat: bool, components: int | None) -> np.ndarray:
    """Absolute poses that the space can hold exactly."""
    space = hand_pose_space(side, flat, components)
    return space.decode(space.encode(POSES))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("flat", "components"), SPACES)
def test_smplx_mano_poses_the_same_hand(side: Side, flat: bool, components: int | None) -> None:
    model = load_hand_model(default_hand_path(side))
    theirs = smplx.MANO(
        "",
        data_struct=smplx_fields(model),
        is_rhand=side == "right",
        use_pca=components is not None,
        num_pca_comps=components or 6,
        flat_hand_mean=flat,
        batch_size=3,
    )
    absolute = reachable(side, flat, components)
    zero = torch.zeros(3, 3)
    posed = theirs(
        betas=torch.zeros(3, 10),
        global_orient=zero,
        hand_pose=tensor(hand_pose_space(side, flat, components).encode(absolute)),
        transl=zero,
    )
    ours = ManoLayer(model).from_axis_angle(
        torch.cat([zero[:, None], tensor(absolute)], dim=1), torch.zeros(3, 10), torch.zeros(3, 3)
    )
    assert (posed.vertices - ours.vertices_m).abs().max() < 2e-6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("components", [None, 12])
def test_a_body_model_reads_the_json_of_both_hands(components: int | None) -> None:
    """SMPL+H (and SMPL-X, which inherits its hands) with the hands' means and components, and a body of nothing."""
    right, left = (load_hand_model(default_hand_path(side)) for side in ("right", "left"))
    joints, vertices = 52, 6890
    body = smplx.SMPLH(
        "",
        data_struct=Struct(
            v_template=np.zeros((vertices, 3)),
            shapedirs=np.zeros((vertices, 3, 10)),
            posedirs=np.zeros((vertices, 3, 9 * (joints - 1))),
            J_regressor=np.full((joints, vertices), 1 / vertices),
            weights=np.full((vertices, joints), 1 / joints),
            kintree_table=np.array([[-1, *range(joints - 1)], range(joints)]),
            f=np.zeros((1, 3), np.int64),
            hands_componentsl=left.hands_components,
            hands_componentsr=right.hands_components,
            hands_meanl=left.hands_mean_aa.ravel(),
            hands_meanr=right.hands_mean_aa.ravel(),
        ),
        use_pca=components is not None,
        num_pca_comps=components or 6,
        flat_hand_mean=False,
    )
    given, expected = {}, []
    for side in ("left", "right"):
        absolute = reachable(side, False, components)[0]
        facts = body_hand_json(np.concatenate([np.ones((1, 3)), absolute]), side, BodyConvention("smplh", components))
        assert facts["wrist_global_orient"] == [1, 1, 1] and facts["use_pca"] == (components is not None)
        given[facts["argument"]] = tensor(facts["hand_pose"])[None]
        expected.append(absolute.ravel())
    full = body(**given, return_full_pose=True).full_pose[0, -90:].detach().numpy()
    np.testing.assert_allclose(full, np.concatenate(expected), atol=2e-6)


def test_fewer_components_come_as_near_as_they_can() -> None:
    space = hand_pose_space("right", components=10)
    rest = (POSES - space.decode(space.encode(POSES))).reshape(3, 45)
    assert np.abs(rest).max() > 0.1 and np.abs(rest @ space.components.T).max() < 1e-6


def test_a_left_hand_is_the_mirror_image_of_the_right_one() -> None:
    left, right = hand_pose_space("left"), hand_pose_space("right")
    mirrored = left.encode(POSES * MIRROR_AXIS_ANGLE).reshape(3, 15, 3)
    np.testing.assert_allclose(mirrored, right.encode(POSES).reshape(3, 15, 3) * MIRROR_AXIS_ANGLE, atol=1e-12)
    stored = load_hand_model(default_hand_path("left")).hands_mean_aa
    np.testing.assert_allclose(left.mean_aa, stored, atol=1e-6, err_msg="as the left file has it")


def test_what_cannot_be_given_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HandModelError, match="46 principal components of the hand's pose; expected 1 to 45"):
        BodyConvention("smplx", 46)
    right_only = tmp_path / "MANO_RIGHT.pkl"
    right_only.write_bytes(default_hand_path("right").read_bytes())
    monkeypatch.setenv(MANO_DIR_VARIABLE, str(tmp_path))
    assert body_hand_json(np.zeros((16, 3)), "left", BodyConvention("smplx"))["num_pca_comps"] is None
    with pytest.raises(FileNotFoundError, match=r"MANO_LEFT\.pkl: not found"):
        BodyConvention("smplx", 6)
