"""An exported network gives the hands of the network it was made of, whatever the number of hands."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskhand.batch import normalize
from maskhand.export import network as subject
from maskhand.export.runner import ExportError, OnnxNetwork
from maskhand.hand.layer import ManoLayer
from maskhand.models.build import build_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.open_folder import open_hand_digest
from maskhand.models.sampling import sample
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import load_recipe
from support.model_parts import small_model, small_recipe

RECIPE = small_recipe(
    pose2d_tokens=21, synth_layers=1, ref_points="projected", token_queries="conditioned", token_embed="codebook",
    logits_head="mixture", image_joints=True, pose2d_tolerance=0.06, camera="residual", pose2d_inputs="xyz_world",
)  # fmt: skip


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    model = small_model(RECIPE)
    torch.manual_seed(0)
    with torch.no_grad():  # initial weights would give nearly the same hand for every image
        for part in (model.queries, model.code_classifier, model.shape_camera):
            for parameter in part.parameters():
                parameter += 0.5 * torch.randn(parameter.shape)
    return ModelBundle(model, RECIPE, {}, model.mano.digest, "0" * 64)


@pytest.fixture(scope="module")
def exported(bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    subject.export_onnx(bundle, folder)
    return folder


def hands(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    height, width = RECIPE.data.image_size_px
    pixels = torch.randint(0, 256, (count, height, width, 4), dtype=torch.uint8, generator=generator)
    keypoints = torch.rand(count, 21, 7, generator=generator) - 0.3
    keypoints[0] = 0  # of a hand that was not detected
    return pixels, keypoints


@pytest.mark.slow
def test_onnx_runtime_gives_the_hands_of_torch(bundle: ModelBundle, exported: Path) -> None:
    network = OnnxNetwork.load(exported, threads=1)
    sampler = RECIPE.sampler.model_copy(update={"iterations": 1, "temperature": 0.0, "decode": "expectation"})
    for count in (1, 2, 5):
        pixels, keypoints = hands(count)
        with torch.no_grad():
            context = bundle.model.encode(normalize(pixels, torch.ones(count, 3)), keypoints)
            expected = sample(bundle.model, context, sampler)
        found = network(pixels.numpy(), keypoints.numpy())
        for name in ("vertices_m", "joints_m", "rotmats", "betas", "camera"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-3, err_msg=name)
        assert np.ptp(found.joints_m, axis=0).max() > 5e-3 or count == 1, "hands differ"
        np.testing.assert_allclose(found.token_probability.sum(-1), 1, atol=1e-5)
        np.testing.assert_array_equal(found.token_probability.argmax(-1), expected.tokens.ids)

    facts = json.loads((exported / "network.json").read_text())
    assert facts["model"]["digest"] == bundle.digest and np.shape(facts["faces"]) == (1538, 3)
    assert "open hand" in facts["hand_model"]["license"]
    with pytest.raises(ExportError, match=r"pixels: uint8 of shape \(1, 3, 64, 48\); expected uint8 \(B, 64, 48, 3\)"):
        network(np.zeros((1, 3, 64, 48), np.uint8), np.zeros((1, 21, 7), np.float32))
    with pytest.raises(ExportError, match=r"keypoints_2d: float32 of shape \(1, 21, 3\)"):
        network(np.zeros((1, 64, 48, 3), np.uint8), np.zeros((1, 21, 3), np.float32))
    (exported / "network.onnx").write_bytes(b"cut")
    with pytest.raises(ExportError, match=r"not the file that network\.json beside it names"):
        OnnxNetwork.load(exported)


def test_what_cannot_be_exported_is_said(bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lifter = load_recipe("tiny", ["model.decoder=lifter"])
    other = build_model(lifter, VQMano(lifter.tokenizer), ManoLayer.from_default())
    with pytest.raises(ExportError, match=r"model\.decoder=lifter; networks with model\.decoder=masked are exported"):
        subject.export_onnx(replace(bundle, model=other, recipe=lifter), tmp_path)
    with pytest.raises(ExportError, match=r"no network\.json; make it with `maskhand export"):
        OnnxNetwork.load(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"onnx and onnxscript are not installed; pip install 'maskhand\[onnx\]'"):
        subject.export_onnx(bundle, tmp_path)
    with pytest.raises(ExportError, match="onnxruntime is not installed"):
        OnnxNetwork.load(tmp_path)


def test_a_hand_model_of_other_people_is_said() -> None:
    assert "MANO" in subject.LICENSED_HAND
    assert subject.license_of(open_hand_digest()) == subject.OPEN_HAND
    assert subject.license_of("0123456789ab") == subject.LICENSED_HAND


def test_the_runner_needs_no_torch() -> None:
    program = (
        "import sys\nimport maskhand.export.runner\nprint(*sorted({'torch', 'timm', 'scipy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "\n"
