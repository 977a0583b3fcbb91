"""A very small model and batch, shared by the tests of the models, losses and sampling."""

from __future__ import annotations

from typing import Any

import torch

from maskhand.batch import HandBatch
from maskhand.config import ModelConfig, Recipe, TokenizerConfig
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix, random_rotations
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import load_recipe

CROP_PX = 64


def small_recipe(tokens: int = 16, **model: Any) -> Recipe:
    recipe = load_recipe("tiny")
    backbone = recipe.model.backbone.model_copy(update={"kwargs": {"embed_dim": 24, "depth": 1, "num_heads": 3}})
    fields: dict[str, Any] = {
        "backbone": backbone, "dim": 16, "heads": 2, "head_dim": 16, "pose2d_width": 8, "pose2d_tokens": 1,
        "gapr_blocks": 1, "synth_layers": 2, "synth_ffn": 32, "synth_points": 2, "dropout": 0.0,
    }  # fmt: skip
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"crop_px": CROP_PX}),
            "tokenizer": TokenizerConfig(num_tokens=tokens, codebook_size=20, code_dim=6, width=12),
            "model": ModelConfig.model_validate(recipe.model.model_dump() | fields | model),
        }
    )


def small_model(recipe: Recipe | None = None, seed: int = 0) -> MaskedTransformer:
    recipe = recipe or small_recipe()
    torch.manual_seed(seed)
    tokenizer = VQMano(recipe.tokenizer)
    tokenizer(random_poses(64))  # starts the codebook
    return MaskedTransformer(recipe.model, tokenizer, ManoLayer.from_default(), recipe.data.image_size_px).eval()


def random_poses(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    fingers = axis_angle_to_matrix(0.4 * torch.randn(count, 15, 3, generator=generator))
    return torch.cat([random_rotations(count, generator)[:, None], fingers], dim=1)


def random_batch(count: int, seed: int = 0) -> HandBatch:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    seen_2d = torch.cat([0.2 * normal(count, 21, 2), torch.rand(count, 21, 1, generator=generator)], dim=-1)
    depth = 0.1 * torch.randn(count, 21, 4, generator=torch.Generator().manual_seed(seed))
    keypoints = torch.cat([seen_2d, depth], dim=-1)
    return HandBatch(
        pixels=torch.randint(256, (count, CROP_PX, CROP_PX * 3 // 4, 4), generator=generator).byte(),
        color_gain=torch.ones(count, 3),
        keypoints_2d=keypoints,
        joints_2d=0.2 * normal(count, 21, 2),
        joints_2d_conf=torch.ones(count, 21),
        joints_3d_m=0.05 * normal(count, 21, 3),
        joints_3d_valid=torch.ones(count, 21),
        rotmats=random_poses(count, seed),
        betas=normal(count, 10),
        has_mano=torch.ones(count),
        crop_from_image=torch.eye(2, 3, dtype=torch.float64).expand(count, 2, 3),
        is_left=torch.zeros(count, dtype=torch.bool),
        image_size_px=torch.full((count, 2), 100),
        index=torch.arange(count),
        text_ids=torch.tensor(list(b"hand 000")).repeat(count, 1),
    )
