"""From a recipe to a network."""

from __future__ import annotations

from maskhand.config import Recipe
from maskhand.hand.layer import ManoLayer
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import HandNetwork
from maskhand.models.regression import RegressionNetwork
from maskhand.models.vq_mano import VQMano

_DECODERS: dict[str, type[HandNetwork]] = {"masked": MaskedTransformer, "regression": RegressionNetwork}


def build_model(recipe: Recipe, tokenizer: VQMano, mano: ManoLayer, *, pretrained_backbone: bool = True) -> HandNetwork:
    """The recipe's network with fresh weights; the backbone's pretrained ones when the recipe names a checkpoint."""
    model = _DECODERS[recipe.model.decoder](recipe.model, tokenizer, mano, recipe.data.crop_px)
    checkpoint = recipe.model.backbone.checkpoint
    if pretrained_backbone and checkpoint is not None:
        model.encoder.load_pretrained(checkpoint)
    return model
