"""Time of a prediction: T = 5 against T = 1, and many hypotheses from one encoding against as many separate runs.

    python benchmarks/sampling_speed.py [--recipe paper] [--batch 1] [--hypotheses 1000] [--repeats N] [--set key=value]

The weights are random: they do not change the work. From the crop and its keypoints to vertices; on a GPU the network
runs in bf16, tokenizer and hand in fp32. Detectors and cropping are not included. Every run is waited for, as a caller
with one image does; the figures are medians and 95 % bounds of runs that take turns.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from measure import machine, p95, seconds, times_s

from maskhand.batch import POSE_CHANNELS
from maskhand.hand.layer import ManoLayer
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.sampling import sample
from maskhand.models.vq_mano import VQMano
from maskhand.recipe_files import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--hypotheses", type=int, default=1000)
    parser.add_argument("--repeats", type=int, help="default 100 on a GPU (after 50 to warm up), 3 on a CPU (after 1)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precision = torch.bfloat16 if device == "cuda" else torch.float32
    recipe = load_recipe(options.recipe, options.set)
    torch.manual_seed(0)
    tokenizer = VQMano(recipe.tokenizer)
    tokenizer.codebook.normal_()
    model = (
        MaskedTransformer(recipe.model, tokenizer, ManoLayer.from_default(), recipe.data.image_size_px)
        .to(device)
        .eval()
    )
    repeats, warmup = (options.repeats or 100, 50) if device == "cuda" else (options.repeats or 3, 1)
    image = torch.randn(options.batch, 3, *model.encoder.image_size, device=device)
    keypoints = torch.rand(options.batch, 21, POSE_CHANNELS, device=device)
    generator = torch.Generator(device).manual_seed(0)

    def half() -> torch.autocast:
        # a context per run: it casts every weight once, and so does the caller with one image
        return torch.autocast(device, precision, enabled=device == "cuda")

    def encode() -> None:
        with half():
            model.encode(image, keypoints)

    def run(iterations: int, hypotheses: int = 1, temperature: float = 0.0) -> None:
        cfg = recipe.sampler.model_copy(update={"iterations": iterations, "temperature": temperature})
        with half():
            sample(model, model.encode(image, keypoints), cfg, generator, hypotheses)

    millions = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"recipe {recipe.name}, {millions:.0f} M parameters, {precision}, batch {options.batch}; {machine()}")
    print("from the crop and its keypoints to vertices; detector and cropping not included")
    candidates = {"encode": encode, "T=1": lambda: run(1), "T=3": lambda: run(3), "T=5": lambda: run(5)}
    candidates["T=5, drawn"] = lambda: run(5, 1, 1.0)
    with torch.inference_mode():
        times = times_s(candidates, repeats, warmup)
        count = options.hypotheses
        together = seconds({"all": lambda: run(5, count, 1.0)}, 1, warmup=int(device == "cuda"))["all"]
    taken = {name: statistics.median(runs) for name, runs in times.items()}
    for name, value in taken.items():
        ratio = value / taken["T=1"]
        print(f"{name}: {1e3 * value:.1f} ms ({ratio:.3f} of T=1), 95 % within {1e3 * p95(times[name]):.1f} ms")
    print(f"each further iteration: {1e3 * (taken['T=5'] - taken['T=1']) / 4:.1f} ms")
    print("the paper, an image on its own GPU: T=1 40 ms, T=3 80 ms (2.0 of T=1), T=5 120 ms (3.0)")
    separate = count * taken["T=5, drawn"]
    print(
        f"{count} hypotheses at once: {together:.2f} s; {count} runs of one: {separate:.1f} s "
        f"(from the median of {repeats}); {separate / together:.1f}x"
    )


if __name__ == "__main__":
    main()
