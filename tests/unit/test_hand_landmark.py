"""The hand landmark network in PyTorch against LiteRT on the same file, and what is said of files that are not it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from maskhand.config import ConfigError
from maskhand.fetched_models import hand_models
from maskhand.hand.layer import ManoLayer
from maskhand.models.build import build_model, check_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.hand_landmark import CHANNELS, INPUT_PX, POOLED, HandLandmarkNet, _same
from maskhand.models.tflite import TfliteError, read_layers
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import load_recipe
from support.model_parts import random_batch

SEEING = [
    "data.crop_px=64", "data.crop_aspect=1.0", "model.backbone={name: hand_landmark, kwargs: {}}",
    "model.feature_scales=[1, 2]", "model.ref_points=pose2d",
]  # fmt: skip
"""Changes to `tiny`: images of 64 x 64 px, seen through the hand landmark network."""


def square_batch(count):
    """As `random_batch`, of square images."""
    pixels = torch.randint(256, (count, 64, 64, 4), generator=torch.Generator().manual_seed(0)).byte()
    return replace(random_batch(count), pixels=pixels)


@pytest.fixture(scope="module")
def published(assets):
    return hand_models(assets).landmark


@pytest.fixture(scope="module")
def network(published):
    network = HandLandmarkNet().eval()
    network.load_tflite(published)
    return network


def test_outputs_are_litert_s(published, network):
    rng = np.random.default_rng(0)
    images = (
        rng.random((3, INPUT_PX, INPUT_PX, 3), np.float32) * np.array([1.0, 0.3, 0.02], np.float32)[:, None, None, None]
    )
    reference = Interpreter(str(published), num_threads=1)
    reference.allocate_tensors()
    with torch.inference_mode():
        ours = network.outputs(network(torch.from_numpy(images).permute(0, 3, 1, 2)))
    for row, image in enumerate(images):
        reference.set_tensor(reference.get_input_details()[0]["index"], image[None])
        reference.invoke()
        theirs = {d["name"]: reference.get_tensor(d["index"])[0] for d in reference.get_output_details()}
        np.testing.assert_allclose(ours.keypoints[row].flatten(), theirs["Identity"], atol=1e-3)
        np.testing.assert_allclose(ours.world_m[row].flatten(), theirs["Identity_3"], atol=1e-5)
        np.testing.assert_allclose(ours.presence[row], theirs["Identity_1"][0], atol=1e-4)
        np.testing.assert_allclose(ours.right[row], theirs["Identity_2"][0], atol=1e-4)


@pytest.mark.parametrize("side_px", [128, 224])
def test_maps_are_at_strides_4_to_32_and_every_layer_learns(network, side_px):
    features = network(torch.rand(2, 3, side_px, side_px))
    assert features.last.shape == (2, POOLED, side_px // 32, side_px // 32)
    wanted = [(2, c, side_px // s, side_px // s) for c, s in zip(CHANNELS, (4, 8, 16, 32), strict=True)]
    assert [tuple(m.shape) for m in features.maps] == wanted
    outputs = network.outputs(features)
    sum(v.square().sum() for v in vars(outputs).values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    network.zero_grad()


@pytest.mark.parametrize(
    ("size", "kernel", "wanted"), [(224, 3, (0, 1)), (56, 5, (1, 2)), (7, 3, (1, 1)), (7, 5, (2, 2))]
)
def test_padding_of_stride_2_is_tensorflow_s(size, kernel, wanted):
    """SAME: ceil(n / 2) outputs, the odd pixel of padding behind."""
    left, right, above, below = _same(torch.empty(1, 1, size, size), kernel, 2)
    assert (left, right) == (above, below) == wanted
    assert (size + left + right - kernel) // 2 + 1 == -(-size // 2)


def test_files_that_are_not_the_network_are_named(tmp_path, published, assets):
    with pytest.raises(TfliteError, match="no such file; `maskhand assets --fetch`"):
        read_layers(tmp_path / "none.tflite")
    (tmp_path / "text.tflite").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(TfliteError, match=r"text\.tflite: not a TensorFlow Lite file"):
        read_layers(tmp_path / "text.tflite")
    (tmp_path / "cut.tflite").write_bytes(published.read_bytes()[:100_000])
    with pytest.raises(TfliteError, match=r"cut\.tflite: a damaged TensorFlow Lite file"):
        read_layers(tmp_path / "cut.tflite")
    with pytest.raises(TfliteError, match=r"palm_detection_full\.tflite: .* the hand landmark network has 51"):
        HandLandmarkNet().load_tflite(hand_models(assets).palm)


@pytest.mark.parametrize("decoder", ["masked", "regression"])
def test_networks_see_through_it_frozen_or_trained(decoder, assets, network):
    recipe = load_recipe("tiny", [*SEEING, f"model.decoder={decoder}"])
    model = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default(), assets=assets)
    for name, weight in network.state_dict().items():
        assert torch.equal(model.encoder.net.state_dict()[name], weight)
    batch = square_batch(2)
    ids = torch.full((2, recipe.tokenizer.num_tokens), model.mask_id)
    output = model(batch.image, batch.keypoints_2d, ids)
    output.betas.square().sum().backward()
    stem = model.encoder.net.stem.weight
    assert stem.grad is not None and stem.grad.abs().sum() > 0
    trained = {id(p) for group in model.parameter_groups(1e-3, 1e-5, 0.0) for p in group["params"]}
    assert id(stem) in trained and id(model.encoder.net.heads["world"].weight) not in trained
    groups = model.parameter_groups(1e-3, 0, 0.0)
    assert not stem.requires_grad
    assert all(id(p) != id(stem) for group in groups for p in group["params"])


def test_images_reach_it_as_rgb_from_0_to_1(assets, network):
    recipe = load_recipe("tiny", SEEING)
    model = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default(), assets=assets)
    batch = square_batch(2)
    plain = batch.pixels[..., :3].permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        seen, wanted = model.encoder(batch.image), network(plain)
    assert torch.allclose(seen[0], wanted.last, atol=1e-4)
    assert [m.shape[2] for m in seen] == [2, 4, 8, 16] and torch.allclose(seen[3], wanted.maps[0], atol=1e-4)


def test_a_bundle_holds_the_encoder(assets, tmp_path):
    recipe = load_recipe("tiny", SEEING)
    model = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default(), assets=assets).eval()
    ModelBundle.save(tmp_path / "bundle", model, recipe, {})
    loaded, batch = ModelBundle.load(tmp_path / "bundle").model, square_batch(2)
    with torch.inference_mode():
        here, there = (m.encode(batch.image, batch.keypoints_2d) for m in (model, loaded))
    assert torch.equal(here.betas, there.betas) and torch.equal(here.values[0][0], there.values[0][0])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["data.crop_aspect=0.75"], r"give images of 64 x 48 px; hand_landmark needs multiples of 32"),
        (["model.backbone.kwargs={depth: 3}"], "hand_landmark takes frozen_blocks, 0 to 15, only"),
        (["model.feature_scales=[3]"], r"model.feature_scales is \[3\]"),
    ],
)
def test_recipes_that_do_not_suit_it_are_named(changes, sentence, assets):
    with pytest.raises(ValueError, match=sentence):
        check_model(load_recipe("tiny", [*SEEING, *changes]), ManoLayer.from_default(), assets)


def test_without_an_assets_folder_there_are_no_weights():
    with pytest.raises(ConfigError, match="no assets folder to read its weights from"):
        check_model(load_recipe("tiny", SEEING), ManoLayer.from_default())
