"""Hands per second of the encoder and one decoding pass: torch in fp32 and bf16, compiled, and ONNX Runtime.

    python benchmarks/export.py [--model open] [--threads 1] [--repeats 7] [--no-compile]

On the CPU. Candidates take turns in one process; ratios are to torch in fp32. The last column is how far joints are
from those of torch in fp32, at most.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable

import numpy as np
import torch
from measure import machine, seconds

from maskhand.batch import POSE_CHANNELS
from maskhand.conventions import NUM_JOINTS
from maskhand.export.network import decoding_pass, export_onnx
from maskhand.export.runner import OnnxNetwork
from maskhand.models.bundle import ModelBundle
from maskhand.models.open_folder import open_model_folder
from maskhand.shipped_models import OPEN
from maskhand.workspace import assets_folder

BATCHES = (1, 32)
FP32 = "torch fp32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=OPEN, help="`open`, or an exported folder")
    parser.add_argument("--onnx", help="a folder of `maskhand export` of the same model, to not export again")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = open_model_folder(assets_folder()) if options.model == OPEN else options.model
    bundle = ModelBundle.load(folder)
    with tempfile.TemporaryDirectory() as scratch:
        if options.onnx is None:
            export_onnx(bundle, scratch)
        onnx = OnnxNetwork.load(options.onnx or scratch, threads=options.threads)
        compiled = not options.no_compile and shutil.which("c++") is not None
        print(f"model {bundle.digest}, recipe {bundle.recipe.name}; {machine()}")
        print("| batch | how | hands/s | ratio | joints off, mm |\n|---|---|---|---|---|")
        for batch in BATCHES:
            _compare(bundle, onnx, batch, options.repeats, compiled)


def _compare(bundle: ModelBundle, onnx: OnnxNetwork, batch: int, repeats: int, compiled: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    height, width = bundle.recipe.data.image_size_px
    pixels = torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=generator)
    keypoints = torch.rand(batch, NUM_JOINTS, POSE_CHANNELS, generator=generator) - 0.5
    network = decoding_pass(bundle)
    fast = torch.compile(network) if compiled else network

    def on_torch(run: Callable[..., tuple[torch.Tensor, ...]], bf16: bool = False) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return run(pixels, keypoints)[1].float().numpy()

    candidates: dict[str, Callable[[], np.ndarray]] = {
        FP32: lambda: on_torch(network),
        "torch bf16": lambda: on_torch(network, bf16=True),
        **({"torch.compile": lambda: on_torch(fast)} if compiled else {}),
        "ONNX Runtime": lambda: onnx(pixels.numpy(), keypoints.numpy()).joints_m,
    }
    taken, joints = seconds(candidates, repeats), {name: run() for name, run in candidates.items()}
    for name, time_s in taken.items():
        apart_mm = 1e3 * np.linalg.norm(joints[name] - joints[FP32], axis=-1).max()
        print(f"| {batch} | {name} | {batch / time_s:.1f} | {taken[FP32] / time_s:.2f} | {apart_mm:.4f} |", flush=True)


if __name__ == "__main__":
    main()
