"""The parts of the masked transformer against naive versions, and what the whole promises."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from maskhand.config import BackboneConfig
from maskhand.conventions import BONES, MANO_16, OPENPOSE_21
from maskhand.hand.camera import project_crop
from maskhand.hand.layer import ManoLayer
from maskhand.models.backbone import BackboneError, VisionTransformerEncoder
from maskhand.models.build import build_model, check_model, model_from_weights
from maskhand.models.bundle import ModelBundle
from maskhand.models.bundle_records import BundleError
from maskhand.models.deformable import DeformableCrossAttention, crop_to_map
from maskhand.models.gapr import GaprBlock, initial_neighbors
from maskhand.models.influence import initial_influence
from maskhand.models.masked_transformer import TokenEmbedding
from maskhand.models.pose_graph import PoseGraph, skeleton_adjacency
from maskhand.models.pyramid import FeaturePyramid
from maskhand.models.shape_camera_head import MEAN_SCALE, place_camera
from maskhand.models.synthesizer import ReferencePoints
from maskhand.models.vq_mano import VQMano
from maskhand.models.weight_files import WeightFileError
from maskhand.recipe_files import load_recipe
from maskhand.replacement import atomic_folder
from support.model_parts import CROP_PX, random_batch, small_model, small_recipe


def naive_bilinear(value: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """value (C, h, w) at coordinates in cells; cell centers at half-integers (align_corners=False), zero outside."""
    column, row = x - 0.5, y - 0.5
    total = torch.zeros(value.shape[0])
    for r in (int(row // 1), int(row // 1) + 1):
        for c in (int(column // 1), int(column // 1) + 1):
            if 0 <= r < value.shape[1] and 0 <= c < value.shape[2]:
                total += value[:, r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


def test_deformable_attention_equals_a_loop() -> None:
    torch.manual_seed(0)
    batch, tokens, heads, points, dim = 2, 3, 2, 2, 8
    layer = DeformableCrossAttention(dim, heads, levels=2, points=points)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    maps = [torch.randn(batch, dim, 4, 3), torch.randn(batch, dim, 16, 12)]
    queries, reference = torch.randn(batch, tokens, dim), torch.rand(batch, tokens, 2)
    fast = layer(queries, reference, layer.project(maps))

    offsets = layer.sampling_offsets(queries).view(batch, tokens, heads, 2, points, 2)
    weights = (
        layer.attention_weights(queries)
        .view(batch, tokens, heads, -1)
        .softmax(-1)
        .view(batch, tokens, heads, 2, points)
    )
    for b in range(batch):
        for q in range(tokens):
            parts = []
            for h in range(heads):
                total = torch.zeros(dim // heads)
                for level, feature in enumerate(maps):
                    value = layer.value_proj(feature[b].permute(1, 2, 0) + layer.level_embedding[level]).permute(
                        2, 0, 1
                    )
                    height, width = value.shape[1:]
                    own = value[h * dim // heads : (h + 1) * dim // heads]
                    for k in range(points):
                        # offsets are in cells: x is divided by the width, y by the height
                        x = reference[b, q, 0] * width + offsets[b, q, h, level, k, 0]
                        y = reference[b, q, 1] * height + offsets[b, q, h, level, k, 1]
                        total += weights[b, q, h, level, k] * naive_bilinear(own, x.item(), y.item())
                parts.append(total)
            assert torch.allclose(fast[b, q], layer.out_proj(torch.cat(parts)), atol=1e-5)


def test_deformable_attention_starts_on_rings() -> None:
    layer = DeformableCrossAttention(8, 4, levels=1, points=3)
    offsets = layer.sampling_offsets.bias.view(4, 1, 3, 2)
    assert torch.allclose(offsets[0, 0], torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]), atol=1e-6)
    assert torch.allclose(offsets[1, 0], torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]), atol=1e-6)


def test_crop_corners_map_to_the_cut_image() -> None:
    # the network sees columns 1/8 .. 7/8 of the square crop
    points = torch.tensor([[0.0, 0.0], [-0.375, -0.5], [0.375, 0.5]])
    assert torch.allclose(crop_to_map(points, 0.75), torch.tensor([[0.5, 0.5], [0.0, 0.0], [1.0, 1.0]]))


def test_skeleton_adjacency_is_the_normalized_tree() -> None:
    adjacency = skeleton_adjacency()
    degree = torch.ones(21)
    for a, b in BONES:
        degree[a] += 1
        degree[b] += 1
    assert torch.equal(adjacency, adjacency.T)
    assert (adjacency > 0).sum() == 21 + 2 * 20
    wrist, index_base = OPENPOSE_21.index("wrist"), OPENPOSE_21.index("index_mcp")
    assert adjacency[wrist, index_base].item() == pytest.approx((degree[wrist] * degree[index_base]).item() ** -0.5)
    assert degree[wrist] == 6


@pytest.mark.parametrize("tokens", [1, 21])
def test_pose_graph_knows_joints_apart(tokens: int) -> None:
    torch.manual_seed(0)
    graph = PoseGraph(tokens, 8, 16)
    keypoints = torch.cat([torch.rand(1, 21, 2) - 0.5, torch.ones(1, 21, 1)], dim=-1)
    swapped = keypoints.clone()
    swapped[:, [4, 20]] = keypoints[:, [20, 4]]  # thumb tip and little tip
    assert graph(keypoints).shape == (1, tokens, 16)
    assert not torch.allclose(graph(keypoints).mean(1), graph(swapped).mean(1), atol=1e-4)


def test_pose_graph_ignores_what_was_not_seen() -> None:
    graph = PoseGraph(1, 8, 16)
    keypoints = torch.rand(2, 21, 3) + 0.1
    keypoints[:, 7, 2] = 0.0
    other = keypoints.clone()
    other[:, 7, :2] = 9.0
    assert torch.equal(graph(keypoints), graph(other))
    nothing = torch.rand(2, 21, 3) * torch.tensor([1.0, 1.0, 0.0])
    assert torch.equal(graph(nothing), graph.no_pose.expand(2, 1, 16))


def test_gapr_adjacency_starts_at_its_neighbors_and_learns() -> None:
    neighbors = torch.eye(5, dtype=torch.bool)
    neighbors[3, 0] = True
    block = GaprBlock(neighbors, 16, 2, 4, "figure", 0.0)
    adjacency = block.adjacency()
    e = torch.e**4
    assert torch.allclose(adjacency.sum(1), torch.ones(5))
    assert adjacency[2, 2].item() == pytest.approx(e / (e + 4), rel=1e-5)
    assert adjacency[3, 0].item() == adjacency[3, 3].item() == pytest.approx(e / (2 * e + 3), rel=1e-5)
    block(torch.randn(2, 5, 16)).square().mean().backward()
    assert block.adjacency_logits.grad.abs().sum() > 0


def test_initial_neighbors_of_pose_tokens_are_the_2d_joints_they_influence() -> None:
    influence = initial_influence(32)
    assert torch.equal(initial_neighbors(0, influence), torch.eye(32, dtype=torch.bool))
    one = initial_neighbors(1, influence)
    assert one[1:, 0].all() and not one[0, 1:].any()
    assert one[1:, 1:].sum() == 32
    influence[2] = 0.0  # thumb tip's joint most, the middle finger's base a little, whatever its position
    influence[2, [MANO_16.index("thumb3"), MANO_16.index("thumb2"), MANO_16.index("middle1")]] = torch.tensor(
        [0.8, 0.4, 0.39]
    )
    many = initial_neighbors(21, influence)
    neighbors_of_token = {OPENPOSE_21[j] for j in many[21 + 2, :21].nonzero().flatten().tolist()}
    assert neighbors_of_token == {"thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip"}


def test_gapr_residual_is_the_difference_between_figure_and_equation() -> None:
    torch.manual_seed(0)
    figure, equation = (GaprBlock(torch.eye(5), 16, 2, 4, kind, 0.0) for kind in ("figure", "equation"))
    equation.load_state_dict(figure.state_dict())
    q = torch.randn(2, 5, 16)
    graph_output = q + figure.graph(figure.adjacency() @ figure.graph_norm(q))
    assert torch.allclose(figure(q) - equation(q), graph_output, atol=1e-6)


@pytest.mark.parametrize("scales", [(1,), (1, 4), (1, 2, 4, 8, 16)])
@pytest.mark.parametrize("depthwise", [False, True])
def test_pyramid_scales_are_linear(scales: tuple[int, ...], depthwise: bool) -> None:
    maps = FeaturePyramid({1: 24}, 16, scales, depthwise)([torch.randn(2, 24, 4, 3)])
    assert [tuple(m.shape) for m in maps] == [(2, 16, 4 * s, 3 * s) for s in scales]


def test_pyramid_names_an_unknown_scale() -> None:
    with pytest.raises(ValueError, match=r"feature_scales is \[1, 3\]"):
        FeaturePyramid({1: 24}, 16, (1, 3), False)


def test_reference_points_follow_their_kind() -> None:
    queries = torch.randn(4, 17, 16)
    keypoints = torch.cat([torch.rand(2, 21, 2) - 0.5, torch.ones(2, 21, 1)], dim=-1)
    learned = ReferencePoints("learned", 1, initial_influence(16), 16, 3, 0.75)(queries, keypoints)
    assert learned.shape == (1, 17, 2)
    assert torch.allclose(learned[0, 0], torch.tensor([0.5, 0.5]))
    assert learned.min() >= 0.1
    assert learned.max() <= 0.9
    assert torch.allclose(
        ReferencePoints("query", 1, initial_influence(16), 16, 3, 0.75)(queries, keypoints), learned.expand(4, -1, -1)
    )
    keypoints[1, OPENPOSE_21.index("wrist"), 2] = 0.0
    influence = torch.rand(16, 16)
    influence[0, MANO_16.index("wrist")] = influence[1, MANO_16.index("ring2")] = 1.5
    places = ReferencePoints("pose2d", 1, influence, 16, 3, 0.75)(queries, keypoints)
    # whatever a token's position in the sequence; two token sequences per image
    assert torch.allclose(places[1, 2], crop_to_map(keypoints[0, OPENPOSE_21.index("ring_pip"), :2], 0.75))
    assert torch.allclose(places[2, 1], learned[0, 1]), "an unseen joint falls back to the learned place"
    own = ReferencePoints("pose2d", 21, initial_influence(16), 16, 3, 0.75)(torch.randn(2, 37, 16), keypoints)
    assert torch.allclose(own[0, :21], crop_to_map(keypoints[0, :, :2], 0.75))


def test_iterative_points_move_from_layer_to_layer() -> None:
    points = ReferencePoints("iterative", 1, initial_influence(16), 16, 3, 0.75)
    queries = torch.randn(4, 17, 16)
    start = points(queries, torch.zeros(2, 21, 3))
    assert torch.allclose(points.after_layer(0, queries, start), start.expand(4, -1, -1)), "nothing moves at first"
    nn.init.normal_(points.refinements[1].weight, std=0.1)
    moved = points.after_layer(1, queries, start)
    assert torch.allclose(torch.logit(moved), torch.logit(start) + queries @ points.refinements[1].weight.T, atol=1e-4)
    assert points.after_layer(2, queries, moved) is moved, "no layer reads points behind the last"
    assert ReferencePoints("learned", 1, initial_influence(16), 16, 3, 0.75).after_layer(0, queries, start) is start


def test_encoder_gives_the_grid_and_checkpointing_changes_nothing() -> None:
    kwargs = {"embed_dim": 24, "depth": 2, "num_heads": 3}
    torch.manual_seed(0)
    cfg = BackboneConfig(name="vit_tiny_patch16_224", kwargs=kwargs)
    plain = VisionTransformerEncoder(cfg, (128, 96))
    saving = VisionTransformerEncoder(cfg.model_copy(update={"gradient_checkpointing": True}), (128, 96))
    saving.load_state_dict(plain.state_dict())
    image = torch.randn(2, 3, 128, 96)
    assert plain(image)[0].shape == (2, 24, 8, 6)
    gradients = []
    for encoder in (plain, saving):
        encoder(image)[0].square().mean().backward()
        gradients.append(encoder.vit.patch_embed.proj.weight.grad)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-7)


def test_a_model_that_cannot_be_built_is_refused_without_its_weights(tmp_path: Path) -> None:
    def refused(*changes: str) -> str:
        with pytest.raises(ValueError) as error:
            check_model(load_recipe("tiny", changes), mano)
        return str(error.value)

    mano = ManoLayer.from_default()
    check_model(load_recipe("base"), mano)  # 2.6 GB of weights, which are never made
    assert "timm cannot build a vision transformer 'vit_tny'" in refused("model.backbone.name=vit_tny")
    assert "cannot build a vision transformer 'resnet18'" in refused("model.backbone={name: resnet18, kwargs: {}}")
    assert "num_heads" in refused("model.backbone.kwargs={embed_dim: 64, depth: 1, num_heads: 7}")
    assert "model.feature_scales is [3]" in refused("model.feature_scales=[3]")
    assert "data.crop_px is 72; for the patches of 16 px" in refused("data.crop_px=72")
    check_model(load_recipe("tiny", ["data.crop_px=32", "model.backbone.kwargs={depth: 1, patch_size: 8}"]), mano)
    assert "no file /tmp/none.pt" in refused("model.backbone.checkpoint=/tmp/none.pt")
    other = build_model(load_recipe("tiny"), VQMano(load_recipe("tiny").tokenizer), mano).encoder.vit.state_dict()
    torch.save(other, tmp_path / "vit.pt")
    named = f"model.backbone.checkpoint={tmp_path / 'vit.pt'}"
    check_model(load_recipe("tiny", [named]), mano)
    assert "weights do not fit" in refused(named, "model.backbone.kwargs={embed_dim: 48, depth: 3, num_heads: 2}")
    assert "does not support captions" in refused("model.decoder=regression", "model.condition=text")
    assert "model.text.checkpoint is null" in refused("model.condition=text", "model.text.encoder=clip")


VARIANTS: list[dict] = [
    {},
    {"pose2d_tokens": 0},
    {"pose2d_tokens": 21, "ref_points": "pose2d"},
    {"gapr_residual": "equation", "token_embed": "table", "ref_points": "query"},
    {"ref_points": "iterative"},
    {"gapr_blocks": 0, "feature_scales": (1,), "logits_head": "codebook"},
    {"ref_points": "projected", "pose2d_tokens": 21, "logits_head": "mixture"},
    {"ref_points": "projected", "pose2d_tokens": 0, "logits_head": "codebook_linear"},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_every_trainable_weight_gets_a_gradient(changes: dict) -> None:
    model = small_model(small_recipe(tokens=32, **changes)).train()
    batch = random_batch(3)
    ids = torch.randint(model.mask_id + 1, (3, 32))
    drop = torch.tensor([False, True, False])
    output = model(batch.image, batch.keypoints_2d, ids, drop, ~drop)
    assert output.logits.shape == (3, 32, 20)
    (output.logits.square().mean() + output.betas.square().mean() + output.placement.square().mean()).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert frozen and all(n.startswith("tokenizer.") for n in frozen)


@pytest.mark.parametrize("from_codebook", [True, False])
def test_tokens_are_embedded_alike_in_any_number(from_codebook: bool) -> None:
    """Few tokens are embedded one by one, many by way of all codes; [MASK] and the code V - 1 are not confused."""
    tokenizer = VQMano(small_recipe().tokenizer)
    tokenizer.codebook.normal_()
    size, length = tokenizer.codebook_size, tokenizer.num_tokens
    embed = TokenEmbedding(tokenizer, 24, from_codebook)
    few, many = torch.full((1, length), size - 1), torch.randint(size + 1, (size, length))
    few[0, ::3] = size
    assert few.numel() < size <= many.numel()
    alone, together = embed(few, tokenizer.codebook), embed(torch.cat([few, many]), tokenizer.codebook)[:1]
    assert torch.allclose(alone, together, atol=1e-6)
    assert torch.equal(alone[0, ::3], embed.mask_token + embed.position_embedding[::3])
    table = embed.codes.weight if isinstance(embed.codes, nn.Embedding) else embed.codes(tokenizer.codebook)
    assert torch.allclose(alone[0, 1], table[size - 1] + embed.position_embedding[1], atol=1e-6)


def test_an_untrained_model_predicts_the_mean_hand_in_the_middle() -> None:
    model = small_model()
    batch = random_batch(4)
    context = model.encode(batch.image, batch.keypoints_2d)
    assert context.betas.abs().max() < 0.2
    assert torch.allclose(context.placement[:, 0], torch.full((4,), MEAN_SCALE), rtol=0.1)
    assert context.placement[:, 1:].abs().max() < 0.2


def test_placed_camera_projects_the_middle_of_the_hand_to_its_place() -> None:
    placement = torch.tensor([[9.0, 0.1, -0.2], [14.0, 0.0, 0.05]])
    joints_m = 0.05 * torch.randn(2, 21, 3) + torch.tensor([0.1, -0.05, 0.0])
    flat = joints_m * torch.tensor([1.0, 1.0, 0.0])
    camera = place_camera(placement, flat)
    assert torch.allclose(project_crop(flat, camera).mean(1), placement[:, 1:], atol=1e-4)
    assert torch.equal(camera[:, 0], placement[:, 0])
    deep = project_crop(joints_m, place_camera(placement, joints_m)).mean(1)
    assert (deep - placement[:, 1:]).abs().max() < 0.02


def test_dropped_image_and_pose_leave_no_trace() -> None:
    model = small_model()
    ids = torch.full((2, 16), model.mask_id)
    drop = torch.ones(2, dtype=torch.bool)
    outputs = []
    for seed in (0, 1):
        batch = random_batch(2, seed)
        context = model.encode(batch.image, batch.keypoints_2d, drop_image=drop, drop_pose=drop)
        outputs.append((model.logits(ids, context), context.betas, context.placement))
    for first, second in zip(*outputs, strict=True):
        assert torch.equal(first, second)


def test_hypotheses_share_one_encoding() -> None:
    kinds = (
        {"ref_points": "pose2d", "logits_head": "mixture"},
        {"ref_points": "query", "pose2d_tokens": 21},
        {"ref_points": "iterative"},
        {},
    )
    for changes in kinds:
        model = small_model(small_recipe(**changes))
        batch = random_batch(2)
        ids = torch.randint(model.mask_id + 1, (6, 16))
        together = model.logits(ids, model.encode(batch.image, batch.keypoints_2d))
        for row in range(6):
            image = row // 3
            one = batch[slice(image, image + 1)]
            alone = model.logits(ids[row : row + 1], model.encode(one.image, one.keypoints_2d))
            assert torch.allclose(together[row : row + 1], alone, atol=1e-5)


def test_parameter_groups_hold_every_trainable_weight_once() -> None:
    model = small_model(small_recipe(token_embed="table"))
    groups = model.parameter_groups(1e-3, 1e-4, 0.05)
    held = [id(p) for group in groups for p in group["params"]]
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sorted(held) == sorted(map(id, trained.values()))
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, p in trained.items():  # positions, queries, reference points and the table of codes are places
        assert (id(p) in decayed) == (
            p.ndim > 1 and name.endswith("weight") and name != "token_embedding.codes.weight"
        ), name
    backbone = {id(p) for p in model.encoder.parameters()}
    assert all((id(p) in backbone) == (g["lr"] == 1e-4) for g in groups for p in g["params"])


@pytest.mark.parametrize("changes", [*VARIANTS, {"decoder": "regression"}, {"decoder": "lifter"}])
def test_a_model_from_weights_holds_them_and_equals_the_one_they_came_from(changes: dict) -> None:
    recipe, mano = small_recipe(**changes), ManoLayer.from_default()
    model = build_model(recipe, VQMano(recipe.tokenizer), mano).eval()
    weights = model.state_dict()
    again = model_from_weights(recipe, mano, weights).eval()
    assert all(tensor.data_ptr() == weights[name].data_ptr() for name, tensor in again.state_dict().items())
    trained = lambda network: [name for name, p in network.named_parameters() if p.requires_grad]  # noqa: E731
    assert trained(again) == trained(model)
    batch, ids = random_batch(2), torch.full((2, 16), model.mask_id)
    before, after = (vars(network(batch.image, batch.keypoints_2d, ids)) for network in (model, again))
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    with pytest.raises(WeightFileError, match="1 missing"):
        model_from_weights(recipe, mano, dict(list(weights.items())[1:]))


@pytest.mark.parametrize("decoder", ["masked", "regression", "lifter"])
def test_bundle_round_trip_without_the_hand_model(decoder: str, tmp_path: Path) -> None:
    recipe = small_recipe(decoder=decoder)
    model = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default()).eval()
    saved = ModelBundle.save(tmp_path / "bundle", model, recipe, {"step": 7})
    ModelBundle.save(tmp_path / "bundle", model, recipe, {"step": 8})  # replaces
    loaded = ModelBundle.load(tmp_path / "bundle")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle"]
    assert (loaded.recipe, loaded.metadata, loaded.hand_digest) == (recipe, {"step": 8}, model.mano.digest)
    assert loaded.digest == saved.digest and not loaded.model.training
    weights = torch.load(tmp_path / "bundle" / "model.pt", weights_only=True)
    assert not [name for name in weights if name.startswith("mano.")]
    assert not [name for name, value in weights.items() if 778 in value.shape]
    batch = random_batch(2)
    ids = torch.full((2, 16), model.mask_id)
    before, after = (m(batch.image, batch.keypoints_2d, ids) for m in (model, loaded.model))
    assert torch.equal(before.betas, after.betas)
    assert (
        torch.equal(before.logits, after.logits) if decoder == "masked" else torch.equal(before.rotmats, after.rotmats)
    )


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_folder_is_replaced_or_kept_whole(renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted before one of its two renames, and not at all: the old folder goes when the new one is there."""
    target, rename, before = tmp_path / "bundle", Path.rename, []

    def interrupted(path: Path, to: Path) -> Path:
        if len(before) == renames:
            monkeypatch.undo()
            raise KeyboardInterrupt
        before.append(sorted(file.read_text() for file in tmp_path.rglob("file")))
        return rename(path, to)

    with atomic_folder(target) as folder:
        (folder / "file").write_text("old")
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt) if renames < 2 else nullcontext(), atomic_folder(target) as folder:
        (folder / "file").write_text("whole")
    assert before == [["old", "whole"]] * renames
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    assert (target / "file").read_text() == ("whole" if renames == 2 else "old")


def test_other_inference_settings_keep_the_weights_of_a_bundle(tmp_path: Path) -> None:
    recipe = small_recipe()
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    saved = ModelBundle.save(first, small_model(recipe), recipe, {"step": 7})
    other = recipe.model_copy(update={"sampler": recipe.sampler.model_copy(update={"iterations": 9})})
    ModelBundle.with_inference_settings(first, second, other)
    loaded = ModelBundle.load(second)
    assert (loaded.recipe, loaded.metadata, loaded.hand_digest) == (other, {"step": 7}, saved.hand_digest)
    assert (first / "model.pt").samefile(second / "model.pt")
    assert loaded.digest != saved.digest
    assert (first / "bundle.json").read_bytes() != (second / "bundle.json").read_bytes()
    ModelBundle.with_inference_settings(second, third, recipe)
    assert ModelBundle.load(third).digest == saved.digest
    with pytest.raises(BundleError, match=r"no model\.pt"):
        ModelBundle.with_inference_settings(tmp_path / "nothing", tmp_path / "fourth", recipe)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w, name: w | {name: w[name] * float("nan")}, "1 of .* weights hold NaN or infinity .*diverge"),
        (lambda w, name: w | {name: w[name] + float("inf")}, "1 of .* weights hold NaN or infinity"),
        (lambda w, name: w | {name: w[name][:-1]}, "do not fit the recipe .*1 of another shape: .* instead of"),
        (lambda w, name: {n: v for n, v in w.items() if n != name}, "do not fit the recipe .*1 missing"),
        (lambda w, _: w | {"zz": torch.zeros(2)}, "do not fit the recipe .*1 unexpected: zz"),
        (lambda w, _: w | {7: torch.zeros(2)}, "expected named tensors"),
        (lambda w, _: w | {"zz": "text"}, "expected named tensors"),
        (lambda w, _: list(w), "expected named tensors, found a list"),
    ],
)
def test_weights_of_another_form_are_told_in_our_words(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor], str], Any], said: str
) -> None:
    recipe, folder = small_recipe(), tmp_path / "bundle"
    ModelBundle.save(folder, small_model(recipe), recipe, {})
    weights = torch.load(folder / "model.pt", weights_only=True)
    name = next(name for name, weight in weights.items() if weight.is_floating_point() and weight.ndim == 2)
    torch.save(change(weights, name), folder / "model.pt")
    record = json.loads((folder / "bundle.json").read_text())
    sha256 = hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(record | {"sha256": sha256}))
    with pytest.raises(BundleError, match=rf"model\.pt: .*{said}.*; copy or export it again") as error:
        ModelBundle.load(folder)
    assert "state_dict" not in str(error.value)


def test_bundle_refuses_damage_and_other_hands(tmp_path: Path) -> None:
    recipe, folder = small_recipe(), tmp_path / "bundle"
    model = small_model(recipe)
    with pytest.raises(BundleError, match="bundle: no such model; give an exported folder"):
        ModelBundle.load(folder)
    folder.mkdir()
    with pytest.raises(BundleError, match=r"no bundle\.json"):
        ModelBundle.load(folder)
    ModelBundle.save(folder, model, recipe, {})
    data = bytearray((folder / "model.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.pt").write_bytes(data)
    with pytest.raises(BundleError, match="sha256"):
        ModelBundle.load(folder)
    model.mano.digest = "0123456789ab"
    ModelBundle.save(folder, model, recipe, {})
    with pytest.raises(BundleError, match="trained with hand model 0123456789ab"):
        ModelBundle.load(folder)
    ModelBundle.save(folder, small_model(recipe), recipe, {})
    edited = json.loads((folder / "recipe.json").read_text())
    edited["sampler"]["iterations"] = 1
    (folder / "recipe.json").write_text(json.dumps(edited))
    with pytest.raises(BundleError, match=r"recipe\.json: this is not the recipe that bundle\.json names"):
        ModelBundle.load(folder)
    record = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(record | {"format": 1}))
    with pytest.raises(BundleError, match="bundle format 1, this version reads 2; train the model with"):
        ModelBundle.load(folder)


def test_crop_must_fit_patches() -> None:
    with pytest.raises(BackboneError, match="crop_px is 100"):
        VisionTransformerEncoder(BackboneConfig(name="vit_tiny_patch16_224"), (100, 75))
    assert CROP_PX % 64 == 0


def test_batch_rows_do_not_influence_each_other() -> None:
    model = small_model()
    batch = random_batch(3)
    ids = torch.randint(model.mask_id, (3, 16))
    output = model(batch.image, batch.keypoints_2d, ids)
    changed = replace(batch, pixels=torch.cat([batch.pixels[:1], 255 - batch.pixels[1:]]))
    other = model(changed.image, changed.keypoints_2d, ids)
    assert torch.allclose(output.logits[0], other.logits[0], atol=1e-5)
    assert not torch.allclose(output.logits[1], other.logits[1], atol=1e-3)
