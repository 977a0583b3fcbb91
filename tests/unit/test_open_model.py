"""The open model's packed form, and the bundle that it becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskhand import shipped_models
from maskhand.config import ConfigError
from maskhand.fetched_models import hand_models
from maskhand.hand.layer import ManoLayer
from maskhand.models import open_folder, open_model
from maskhand.models.build import build_model, check_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.open_folder import open_model_folder
from maskhand.models.open_model import pack, unpack
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import load_recipe
from maskhand.shipped_models import OPEN_WEIGHTS
from maskhand.steps.training_checks import check_settings

SEEING = ["data.crop_px=64", "data.crop_aspect=1.0", "model.backbone={name: hand_landmark, kwargs: {frozen_blocks: 2}}"]


@pytest.fixture(scope="module")
def bundle(assets, tmp_path_factory) -> tuple[ModelBundle, Path]:
    recipe = load_recipe("tiny", [*SEEING, "training.start_from=/home/someone/export"])
    model = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default(), assets=assets).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 1e-3 * torch.randn(weight.shape, generator=generator)
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    return ModelBundle.save(folder, model, recipe, {"steps": 1}), folder


def tokenizer_of(bundle: tuple[ModelBundle, Path], folder: Path) -> Path:
    exported = folder / "tokenizer"
    exported.mkdir()
    torch.save(bundle[0].model.tokenizer.state_dict(), exported / "tokenizer.pt")
    return exported


def test_packed_and_unpacked_it_is_the_same_up_to_fp16(assets, bundle, tmp_path: Path) -> None:
    saved, folder = bundle
    landmark = hand_models(assets).landmark
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "PROVENANCE.md").write_text("where it is from")
    pack(folder, tokenizer_of(bundle, tmp_path), landmark, tmp_path / "packed")
    assert (tmp_path / "packed" / "PROVENANCE.md").read_text() == "where it is from"
    assert [file.name for file in (tmp_path / "packed" / "tokenizer").iterdir()] == ["tokenizer.pt"]
    unpack(tmp_path / "packed", landmark, tmp_path / "unpacked")
    loaded = ModelBundle.load(tmp_path / "unpacked")
    assert loaded.recipe == load_recipe("tiny", SEEING) and loaded.metadata == saved.metadata
    for name, weight in saved.model.state_dict().items():
        found = loaded.model.state_dict()[name]
        assert found.dtype == weight.dtype
        # the encoder's difference is a thousandth of the weights, and so is its rounding
        assert torch.allclose(found, weight, rtol=1e-3, atol=2e-6 if name.startswith("encoder.") else 1e-6), name


def test_what_training_left_alone_is_not_stored(assets, bundle, tmp_path: Path) -> None:
    _, folder = bundle
    pack(folder, tokenizer_of(bundle, tmp_path), hand_models(assets).landmark, tmp_path / "packed")
    stored = torch.load(tmp_path / "packed" / OPEN_WEIGHTS.name, weights_only=True)
    assert not any(name.startswith(("encoder.net.stem", "encoder.net.blocks.1.")) for name in stored)
    assert any(name.startswith("encoder.net.blocks.2.") for name in stored)
    assert not any(name.startswith("tokenizer.") for name in stored)
    assert all(w.dtype in (torch.float16, torch.int64) for w in stored.values())


def test_another_tokenizer_is_refused(assets, bundle, tmp_path: Path) -> None:
    other = tokenizer_of(bundle, tmp_path)
    weights = torch.load(other / "tokenizer.pt", weights_only=True)
    torch.save(weights | {"quantizer.codebook": weights["quantizer.codebook"] + 1}, other / "tokenizer.pt")
    with pytest.raises(ValueError, match=r"tokenizer.quantizer.codebook is not that of"):
        pack(bundle[1], other, hand_models(assets).landmark, tmp_path / "packed")


def test_the_unpacked_model_is_that_of_all_shipped_files(assets, bundle, tmp_path: Path, monkeypatch) -> None:
    packed, here = tmp_path / "packed", tmp_path / "assets"
    pack(bundle[1], tokenizer_of(bundle, tmp_path), hand_models(assets).landmark, packed)
    for module in (open_folder, shipped_models):
        monkeypatch.setattr(module, "OPEN_MODEL", packed)
    monkeypatch.setattr(shipped_models, "OPEN_WEIGHTS", packed / OPEN_WEIGHTS.name)
    monkeypatch.setattr(open_folder, "hand_models", lambda _: hand_models(assets))
    first = open_model_folder(here)
    assert open_model_folder(here) == first and ModelBundle.load(first).recipe == load_recipe("tiny", SEEING)
    record = packed / "bundle.json"
    record.write_text(record.read_text().replace('"steps": 1', '"steps": 2'))
    assert open_model_folder(here) != first, "the same weights"


def test_of_several_processes_that_unpack_at_once_none_fails(assets, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(open_folder, "open_model_digest", lambda: "0")

    def too_late(_packed: Path, _landmark: Path, target: Path) -> None:
        target.mkdir(parents=True)
        (target / "bundle.json").touch()
        raise OSError("Directory not empty")

    monkeypatch.setattr(open_model, "unpack", too_late)
    monkeypatch.setattr(open_folder, "hand_models", lambda _: hand_models(assets))
    assert (open_model_folder(tmp_path) / "bundle.json").is_file()
    monkeypatch.setattr(open_folder, "open_model_digest", lambda: "1")
    monkeypatch.setattr(open_model, "unpack", lambda *_: Path("/no/such/folder").rmdir())
    with pytest.raises(FileNotFoundError):
        open_model_folder(tmp_path)


def test_a_training_starts_from_the_open_models_encoder(assets, bundle, monkeypatch) -> None:
    saved, folder = bundle
    monkeypatch.setattr("maskhand.models.build.open_model_folder", lambda _: folder)
    recipe = load_recipe("tiny", [*SEEING, "model.backbone.checkpoint=open", "engine.workers=1"])
    check_settings("transformer", recipe, assets)
    started = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default(), assets=assets)
    for name, weight in started.encoder.state_dict().items():
        assert torch.equal(weight, saved.model.encoder.state_dict()[name])
    with pytest.raises(ConfigError, match=r"hand_landmark; model\.backbone\.name is vit"):
        check_model(load_recipe("tiny", ["model.backbone.checkpoint=open"]), ManoLayer.from_default(), assets)
