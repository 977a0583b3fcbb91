"""The presets and the rows of the paper's tables: each differs by its switch alone, builds, learns and decodes."""

from __future__ import annotations

import pytest
import torch
import yaml

from maskhand.config import Recipe
from maskhand.hand.layer import ManoLayer
from maskhand.models.build import build_model
from maskhand.models.decoding import schedule
from maskhand.models.sampling import predict
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import RECIPES, load_recipe, recipe_names
from maskhand.training.losses import tokenizer_losses
from maskhand.training.transformer_loop import TransformerObjective
from support.model_parts import random_batch, random_poses

SWITCHES: dict[str, dict[str, object]] = {
    "e02": {"data.train.freihand/training": 1.0, "data.evaluate": ("freihand/evaluation",)},
    **{f"e09_t{t}": {"sampler.iterations": t} for t in (1, 3, 5)},
    **{f"e10_t{t}": {"sampler.iterations": t} for t in (1, 3, 5)},
    "e11": {"evaluate.batch": 1},
    "e12_openpose": {"data.keypoints.detector": "openpose-hand", "data.keypoints.eval_source": "detected"},
    "e12_gt": {"data.keypoints.train_source": "annotated", "data.keypoints.eval_source": "annotated"},
    **{f"e13_{n}": {"tokenizer.num_tokens": n} for n in (16, 32, 64, 128)},
    **{
        f"e14_{v}x{c}": {"tokenizer.codebook_size": v, "tokenizer.code_dim": c}
        for v, c in ((1024, 256), (2048, 128), (2048, 256), (4096, 256))
    },
    **{
        f"e15_{v}x{c}": {"tokenizer.num_tokens": 96, "tokenizer.codebook_size": v, "tokenizer.code_dim": c}
        for v, c in ((1024, 256), (2048, 128), (2048, 256))
    },
    "e16": {"model.feature_scales": (1,)},
    "e17": {"model.pose2d_tokens": 0},
    "e18": {"model.gapr_blocks": 0},
    "e19": {},
    **{f"e{20 + k}": {"training.masking.tau_max": tau} for k, tau in enumerate((0.3, 0.5, 0.7, 1.0))},
    "e24": {"training.losses.theta": 0, "training.losses.joints_3d": 0, "training.losses.joints_2d": 0},
    "e25": {"training.losses.joints_3d": 0, "training.losses.joints_2d": 0},
    "e26": {},
    "e27": {"training.losses.mask": 0, "training.losses.theta": 0, "training.losses.joints_2d": 0},
    "e28_no_ce": {"training.losses.mask": 0},
    "e28_argmax": {"training.losses.differential": "argmax_st"},
    **{
        f"e{29 + k}": {"model.feature_scales": scales}
        for k, scales in enumerate(((1,), (1, 4), (1, 4, 8), (1, 8, 16), (1, 4, 8, 16)))
    },
    **{f"e34_{n}": {"model.synth_layers": n} for n in (2, 4, 6, 8)},
    "regression": {"model.decoder": "regression"},
    "lifter": {"model.decoder": "lifter"},
    "e35": {
        "data.train.asl_alphabet/letters_train": 1.0,
        "data.evaluate": ("asl_alphabet/letters_test",),
        "data.caption": "the letter {sign} in American Sign Language",
        "data.augment.scale": 0,
        "data.augment.rotation_probability": 0,
        "data.augment.translation": 0,
        "model.condition": "text",
        "model.pose2d_tokens": 0,
        "training.losses.joints_2d": 0,
        "sampler.temperature": 1.0,
        "sampler.top_k": 102,
        "sampler.decode": "codes",
    },
    "e36": {"model.pose2d_tokens": 1},
}
"""Row -> its values by the paper's tables; nothing else may differ from the recipe it is based on."""

ROWS = sorted(name.removeprefix("paper/") for name in recipe_names() if name.startswith("paper/"))

REDUCED = (
    "data.crop_px=64",
    "tokenizer.width=12",
    "tokenizer.depth=1",
    "model.backbone={name: vit_tiny_patch16_224, kwargs: {embed_dim: 24, depth: 1, num_heads: 3}}",
    "model.dim=16",
    "model.heads=2",
    "model.head_dim=16",
    "model.head_depth=1",
    "model.pose2d_width=8",
    "model.synth_points=2",
    "model.synth_ffn=32",
    "model.text={encoder: bytes, width: 16, depth: 1, heads: 2, length: 8}",
)


def flat(recipe: Recipe) -> dict[str, object]:
    values: dict[str, object] = {}

    def walk(prefix: str, node: object) -> None:
        if isinstance(node, dict) and node:
            for key, inner in node.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            values[prefix] = node

    walk("", recipe.model_dump())
    return values


def test_every_row_is_there() -> None:
    assert set(SWITCHES) == set(ROWS)
    assert {int(row[1:3]) for row in ROWS if row[0] == "e"} == {2, *range(9, 37)}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_differs_from_its_base_by_its_switch_alone(row: str) -> None:
    own = yaml.safe_load((RECIPES / "paper" / f"{row}.yaml").read_text())
    values, base = flat(load_recipe(f"paper/{row}")), flat(load_recipe(own["base"]))
    assert values["name"] == row
    for key, value in SWITCHES[row].items():
        assert values[key] == value, key
    freihand_rows = ("e02", "e12_gt", "e12_openpose"), ("e10", "e34")
    if row in freihand_rows[0] or row.startswith(freihand_rows[1]):
        assert values["data.evaluate"] == ("freihand/evaluation",)
    elif row not in ("e35", "e36"):
        assert values["data.evaluate"] == load_recipe("paper").data.evaluate
    different = {key for key in values.keys() | base.keys() if values.get(key) != base.get(key)} - {"name"}
    replaced = {key for key in different if key.startswith("data.train.")} if row in ("e02", "e35") else set()
    assert different - replaced <= set(SWITCHES[row])


def test_paper_differs_from_base_where_the_paper_is_literal() -> None:
    paper = load_recipe("paper")
    assert (paper.tokenizer.rot_repr, paper.model.gapr_residual, paper.training.masking.random_token_rate) == (
        "aa", "equation", 0.0,
    )  # fmt: skip
    assert (paper.training.optim.steps, paper.training.optim.batch, paper.training.optim.lr) == (200_000, 48, 1e-5)
    assert (paper.tokenizer_training.optim.steps, paper.tokenizer_training.optim.batch) == (400_000, 512)
    assert (paper.tokenizer.num_tokens, paper.tokenizer.codebook_size, paper.tokenizer.code_dim) == (64, 2048, 256)
    assert sum(paper.data.train.values()) == pytest.approx(1.0)
    assert (paper.sampler.temperature, paper.sampler.decode, paper.sampler.iterations) == (1.0, "codes", 5)
    keypoints = paper.data.keypoints
    assert (keypoints.noise, keypoints.drop_joint, keypoints.drop_pose, keypoints.swap_fingers) == (0, 0, 0, 0)
    losses = paper.training.losses
    assert (losses.mask, losses.theta, losses.beta, losses.joints_3d, losses.joints_2d) == (
        1.0, 1e-3, 5e-4, 5e-2, 1e-2,
    )  # fmt: skip
    stage_1 = paper.tokenizer_training.losses
    assert (stage_1.recon, stage_1.theta, stage_1.vertices, stage_1.joints, stage_1.commitment) == (
        1.0, 1.0, 0.5, 0.3, 0.02,
    )  # fmt: skip
    for optim in (paper.training.optim, paper.tokenizer_training.optim):  # Adam at a constant rate
        assert (optim.weight_decay, optim.warmup_steps, optim.schedule, optim.clip) == (0, 0, "constant", None)
    hamer_sets = {name.partition("/")[0] for name in paper.data.train} - {"hand_labels_synth"}  # a part of MPIINZSL
    assert len(hamer_sets) == 10 and len(paper.data.pose_sets) == 4


def reduced(name: str) -> Recipe:
    recipe = load_recipe(name, REDUCED)
    codes = f"tokenizer.codebook_size={recipe.tokenizer.codebook_size // 64}"
    return load_recipe(name, [*REDUCED, codes, f"tokenizer.code_dim={max(4, recipe.tokenizer.code_dim // 32)}"])


@pytest.mark.parametrize("name", ["tiny", "base", "paper", *(f"paper/{row}" for row in ROWS)])
def test_every_recipe_learns_a_step_and_decodes(name: str) -> None:
    recipe = reduced(name)
    torch.manual_seed(0)
    mano, tokenizer = ManoLayer.from_default(), VQMano(recipe.tokenizer)
    poses = random_poses(8)
    losses = tokenizer_losses(tokenizer(poses), poses, mano, recipe.tokenizer_training.losses)
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tokenizer.parameters())

    model, batch = build_model(recipe, tokenizer, mano).train(), random_batch(2)
    optimizer = torch.optim.AdamW(model.parameter_groups(1e-3, None, 0.0))
    before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    total, _ = TransformerObjective(model, recipe)(batch, torch.arange(2), 0)
    total.backward()
    optimizer.step()
    assert total.isfinite()
    after = [p for p in model.parameters() if p.requires_grad]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))

    hands = predict(model.eval(), batch, recipe.sampler)
    assert hands.tokens.ids.shape == (2, recipe.tokenizer.num_tokens)
    assert hands.vertices_m.isfinite().all() and hands.joints_2d.isfinite().all()
    assert len(schedule(recipe.tokenizer.num_tokens, recipe.sampler.iterations)) == recipe.sampler.iterations
