"""What one GPU does with maskhand, in one table, within 8 minutes.

    make gpu-report                                                  # or: python benchmarks/gpu_report.py
    python benchmarks/gpu_report.py zero feeding                     # some of its parts
    MASKHAND_TEST_DEVICE=cpu python benchmarks/gpu_report.py         # the report itself, tried small without a GPU;
                                                                     # on a busy machine within 10 minutes

| part | what it does |
|---|---|
| tests | `tests/gpu`, those that are not slow: tokens, samples, hands, losses and gradients as on the CPU |
| zero | five steps at each ZeRO stage, fp32 and bf16, over all GPUs (NCCL): the losses must be those of stage 0 |
| step | the training step of ViT-H, bf16, with and without checkpointing: images a second, share of the peak, memory |
| small | the same with 6 images, the share of one of 8 GPUs in the paper's batch: what a step costs beside its images |
| sampling | an image to a hand with T = 1, 3, 5, and the encoder alone |
| feeding | steps that the loader feeds, against the same steps on one batch |

No part needs Ray. Each is a process of its own with a time limit; one that fails is a row of the table and stops no
other. Exit status 1 where one failed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
LIMIT_S, TRIED_LIMIT_S = 480, 600
"""Of all parts together: on a GPU, and where the report itself is tried on a CPU that others use, too."""
TRIED = "tried on a CPU: the recipe tiny, batches of 8 and 2, 4 steps, one thread; these figures say nothing of a GPU"
PEAK_TFLOPS = {"H200": 989, "H100": 989, "GH200": 989, "B200": 2250, "A100": 312, "L40S": 362, "A10": 125, "L4": 121}
"""Dense bf16, as NVIDIA states it, by what the device's name contains."""


class Part(NamedTuple):
    command: list[str]
    shown: str
    """The lines of its output that are rows: a regular expression with what and figure."""
    limit_s: int


def parts(small: bool, peak_tflops: float | None) -> dict[str, Part]:
    python, this = sys.executable, str(HERE / "gpu_report.py")
    recipe, batch, share = ("tiny", "8", "2") if small else ("base", "48", "6")
    step = [python, str(HERE / "train_step.py"), "--recipe", recipe, "--repeats", "2" if small else "10"]
    step += ["--peak-tflops", str(peak_tflops)] if peak_tflops else []
    bf16 = ["--set", "engine.precision=bf16"]
    sampling = [python, str(HERE / "sampling_speed.py"), "--recipe", "tiny" if small else "paper"]
    sampling += ["--hypotheses", "4" if small else "100", "--repeats", "2" if small else "50"]
    own = r"^row: (.+?): (.+)$"
    of_a_step = r"^(.+? gradient checkpointing): (.+?);"
    return {
        "tests": Part(
            [python, "-m", "pytest", "-q", "-m", "gpu and not slow", "tests/gpu"],
            r"^()(\d+ passed.*)",
            210 if small else 90,
        ),
        "zero": Part([python, this, "--run", "zero"], own, 90),
        "step": Part([*step, "--batch", batch, *bf16], of_a_step, 80),
        "small": Part([*step, "--batch", share, *bf16], of_a_step, 50),
        "sampling": Part(sampling, r"^(encode|T=\d|\d+ hypotheses at once|each further iteration): (.+)$", 80),
        "feeding": Part([python, this, "--run", "feeding"], own, 90),
    }


def run(part: Part, environment: dict[str, str], limit_s: float) -> tuple[list[tuple[str, str]], bool]:
    """The rows of a part, and whether it did what it should."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            part.command,
            cwd=HERE.parent,
            env=environment,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(max(1.0, limit_s))
        except subprocess.TimeoutExpired:
            status = None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
        output.seek(0)
        text = output.read()
    rows = [(what, figure) for what, figure in re.findall(part.shown, text, re.MULTILINE)]
    if status == 0 and rows:
        return rows, True
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "no output")
    why = f"not finished within {limit_s:.0f} s" if status is None else f"exit status {status}"
    return [*rows, ("failed", f"{why}: {last.strip()[:160]}")], False


def zero() -> None:
    """Rows of the stages; raises RuntimeError where their losses differ."""
    import torch
    from torch import multiprocessing

    world = max(1, torch.cuda.device_count())
    with tempfile.TemporaryDirectory() as folder:
        if world > 1:
            multiprocessing.spawn(_stages, (world, folder), nprocs=world)
        else:
            _stages(0, 1, folder)


def _stages(rank: int, world: int, folder: str) -> None:
    import torch

    cuda = torch.cuda.is_available()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    if cuda:
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        "nccl" if cuda else "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    for precision, near in (("fp32", 5e-3), ("bf16", 0.05)):
        first: list[float] = []
        for stage in range(4):
            losses, step_ms = _steps(rank, world, stage, precision)
            first = first or losses
            apart = max(abs(a / b - 1) for a, b in zip(losses, first, strict=True))
            if rank == 0:
                said = (
                    f"{step_ms:.1f} ms a step of 8 hands, last loss {losses[-1]:.4f}, at most {apart:.1e} from stage 0"
                )
                print(f"row: ZeRO {stage}, {precision}, {world} ranks: {said}", flush=True)
            if apart > near:
                raise RuntimeError(
                    f"ZeRO stage {stage} in {precision} has other losses than stage 0: {losses}, {first}"
                )
    torch.distributed.destroy_process_group()


def _steps(rank: int, world: int, stage: int, precision: str) -> tuple[list[float], float]:
    """The losses of five steps, means over the ranks, and milliseconds of one."""
    import torch
    from capacity_check import engine_of
    from train_step import random_batch

    from maskhand.recipe_files import load_recipe

    cuda, rows = torch.cuda.is_available(), 8 * world
    settings = [f"engine.use_gpu={str(cuda).lower()}", f"engine.zero_stage={stage}", f"engine.precision={precision}"]
    recipe = load_recipe("tiny", [*settings, f"training.optim.batch={rows}"])
    engine = engine_of(recipe, "cuda" if cuda else "cpu")
    torch.manual_seed(0)
    batch = random_batch(rows, recipe.data.crop_px)[rank::world].to(engine.device)
    slots = torch.arange(rank, rows, world, device=engine.device)
    losses, started = [], 0.0
    for step in range(5):
        if step == 1:
            started = time.perf_counter()
        losses.append(float(engine.mean(engine.step(step, batch, slots, step)["loss"])))
    return losses, 1e3 * (time.perf_counter() - started) / 4


def feeding(small: bool) -> None:
    """Rows: images a second on one batch, and fed by the loader's processes."""
    import torch
    from capacity_check import engine_of
    from loader import write_set

    from maskhand.loading.loader import train_batches
    from maskhand.recipe_files import load_recipe

    cuda = torch.cuda.is_available()
    size, steps = ("224x224", 4) if small else ("640x480", 30)
    settings = [f"data.train={{{size}: 1.0}}", "data.keypoints.detector=benchmark", "data.held_out=0.0"]
    settings += [f"data.loader_workers={1 if small else 4}", f"training.optim.batch={8 if small else 48}"]
    settings += [f"engine.use_gpu={str(cuda).lower()}", "engine.precision=bf16"]
    recipe = load_recipe("tiny" if small else "base", settings)
    with tempfile.TemporaryDirectory() as folder:
        write_set(f"{folder}/{size}", size)
        engine, stream = engine_of(recipe, "cuda" if cuda else "cpu"), train_batches(recipe, folder)
        slots = torch.arange(recipe.training.optim.batch, device=engine.device)
        ready = next(stream).to(engine.device)
        for name, fed in (("one batch again and again", False), ("fed by the loader", True)):
            waited = started = 0.0
            for step in range(2 + steps):
                if step == 2:
                    _wait_for_device(cuda)
                    waited, started = 0.0, time.perf_counter()
                asked = time.perf_counter()
                batch = next(stream).to(engine.device) if fed else ready
                waited += time.perf_counter() - asked
                engine.step(step, batch, slots, step)
            _wait_for_device(cuda)
            taken = time.perf_counter() - started
            said = f"{len(slots) * steps / taken:.1f} images/s with {recipe.data.loader_workers} loader processes"
            print(f"row: {name}, {size}: {said}, {waited / taken:.0%} of the time in loading", flush=True)
        del stream  # ends its processes before their shards go


def _wait_for_device(cuda: bool) -> None:
    import torch

    if cuda:
        torch.cuda.synchronize()


def device(environment: dict[str, str]) -> str:
    """The device's name, asked of a process of its own: CUDA takes memory of whoever asks."""
    asked = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu')"
    return subprocess.check_output([sys.executable, "-c", asked], env=environment, text=True).strip()


def table(rows: list[tuple[str, str, str]]) -> str:
    lines = [f"| {part} | {what or part} | {figure} |" for part, what, figure in rows]
    return "\n".join(["| part | what | figure |", "|---|---|---|", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="default: all")
    parser.add_argument("--peak-tflops", type=float, help="the device's dense bf16 peak; known for NVIDIA's usual ones")
    parser.add_argument("--limit-s", type=float, help=f"of all parts, which share it: {LIMIT_S}; {TRIED_LIMIT_S} tried")
    parser.add_argument("--run", choices=["zero", "feeding"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    tried = os.environ.get("MASKHAND_TEST_DEVICE") == "cpu"
    if options.run == "zero":
        return zero()
    if options.run == "feeding":
        return feeding(tried)
    # Threads that wait for each other spin, while others have the core.
    environment = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if tried else {})
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    name = device(environment)
    if name == "cpu" and not tried:
        sys.exit("gpu_report: torch finds no GPU; MASKHAND_TEST_DEVICE=cpu tries the report itself, small")
    peak = options.peak_tflops or next((t for part, t in PEAK_TFLOPS.items() if part in name), None)
    known = parts(tried, peak)
    if unknown := set(options.parts) - set(known):
        sys.exit(f"gpu_report: no part {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    within_s = TRIED_LIMIT_S if tried else LIMIT_S
    limit_s = options.limit_s or within_s
    rows, well, started = [], True, time.monotonic()
    for part in options.parts or known:
        since = time.monotonic()
        share_s = known[part].limit_s * limit_s / within_s
        found, fine = run(known[part], environment, min(share_s, limit_s - (since - started)))
        rows += [(part, *row) for row in found] + [(part, "seconds", f"{time.monotonic() - since:.0f}")]
        well = well and fine
        print(f"{part}: {'done' if fine else 'failed'} after {time.monotonic() - since:.0f} s", flush=True)
    print(f"\n{TRIED if tried else name}{f', peak {peak:g} TFLOP/s' if peak else ''}\n\n{table(rows)}")
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
