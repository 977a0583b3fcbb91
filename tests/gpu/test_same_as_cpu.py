"""A GPU computes what the CPU does: tokens, hands, losses and gradients, as near as its precision allows."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from maskhand.annotate.openpose import find_peaks
from maskhand.config import SamplerConfig, TokenizerConfig
from maskhand.hand.layer import ManoLayer
from maskhand.models.build import build_model
from maskhand.models.sampling import predict, sample
from maskhand.models.vq_mano import VQMano, full_precision
from maskhand.recipe_files import load_recipe
from maskhand.training.losses import tokenizer_losses
from maskhand.training.masking import corrupt_tokens
from maskhand.training.transformer_loop import TransformerObjective
from support.model_parts import random_batch, random_poses, small_model, small_recipe

pytestmark = pytest.mark.gpu

CPU = torch.device("cpu")


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """On a GPU, whatever makes the host wait for the device is an error."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_masks_are_the_cpus(device: torch.device) -> None:
    masking = load_recipe("base").training.masking
    ids, has_mano, slots = torch.randint(2048, (48, 64)), torch.ones(48), torch.arange(48)
    here, there = (
        corrupt_tokens(ids.to(place), has_mano.to(place), masking, 2048, seed=7, step=11, slots=slots.to(place))
        for place in (CPU, device)
    )
    assert torch.equal(here.ids, there.ids.cpu()) and torch.equal(here.drop_image, there.drop_image.cpu())


def test_the_peaks_of_heat_maps(device: torch.device) -> None:
    heat = torch.rand(4, 21, 46, 46, generator=torch.manual_seed(0))
    for here, there in zip(find_peaks(heat, 368), find_peaks(heat.to(device), 368), strict=True):
        torch.testing.assert_close(torch.from_numpy(there), torch.from_numpy(here), rtol=1e-4, atol=1e-2)


def test_the_hand_layer_and_its_gradient(device: torch.device) -> None:
    results = []
    for place in (CPU, device):
        layer = ManoLayer.from_default().to(place)
        rotmats = random_poses(48).to(place).requires_grad_()
        betas = torch.linspace(-2, 2, 480).view(48, 10).to(place).requires_grad_()
        mesh = layer(rotmats, betas)
        (mesh.vertices_m.square().sum() + mesh.joints_m.sum()).backward()
        results.append([x.detach().cpu() for x in (mesh.vertices_m, mesh.joints_m, rotmats.grad, betas.grad)])
    for here, there in zip(*results, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5 * here.abs().max().item())


@pytest.mark.parametrize("rot_repr", ["6d", "aa"])
def test_a_pose_has_the_same_tokens(device: torch.device, rot_repr: str) -> None:
    """At full size. Ten bits of mantissa (TF32, on by default) would choose other codes for many."""
    torch.manual_seed(0)
    here = VQMano(TokenizerConfig(rot_repr=rot_repr))
    poses = random_poses(256)
    with torch.no_grad():
        outputs = here._embed(poses).flatten(0, 1)
    here.quantizer.codebook.copy_(outputs[torch.randperm(len(outputs))[: here.codebook_size]])
    here.freeze()
    there = copy.deepcopy(here).to(device)
    before = torch.backends.cudnn.allow_tf32
    ids, ids_there = here.encode(poses), there.encode(poses.to(device)).cpu()
    assert torch.backends.cudnn.allow_tf32 == before, "the setting is put back"
    assert (ids == ids_there).float().mean() > 0.9999, "but for ties"
    torch.testing.assert_close(there.decode_codes(ids.to(device)).cpu(), here.decode_codes(ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize("iterations", [1, 5])
@pytest.mark.parametrize("ref_points", ["learned", "pose2d"])
def test_greedy_sampling_finds_the_same_tokens(device: torch.device, iterations: int, ref_points: str) -> None:
    here, batch = small_model(small_recipe(tokens=32, ref_points=ref_points)), random_batch(8)
    torch.nn.init.normal_(here.code_classifier.linear.weight, std=1.0)  # logits large enough to differ
    there, cfg = copy.deepcopy(here).to(device), SamplerConfig(iterations=iterations)
    with full_precision(device):
        hands, hands_there = predict(here, batch, cfg), predict(there, batch.to(device), cfg).to("cpu")
    assert torch.equal(hands_there.tokens.ids, hands.tokens.ids)
    torch.testing.assert_close(hands_there.vertices_m, hands.vertices_m, atol=1e-5, rtol=0)
    torch.testing.assert_close(hands_there.log_probability, hands.log_probability, atol=1e-4, rtol=0)


def test_bf16_training_is_close_to_fp32_on_the_cpu(device: torch.device) -> None:
    recipe = load_recipe("tiny")
    torch.manual_seed(0)
    tokenizer, mano = VQMano(recipe.tokenizer), ManoLayer.from_default()
    tokenizer(random_poses(64))  # starts the codebook
    here, batch = build_model(recipe, tokenizer, mano).train(), random_batch(8)
    results = []
    for place, half in ((CPU, False), (device, True)):
        model, rows = copy.deepcopy(here).to(place), batch.to(place)
        with torch.autocast(place.type, torch.bfloat16, enabled=half):
            loss, _ = TransformerObjective(model, recipe)(rows, torch.arange(8, device=place), 0)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).cpu()
        results.append((loss.item(), gradient))
    (loss, gradient), (half_loss, half_gradient) = results
    assert half_loss == pytest.approx(loss, rel=0.02)
    assert torch.nn.functional.cosine_similarity(gradient, half_gradient, dim=0) > 0.98
    assert half_gradient.norm() == pytest.approx(gradient.norm().item(), rel=0.1)


def test_nothing_waits_for_the_device(device: torch.device) -> None:
    """Decoding, a transformer step and a tokenizer step. tests/unit/test_host_waits.py says the same without a GPU."""
    recipe = small_recipe(tokens=32)
    model, batch = small_model(recipe).to(device), random_batch(4).to(device)
    cfg = SamplerConfig(iterations=5, temperature=1.0, top_k=5, top_p=0.9, confidence_noise=1.0)
    generator, slots = torch.Generator(device).manual_seed(0), torch.arange(4, device=device)
    fresh = VQMano(recipe.tokenizer.model_copy(update={"reset_every": 1000})).to(device)
    poses, objective = random_poses(8).to(device), TransformerObjective(model, recipe)
    fresh(poses)  # starts the codebook
    for _ in range(2):  # the second time round nothing is loaded or planned any more
        with no_waiting(device):
            context = model.encode(batch.image, batch.keypoints_2d)
            hands = sample(model, context, cfg, generator, hypotheses=8)
            objective(batch, slots, 0)[0].backward()
            tokenizer_losses(fresh(poses), poses, model.mano, recipe.tokenizer_training.losses).total.backward()
    assert hands.vertices_m.isfinite().all()


def test_checkpointing_the_encoder_saves_memory(cuda: torch.device) -> None:
    peaks = {}
    for saving in (False, True):
        recipe = load_recipe(
            "tiny",
            [
                "data.crop_px=256",
                "model.backbone={name: vit_small_patch16_224}",
                f"model.backbone.gradient_checkpointing={str(saving).lower()}",
            ],
        )
        model = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default()).to(cuda).train()
        image = torch.randn(16, 3, 256, 192, device=cuda)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model.encoder(image)[0].square().mean().backward()
        peaks[saving] = torch.cuda.max_memory_allocated() - before
    assert peaks[True] < 0.6 * peaks[False]


@pytest.mark.slow
def test_a_compiled_decoding_step_says_the_same(device: torch.device) -> None:
    model, batch = small_model(), random_batch(2)
    model, batch = model.to(device), batch.to(device)
    ids = torch.full((2, 16), model.mask_id, device=device)
    with torch.no_grad(), full_precision(device):
        context = model.encode(batch.image, batch.keypoints_2d)
        eager, compiled = model.logits(ids, context), torch.compile(model.logits)(ids, context)
    torch.testing.assert_close(compiled, eager, atol=1e-4, rtol=1e-4)
