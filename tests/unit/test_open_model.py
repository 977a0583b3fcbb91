"""The open model's packed form, and the bundle that it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskhand.fetched_models import hand_models
from maskhand.hand.layer import ManoLayer
from maskhand.models.build import build_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.open_model import pack, unpack
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import load_recipe
from maskhand.shipped_models import OPEN_WEIGHTS

SEEING = ["data.crop_px=64", "data.crop_aspect=1.0", "model.backbone={name: hand_landmark, kwargs: {frozen_blocks: 2}}"]


@pytest.fixture(scope="module")
def bundle(assets, tmp_path_factory) -> tuple[ModelBundle, Path]:
    recipe = load_recipe("tiny", SEEING)
    model = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default(), assets=assets).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 1e-3 * torch.randn(weight.shape, generator=generator)
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    return ModelBundle.save(folder, model, recipe, {"steps": 1}), folder


def tokenizer_of(folder: Path) -> Path:
    exported = folder / "tokenizer"
    exported.mkdir()
    (exported / "tokenizer.json").write_text("{}")
    return exported


def test_packed_and_unpacked_it_is_the_same_up_to_fp16(assets, bundle, tmp_path: Path) -> None:
    saved, folder = bundle
    landmark = hand_models(assets).landmark
    pack(folder, tokenizer_of(tmp_path), landmark, tmp_path / "packed")
    assert [file.name for file in (tmp_path / "packed" / "tokenizer").iterdir()] == ["tokenizer.json"]
    unpack(tmp_path / "packed", landmark, tmp_path / "unpacked")
    loaded = ModelBundle.load(tmp_path / "unpacked")
    assert loaded.recipe == saved.recipe and loaded.metadata == saved.metadata
    for name, weight in saved.model.state_dict().items():
        found = loaded.model.state_dict()[name]
        assert found.dtype == weight.dtype
        # the encoder's difference is a thousandth of the weights, and so is its rounding
        assert torch.allclose(found, weight, rtol=1e-3, atol=2e-6 if name.startswith("encoder.") else 1e-6), name


def test_what_training_left_alone_is_not_stored(assets, bundle, tmp_path: Path) -> None:
    _, folder = bundle
    pack(folder, tokenizer_of(tmp_path), hand_models(assets).landmark, tmp_path / "packed")
    stored = torch.load(tmp_path / "packed" / OPEN_WEIGHTS.name, weights_only=True)
    assert not any(name.startswith(("encoder.net.stem", "encoder.net.blocks.1.")) for name in stored)
    assert any(name.startswith("encoder.net.blocks.2.") for name in stored)
    assert all(w.dtype in (torch.float16, torch.int64) for w in stored.values())
