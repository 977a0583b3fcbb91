"""Construction of the network that a recipe describes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from maskhand.config import ConfigError, ModelConfig, Recipe
from maskhand.fetched_models import hand_models
from maskhand.hand.layer import ManoLayer
from maskhand.models.initial_weights import load_initial
from maskhand.models.lifter import LiftingNetwork
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import HandNetwork
from maskhand.models.open_folder import open_model_folder
from maskhand.models.regression import RegressionNetwork
from maskhand.models.text_transformer import TextTransformer
from maskhand.models.vq_mano import VQMano
from maskhand.models.weight_files import WeightFileError, misfit
from maskhand.shipped_models import OPEN

_NETWORKS: dict[tuple[str, str], type[HandNetwork]] = {
    ("masked", "image"): MaskedTransformer,
    ("regression", "image"): RegressionNetwork,
    ("lifter", "image"): LiftingNetwork,
    ("masked", "text"): TextTransformer,
}


def model_from_weights(recipe: Recipe, mano: ManoLayer, weights: Mapping[str, Tensor]) -> HandNetwork:
    """The recipe's network with these weights (the full state dict, tokenizer included), assigned without a copy.

    This avoids the random initialization, which takes ten seconds for a ViT-H. Buffers that are not in the state dict
    must be created on the CPU, whatever the default device. Raises WeightFileError if the weights do not fit.
    """
    with torch.device("meta"):
        model = build_model(recipe, VQMano(recipe.tokenizer), mano, pretrained_backbone=False)
    if found := misfit(model.state_dict(), weights):
        raise WeightFileError(f"weights do not fit the recipe ({found})")
    model.load_state_dict(weights, assign=True)
    return model


def build_model(
    recipe: Recipe,
    tokenizer: VQMano,
    mano: ManoLayer,
    *,
    pretrained_backbone: bool = True,
    assets: str | Path | None = None,
) -> HandNetwork:
    """The recipe's network, initialized; its encoder is pretrained when the recipe names a checkpoint.

    assets: the folder of downloaded files, with the weights of the hand landmark network.
    """
    cfg = recipe.model
    if (cfg.decoder, cfg.condition) not in _NETWORKS:
        raise ConfigError(f"model.decoder={cfg.decoder} does not support captions; set model.condition=image")
    model = _NETWORKS[cfg.decoder, cfg.condition](cfg, tokenizer, mano, recipe.data.image_size_px)
    if pretrained_backbone:
        _load_pretrained(model, cfg, assets)
    return model


def check_model(recipe: Recipe, mano: ManoLayer, assets: str | Path | None = None) -> None:
    """A dry run of `build_model` on the meta device: no memory for the weights, a tenth of a second.

    The initial weights that the recipe names are read to check that they fit. Raises ConfigError, BackboneError,
    ValueError.
    """
    with torch.device("meta"):
        model = build_model(recipe, VQMano(recipe.tokenizer), mano, pretrained_backbone=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that weights are not copied to the meta device
        if (start := recipe.training.start_from) is None:
            _load_pretrained(model, recipe.model, assets)
        else:
            load_initial(model, start, assets or "")


def _load_pretrained(model: HandNetwork, cfg: ModelConfig, assets: str | Path | None) -> None:
    if model.encoder is None:
        return
    checkpoint = cfg.backbone.checkpoint if cfg.condition == "image" else cfg.text.checkpoint
    if cfg.condition == "image" and cfg.backbone.is_hand_landmark and checkpoint in (None, OPEN):
        if assets is None:
            raise ConfigError("model.backbone.name=hand_landmark: no assets folder to read its weights from")
        fetched = checkpoint is None
        checkpoint = str(hand_models(assets).landmark if fetched else open_model_folder(assets) / "model.pt")
    elif cfg.condition == "image" and checkpoint == OPEN:
        raise ConfigError(
            f"model.backbone.checkpoint={OPEN} is the encoder of the open model, hand_landmark; "
            f"model.backbone.name is {cfg.backbone.name}"
        )
    if checkpoint is not None:
        model.encoder.load_pretrained(checkpoint)
    elif cfg.condition == "text" and cfg.text.encoder == "clip":
        raise ConfigError(
            "model.text.checkpoint is null; CLIP's frozen encoder needs its weights, see `maskhand assets`"
        )
