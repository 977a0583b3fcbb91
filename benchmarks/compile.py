"""Where torch.compile pays: the encoder, one decoding iteration and the MANO layer, as they are and compiled.

    python benchmarks/compile.py [--recipe paper]

Of the encoder four blocks (they are all alike); on a GPU in bf16.
"""

from __future__ import annotations

import argparse
import time

import torch
from measure import machine, seconds

from maskhand.batch import POSE_CHANNELS
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import random_rotations
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import load_recipe

FOUR_BLOCKS = "model.backbone.kwargs={depth: 4}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="paper")
    recipe = load_recipe(parser.parse_args().recipe, [FOUR_BLOCKS])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = VQMano(recipe.tokenizer)
    tokenizer.codebook.normal_()
    mano = ManoLayer.from_default()
    model = MaskedTransformer(recipe.model, tokenizer, mano, recipe.data.image_size_px).to(device).eval()
    rotmats, betas = random_rotations(48 * 16).view(48, 16, 3, 3).to(device), torch.zeros(48, 10, device=device)
    ids = torch.full((1, model.num_tokens), model.mask_id, device=device)
    with torch.inference_mode():
        image = torch.zeros(1, 3, *model.encoder.image_size, device=device)
        context = model.encode(image, torch.ones(1, 21, POSE_CHANNELS, device=device))
    compiled_logits, compiled_mano = torch.compile(model.logits), torch.compile(mano)

    def look(run) -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            run(image)

    def iteration(run) -> None:
        with torch.inference_mode():
            run(ids, context)

    def hand(run) -> None:
        turned = rotmats.clone().requires_grad_()
        run(turned, betas).vertices_m.square().sum().backward()

    print(f"recipe {recipe.name}; {machine()}")
    parts = {"four blocks of the encoder, batch 1": (look, model.encoder, torch.compile(model.encoder))}
    parts["one iteration, batch 1"] = (iteration, model.logits, compiled_logits)
    parts["MANO layer forward + backward, batch 48"] = (hand, mano, compiled_mano)
    for name, (run, eager, compiled) in parts.items():
        start = time.perf_counter()
        run(compiled)
        compiling = time.perf_counter() - start
        taken = seconds({"eager": lambda: run(eager), "compiled": lambda: run(compiled)}, repeats=15, warmup=3)  # noqa: B023
        print(
            f"{name}: eager {1e3 * taken['eager']:.2f} ms, compiled {1e3 * taken['compiled']:.2f} ms "
            f"({taken['eager'] / taken['compiled']:.2f}x); compiling took {compiling:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
