"""Pretrained weights of published vision transformers, converted to the names and the patch grid of our encoder.

    source    keys in the file                         conversion
    timm      blocks.0.attn.qkv.weight, pos_embed      our names; `head.*` left out
    MAE       as timm under `model`, and decoder_*     the decoder and the mask token left out
    ViTPose   backbone.*, last_norm.*                  `backbone.` removed, last_norm -> norm; keypoint_head.* left out
    HaMeR     backbone.*, last_norm.*                  as ViTPose; mano_head.* and discriminator.* left out

Position embeddings of another grid are resized bicubically, and patch embeddings of another size are resampled (timm's
functions; the latter follows FlexiViT). If our encoder has no class token, the file's class position is added to every
other position, as in ViTPose (HaMeR `models/backbones/vit.py`: pos_embed[:, 1:] + pos_embed[:, :1]).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from maskhand.errors import MaskhandError
from maskhand.models.weight_files import WeightFileError, abbreviate, load_weights, misfit

WRAPPERS = ("state_dict", "model")
"""Keys under which checkpoint files store their state dict beside other entries."""

LEFT_OUT = ("decoder", "mask_token", "head.", "head_", "fc_norm.", "pre_logits.")
"""Prefixes of keys that are not part of the image encoder."""


class BackboneError(MaskhandError, ValueError):
    """A backbone that cannot be built or whose weights do not fit; the message says which key and what to do."""


def pretrained_weights(path: str | Path, wanted: Mapping[str, Tensor], grid: tuple[int, int]) -> dict[str, Tensor]:
    """Weights for a timm vision transformer with the state dict `wanted` and `grid` (rows, columns) of patches.

    Raises BackboneError when the file is missing or holds more than tensors and plain values, and when keys are
    missing, of another shape, or unknown.
    """
    return convert_weights(read_weights(path, "model.backbone.checkpoint"), wanted, grid, path)


def convert_weights(
    stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor], grid: tuple[int, int], path: str | Path
) -> dict[str, Tensor]:
    """The state dict `stored`, read from `path`, with our names and shapes; raises as `pretrained_weights`."""
    weights = _encoder_keys(stored, path)
    if "pos_embed" in weights and "pos_embed" in wanted:
        weights["pos_embed"] = _fit_positions(weights["pos_embed"], wanted["pos_embed"], grid, path)
    patch = "patch_embed.proj.weight"
    if patch in weights and patch in wanted and weights[patch].ndim == 4:
        weights[patch] = _fit_patch(weights[patch], wanted[patch].shape)
    if "cls_token" not in wanted:
        weights.pop("cls_token", None)
    if found := misfit(wanted, weights):
        raise BackboneError(f"{path}: weights do not fit ({found}); check model.backbone.name and its kwargs")
    return {key: weights[key] for key in wanted}


def read_weights(path: str | Path, key: str) -> dict[str, Tensor]:
    """The state dict in a file (torch's format, or .safetensors); key: the recipe's key, for error messages.

    Only tensors and plain values are unpickled: code in a downloaded file is never run. Raises BackboneError.
    """
    try:
        if str(path).endswith(".safetensors"):
            return _read_safetensors(Path(path))
        stored = load_weights(path)
    except FileNotFoundError:
        raise BackboneError(f"{key}: no file {path}; give a path, or null for random weights") from None
    except WeightFileError as error:
        raise BackboneError(f"{path}: {error}; save only its state dict") from None
    for wrapper in WRAPPERS:
        stored = stored.get(wrapper, stored) if isinstance(stored, dict) else stored
    if not isinstance(stored, dict) or not any(isinstance(v, Tensor) for v in stored.values()):
        raise BackboneError(f"{path}: expected a state dict (key -> tensor), found {type(stored).__name__}")
    return {key: value for key, value in stored.items() if isinstance(value, Tensor)}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except SafetensorError as error:
        raise BackboneError(f"{path}: not a whole .safetensors file ({error}); copy it again") from None


def _encoder_keys(stored: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    prefixes = [p for p in ("backbone.", "module.", "encoder.") if f"{p}patch_embed.proj.weight" in stored]
    prefix = prefixes[0] if prefixes else ""
    encoder = {key.removeprefix(prefix): value for key, value in stored.items() if key.startswith(prefix)}
    weights: dict[str, Tensor] = {}
    for key, value in encoder.items():
        if key.startswith(LEFT_OUT):
            continue
        weights["norm." + key.removeprefix("last_norm.") if key.startswith("last_norm.") else key] = value
    if "patch_embed.proj.weight" not in weights:
        raise BackboneError(f"{path}: no vision transformer in it, its keys are {abbreviate(sorted(stored))}")
    return weights


def _fit_positions(stored: Tensor, wanted: Tensor, grid: tuple[int, int], path: str | Path) -> Tensor:
    """(1, N, C) of any grid -> the shape of `wanted`."""
    from timm.layers import resample_abs_pos_embed

    patches = grid[0] * grid[1]
    has_class = wanted.shape[1] == patches + 1
    count, channels = stored.shape[1:]
    if channels != wanted.shape[2]:
        return stored  # another width: reported with the other keys
    sizes = [(prefix, _grid(count - prefix, grid)) for prefix in (1, 0)]
    found = [s for s in sizes if s[1] == grid] or [s for s in sizes if s[1] is not None]
    if not found:
        raise BackboneError(f"{path}: pos_embed has {count} positions, which is no grid of patches (1:1 or 4:3)")
    prefix, size = found[0]
    patch_positions, class_position = stored[:, prefix:], stored[:, :prefix]
    if size != grid:
        patch_positions = resample_abs_pos_embed(patch_positions, list(grid), list(size or grid), num_prefix_tokens=0)
    if has_class:
        class_position = class_position if prefix else torch.zeros_like(patch_positions[:, :1])
        return torch.cat([class_position, patch_positions], dim=1)
    return patch_positions + class_position if prefix else patch_positions


def _grid(count: int, preferred: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of `count` patches: the preferred grid, a square, or 4:3 (ViTPose's); None for other counts."""
    if count == preferred[0] * preferred[1]:
        return preferred
    side, third = math.isqrt(count), math.isqrt(count // 12)
    if side * side == count:
        return side, side
    return (4 * third, 3 * third) if 12 * third * third == count else None


def _fit_patch(stored: Tensor, shape: torch.Size) -> Tensor:
    """(C, 3, p, p) -> patches of the wanted size."""
    from timm.layers import resample_patch_embed

    return stored if stored.shape[2:] == shape[2:] else resample_patch_embed(stored, list(shape[2:]))
