"""Training step of the masked transformer: images a second, share of the device's peak, and peak memory.

    python benchmarks/train_step.py [--recipe base] [--batch 48] [--peak-tflops 989] [--set key=value ...]

Tokens, masks, forward, losses, backward, clipping and AdamW's update in the recipe's precision, with and without
gradient checkpointing of the encoder; the loader and the exchange between GPUs are not included. The share of the peak
(MFU) counts three times the multiplications of the encoder's forward pass (patches, projections and attention) and
nothing else: not the decoder, and not what checkpointing computes twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from measure import machine, seconds_in_a_row

from maskhand.batch import POSE_CHANNELS, HandBatch
from maskhand.config import Recipe
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import random_rotations
from maskhand.models.build import build_model
from maskhand.models.network import HandNetwork
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import load_recipe
from maskhand.training.transformer_loop import TransformerObjective


def random_batch(size: int, crop_px: int) -> HandBatch:
    return HandBatch(
        pixels=torch.randint(256, (size, crop_px, crop_px * 3 // 4, 4)).byte(),
        color_gain=torch.ones(size, 3),
        keypoints_2d=torch.rand(size, 21, POSE_CHANNELS),
        joints_2d=torch.rand(size, 21, 2) - 0.5,
        joints_2d_conf=torch.ones(size, 21),
        joints_3d_m=0.1 * torch.randn(size, 21, 3),
        joints_3d_valid=torch.ones(size, 21),
        rotmats=random_rotations(16 * size).view(size, 16, 3, 3),
        betas=torch.randn(size, 10),
        has_mano=torch.ones(size),
        crop_from_image=torch.eye(2, 3, dtype=torch.float64).expand(size, 2, 3),
        is_left=torch.zeros(size, dtype=torch.bool),
        image_size_px=torch.full((size, 2), crop_px),
        index=torch.full((size,), -1),
        text_ids=torch.zeros(size, 0, dtype=torch.int64),
    )


def encoder_flops(model: HandNetwork) -> float:
    """Of one image's forward pass; a multiplication with its addition counts two."""
    vit = model.encoder.vit
    tokens = model.encoder.grid[0] * model.encoder.grid[1] + model.encoder.prefix_tokens
    matrices = sum(p.numel() for name, p in vit.named_parameters() if p.ndim > 1 and "pos_embed" not in name)
    return 2.0 * tokens * (matrices + 2 * len(vit.blocks) * tokens * model.encoder.channels)


def build(recipe: Recipe, device: str) -> HandNetwork:
    torch.manual_seed(0)
    tokenizer = VQMano(recipe.tokenizer)
    tokenizer.codebook.normal_()
    return build_model(recipe, tokenizer, ManoLayer.from_default(), pretrained_backbone=False).to(device).train()


def training_step(recipe: Recipe, model: HandNetwork, batch: HandBatch, half: bool) -> Callable[[], None]:
    """One step, again and again on the same batch."""
    optim, device, objective = recipe.training.optim, batch.image.device, TransformerObjective(model, recipe)
    groups = model.parameter_groups(optim.lr, optim.lr_backbone, optim.weight_decay)
    optimizer = torch.optim.AdamW(groups, fused=device.type == "cuda")
    trained = [p for group in groups for p in group["params"]]
    slots = torch.arange(len(batch.image), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss, _ = objective(batch, slots, 0)
        optimizer.zero_grad()
        loss.backward()
        if optim.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, optim.clip)
        optimizer.step()

    return step


def report(recipe: Recipe, size: int, device: str, repeats: int, peak_tflops: float | None) -> str:
    """The figures of one recipe; nothing of it is left on the device."""
    model, batch = build(recipe, device), random_batch(size, recipe.data.crop_px).to(device)
    half = device == "cuda" and recipe.engine.precision == "bf16"
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken = seconds_in_a_row(training_step(recipe, model, batch, half), repeats, warmup=5 if device == "cuda" else 1)
    tflops = 3 * size * encoder_flops(model) / taken / 1e12
    saving = "with" if recipe.model.backbone.gradient_checkpointing else "without"
    said = f"{recipe.name}, batch {size}, {'bf16' if half else 'fp32'}: {saving} gradient checkpointing: "
    said += f"{size / taken:.1f} images/s, {1e3 * taken:.0f} ms a step, {tflops:.3g} TFLOP/s"
    if peak_tflops:
        said += f" ({tflops / peak_tflops:.0%} of the peak)"
    if device == "cuda":
        said += f", {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most"
    return f"{said}; {machine()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="base")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--peak-tflops", type=float, help="the device's dense peak in this precision (H100, H200: 989)")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for saving in ("false", "true"):
        recipe = load_recipe(options.recipe, [*options.set, f"model.backbone.gradient_checkpointing={saving}"])
        print(report(recipe, options.batch, device, options.repeats, options.peak_tflops), flush=True)


if __name__ == "__main__":
    main()
