"""Published encoder weights: files with their authors' keys and shapes, reduced in width, become our encoder."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from maskhand.config import BackboneConfig
from maskhand.models.backbone import VisionTransformerEncoder
from maskhand.models.pretrained import BackboneError, convert_weights
from maskhand.recipe_files import load_recipe

WIDTH, DEPTH, CROP_PX = 24, 2, 128  # a grid of 8 x 6 patches


def encoder(width: int = WIDTH, **kwargs: object) -> VisionTransformerEncoder:
    sizes = {"embed_dim": width, "depth": DEPTH, "num_heads": 3, **kwargs}
    return VisionTransformerEncoder(
        BackboneConfig(name="vit_tiny_patch16_224", kwargs=sizes), (CROP_PX, CROP_PX * 3 // 4)
    )


def published_shapes(
    positions: int, patch: int = 16, last_norm: str = "norm", width: int = WIDTH, depth: int = DEPTH
) -> dict[str, tuple[int, ...]]:
    """A vision transformer's weights by the names that timm, MAE and ViTPose give them, written out by hand."""
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, positions, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        f"{last_norm}.weight": (width,),
        f"{last_norm}.bias": (width,),
    }
    for k in range(depth):
        for name, rows, columns in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)):
            shapes[f"blocks.{k}.{name}.weight"] = (rows * width, columns * width)
            shapes[f"blocks.{k}.{name}.bias"] = (rows * width,)
        for name in ("norm1", "norm2"):
            shapes[f"blocks.{k}.{name}.weight"] = shapes[f"blocks.{k}.{name}.bias"] = (width,)
    return shapes


def published(positions: int, patch: int = 16, last_norm: str = "norm") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = published_shapes(positions, patch, last_norm)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def timm_file() -> object:
    return published(197) | {"cls_token": torch.ones(1, 1, WIDTH), "head.weight": torch.ones(5, WIDTH)}


def mae_file() -> object:
    decoder = {"mask_token": torch.ones(1, 1, 8), "decoder_pos_embed": torch.ones(1, 257, 8)}
    return {"model": published(257, patch=14) | {"cls_token": torch.ones(1, 1, WIDTH)} | decoder}


def vitpose_file() -> object:
    weights = {f"backbone.{name}": value for name, value in published(193, last_norm="last_norm").items()}
    return {"meta": {"epoch": 210}, "state_dict": weights | {"keypoint_head.final_layer.weight": torch.ones(17, 4)}}


def hamer_file() -> object:
    others = {"mano_head.decpose.weight": torch.ones(96, 8), "discriminator.betas_fc1.weight": torch.ones(10, 10)}
    weights = {f"backbone.{name}": value for name, value in published(193, last_norm="last_norm").items()}
    return {"epoch": 3, "state_dict": weights | others, "pytorch-lightning_version": "1.8.1"}


@pytest.mark.parametrize("write", [timm_file, mae_file, vitpose_file, hamer_file])
def test_published_files_become_our_encoder(write: Callable[[], object], tmp_path: Path) -> None:
    torch.save(write(), tmp_path / "weights.pth")
    ours = encoder()
    ours.load_pretrained(tmp_path / "weights.pth")
    source = published(197)
    loaded = ours.vit.state_dict()
    for name in ("blocks.1.attn.qkv.weight", "blocks.0.mlp.fc2.bias"):
        assert loaded[name].shape == source[name].shape
    assert loaded["pos_embed"].shape == (1, 48, WIDTH)
    assert ours(torch.randn(1, 3, CROP_PX, CROP_PX * 3 // 4))[0].isfinite().all()
    raw = write()
    weights = raw.get("state_dict", raw.get("model", raw)) if isinstance(raw, dict) else {}
    prefix = "backbone." if "backbone.pos_embed" in weights else ""
    last = "last_norm" if prefix else "norm"
    for k in range(DEPTH):
        assert torch.equal(loaded[f"blocks.{k}.attn.qkv.weight"], weights[f"{prefix}blocks.{k}.attn.qkv.weight"])
    assert torch.equal(loaded["norm.weight"], weights[f"{prefix}{last}.weight"])


@pytest.mark.parametrize(
    ("name", "width", "depth"),
    [("tiny", 192, 12), ("small", 384, 12), ("base", 768, 12), ("large", 1024, 24), ("huge", 1280, 32)],
)
def test_every_size_is_built_and_takes_its_published_weights(name: str, width: int, depth: int) -> None:
    """At full size, without numbers: ViTPose's (256 x 192, patches of 16) and, of the huge one, MAE's patches of 14."""
    recipe = load_recipe("base").model.backbone
    cfg = recipe if name == "huge" else recipe.model_copy(update={"name": f"vit_{name}_patch16_224"})
    with torch.device("meta"):
        ours = VisionTransformerEncoder(cfg, (256, 192))
        files = [published_shapes(193, last_norm="last_norm", width=width, depth=depth)]
        files += [published_shapes(257, patch=14, width=width, depth=depth)] if name == "huge" else []
        stored = [{key: torch.empty(shape) for key, shape in shapes.items()} for shapes in files]
    assert (ours.channels, ours.grid, len(ours.vit.blocks)) == (width, (16, 12), depth)
    wanted = ours.vit.state_dict()
    for weights in stored:
        found = convert_weights(weights, wanted, ours.grid, "weights.pth")
        assert {key: value.shape for key, value in found.items()} == {key: v.shape for key, v in wanted.items()}


def test_positions_of_the_same_grid_are_taken_over_with_the_class_position_added(tmp_path: Path) -> None:
    weights = {f"backbone.{name}": value for name, value in published(49, last_norm="last_norm").items()}
    torch.save(weights, tmp_path / "weights.pth")
    ours, with_class = encoder(), encoder(class_token=True)
    ours.load_pretrained(tmp_path / "weights.pth")
    stored = weights["backbone.pos_embed"]
    assert torch.equal(ours.vit.pos_embed, stored[:, 1:] + stored[:, :1])
    torch.save(published(49) | {"cls_token": torch.ones(1, 1, WIDTH)}, tmp_path / "timm.pth")
    with_class.load_pretrained(tmp_path / "timm.pth")
    assert torch.equal(with_class.vit.pos_embed, published(49)["pos_embed"])


def test_a_resized_grid_keeps_what_is_linear_in_place(tmp_path: Path) -> None:
    """Positions that grow linearly over a 14 x 14 grid still grow linearly, from edge to edge, over 8 x 6."""
    row = (torch.arange(14.0) + 0.5) / 14
    ramp = torch.stack([row[:, None].expand(14, 14), row[None, :].expand(14, 14)], dim=-1).reshape(1, 196, 2)
    weights = published(196)
    weights["pos_embed"] = torch.cat([ramp, torch.zeros(1, 196, WIDTH - 2)], dim=-1)
    torch.save(weights, tmp_path / "weights.pth")
    ours = encoder()
    ours.load_pretrained(tmp_path / "weights.pth")
    resized = ours.vit.pos_embed[0].unflatten(0, (8, 6))
    rows, columns = (torch.arange(8.0) + 0.5) / 8, (torch.arange(6.0) + 0.5) / 6
    assert torch.allclose(resized[2:-2, 1:-1, 0], rows[2:-2, None].expand(-1, 4), atol=0.02)
    assert torch.allclose(resized[1:-1, 2:-2, 1], columns[None, 2:-2].expand(6, -1), atol=0.02)


def test_a_resized_patch_sees_flat_images_alike(tmp_path: Path) -> None:
    weights = published(196, patch=14)
    torch.save(weights, tmp_path / "weights.pth")
    ours = encoder()
    ours.load_pretrained(tmp_path / "weights.pth")
    assert torch.allclose(
        ours.vit.patch_embed.proj.weight.sum((2, 3)), weights["patch_embed.proj.weight"].sum((2, 3)), atol=1e-3
    )


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    weights = published(48)
    del weights["blocks.1.mlp.fc1.bias"]
    weights["blocks.7.gamma"] = torch.ones(2)
    torch.save(weights, path)
    with pytest.raises(BackboneError, match=r"1 missing: blocks\.1\.mlp\.fc1\.bias; 1 unexpected: blocks\.7\.gamma"):
        encoder().load_pretrained(path)
    torch.save(published(48), path)
    with pytest.raises(BackboneError, match=r"of another shape: .*\(1, 48, 24\) instead of \(1, 48, 48\)"):
        encoder(width=48).load_pretrained(path)
    torch.save(published(53), path)
    with pytest.raises(BackboneError, match="53 positions, which is no grid"):
        encoder().load_pretrained(path)
    torch.save({"resnet.conv1.weight": torch.ones(2)}, path)
    with pytest.raises(BackboneError, match=r"no vision transformer in it, its keys are resnet\.conv1"):
        encoder().load_pretrained(path)
    with pytest.raises(BackboneError, match="no file"):
        encoder().load_pretrained(tmp_path / "missing.pth")


class _Harm:
    def __reduce__(self):
        return os.mkdir, (str(Path(_Harm.target)),)

    target = ""


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    path, _Harm.target = tmp_path / "weights.pth", str(tmp_path / "harm")
    torch.save({"state_dict": published(48), "hyper_parameters": _Harm()}, path)
    with pytest.raises(BackboneError, match=r"not a file of weights alone \(it asks for posix\.mkdir\)"):
        encoder().load_pretrained(path)
    assert not (tmp_path / "harm").exists()
    path.write_bytes(b"PK not a checkpoint")
    with pytest.raises(BackboneError, match="not a file of weights alone"):
        encoder().load_pretrained(path)


def test_hamers_settings_do_not_hide_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning stores yacs' settings object beside the weights; it is read as a plain dictionary."""
    module = types.ModuleType("yacs.config")

    class CfgNode(dict):
        def __init__(self) -> None:
            super().__init__()
            self.__dict__["__immutable__"] = False

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    settings = CfgNode()
    settings["MODEL"] = CfgNode()
    file = hamer_file()
    assert isinstance(file, dict)
    torch.save(file | {"hyper_parameters": {"cfg": settings}}, tmp_path / "hamer.ckpt")
    monkeypatch.delitem(sys.modules, "yacs.config")
    encoder().load_pretrained(tmp_path / "hamer.ckpt")
