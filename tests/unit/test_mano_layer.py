"""The MANO layer against smplx, against closed forms, and by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import smplx
import torch
from smplx.vertex_ids import vertex_ids as VERTEX_IDS

from maskhand.conventions import OPENPOSE_FROM_MANO_AND_TIPS
from maskhand.hand import rotations, skinning
from maskhand.hand.layer import ManoLayer, make_layer
from maskhand.hand.model_file import HandModel, default_hand_path, load_hand_model
from maskhand.hand.smplx_layer import SmplxLayer, smplx_fields
from maskhand.recipe_files import load_recipe
from support.hand_models import random_model


@pytest.fixture(scope="module", params=["random", "open_hand"])
def model(request) -> HandModel:
    return random_model() if request.param == "random" else load_hand_model(default_hand_path("right"))


def random_inputs(n: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    pose = 0.7 * torch.randn(n, 16, 3, generator=generator, dtype=dtype)
    betas = torch.randn(n, 10, generator=generator, dtype=dtype)
    return pose, betas, torch.randn(n, 3, generator=generator, dtype=dtype)


@pytest.mark.filterwarnings("ignore")
def test_equals_smplx_with_axis_angle_tips_and_translation(model):
    pose, betas, transl = random_inputs(32)
    reference = smplx.MANO(
        "", data_struct=smplx_fields(model), is_rhand=True, use_pca=False, flat_hand_mean=True, batch_size=32
    )
    out = reference(betas=betas, global_orient=pose[:, 0], hand_pose=pose[:, 1:].flatten(1), transl=transl)
    mesh = ManoLayer(model).from_axis_angle(pose, betas, transl)
    assert (mesh.vertices_m - out.vertices).abs().max() < 1e-6
    # As HaMeR's wrapper of smplx does: 16 joints, then smplx's tips, put into OpenPose order.
    tips = out.vertices[:, list(VERTEX_IDS["mano"].values())]
    joints21 = torch.cat([out.joints[:, :16], tips], dim=1)[:, list(OPENPOSE_FROM_MANO_AND_TIPS)]
    assert (mesh.joints_m - joints21).abs().max() < 1e-6


def test_the_layer_of_a_recipe_is_ours_or_smplxs(model):
    pose, betas, transl = random_inputs(8)
    rotmats = rotations.axis_angle_to_matrix(pose)
    recipes = {name: load_recipe("tiny", [f"hand.layer={name}"]) for name in ("maskhand", "smplx")}
    ours, theirs = (make_layer(model, recipe.hand.layer) for recipe in recipes.values())
    assert type(ours) is ManoLayer and type(theirs) is SmplxLayer and load_recipe("tiny").hand.layer == "maskhand"
    here, there = ours(rotmats, betas, transl), theirs(rotmats, betas, transl)
    assert (here.vertices_m - there.vertices_m).abs().max() < 1e-6
    assert (here.joints_m - there.joints_m).abs().max() < 1e-6


def test_weights_fit_a_network_with_either_layer(model):
    layer = SmplxLayer(model).double()
    assert not layer.state_dict() and not list(layer.parameters())
    rotmats = torch.eye(3, dtype=torch.float64).expand(2, 16, 3, 3)
    assert layer(rotmats, torch.zeros(2, 10, dtype=torch.float64)).joints_m.dtype == torch.float64


def test_gradients_agree_with_finite_differences():
    layer = ManoLayer(random_model()).double()
    pose, betas, transl = (t.requires_grad_() for t in random_inputs(2, torch.float64))
    some = torch.arange(0, 778, 97)

    def points(pose, betas, transl):
        mesh = layer.from_axis_angle(pose, betas, transl)
        return mesh.vertices_m[:, some], mesh.joints_m

    assert torch.autograd.gradcheck(points, (pose, betas, transl))


def test_flat_pose_is_the_template_and_global_rotation_turns_about_the_wrist():
    model = random_model()
    layer = ManoLayer(model).double()
    flat = torch.eye(3, dtype=torch.float64).repeat(1, 16, 1, 1)
    zero = torch.zeros(1, 10, dtype=torch.float64)
    rest = layer(flat, zero)
    # Buffers are float32, so the template comes back to float32 precision.
    np.testing.assert_allclose(rest.vertices_m[0], model.v_template_m, atol=1e-7)
    turn = rotations.random_rotations(1, torch.Generator().manual_seed(0), dtype=torch.float64)
    turned = layer(torch.cat([turn[:, None], flat[:, 1:]], dim=1), zero)
    wrist = rest.joints_m[:, :1]
    torch.testing.assert_close(turned.vertices_m, (rest.vertices_m - wrist) @ turn.mT + wrist)


def test_skinning_does_not_know_its_chunks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    transforms, rest, weights = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((7, 12, 16), (7, 3, 20), (16, 20))
    )
    plain = torch.einsum("brcj,jv,bcv->brv", transforms.view(7, 3, 4, 16)[:, :, :3], weights, rest)
    plain += transforms.view(7, 3, 4, 16)[:, :, 3] @ weights
    results = []
    for chunk in (2, 100):
        monkeypatch.setattr(skinning, "CHUNK", chunk)
        inputs = transforms.clone().requires_grad_(), rest.clone().requires_grad_()
        posed = skinning.skin(*inputs, weights)
        torch.testing.assert_close(posed, plain)
        posed.sin().sum().backward()
        results.append([x.grad for x in inputs])
    torch.testing.assert_close(results[0], results[1])
    assert torch.autograd.gradcheck(lambda t, r: skinning.skin(t, r, weights), inputs)


def test_tips_follow_the_data_set():
    model = random_model()
    flat, zero = torch.eye(3).repeat(1, 16, 1, 1), torch.zeros(1, 10)
    freihand = ManoLayer(model, fingertip_vertices="freihand")(flat, zero)
    torch.testing.assert_close(freihand.joints_m[0, [4, 16, 20]], freihand.vertices_m[0, [744, 555, 672]])
    with pytest.raises(ValueError, match=r"expected one of smplx, freihand"):
        ManoLayer(model, fingertip_vertices="mine")


def test_mirrored_model_and_pose_give_the_mirrored_hand():
    """A left hand is the right model mirrored in x, with axis-angle (x, -y, -z)."""
    right = load_hand_model(default_hand_path("right"))
    left = load_hand_model(default_hand_path("left"))
    pose, betas, _ = random_inputs(4)
    here = ManoLayer(right).from_axis_angle(pose, betas).vertices_m
    there = ManoLayer(left).from_axis_angle(pose * torch.tensor([1.0, -1.0, -1.0]), betas).vertices_m
    torch.testing.assert_close(there, here * torch.tensor([-1.0, 1.0, 1.0]), atol=1e-6, rtol=0)
