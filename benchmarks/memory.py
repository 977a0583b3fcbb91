"""Memory that tensors release: used again (`machine.reuse_memory`), or returned to the system, as glibc does.

    python benchmarks/memory.py [--batch 32] [--px 192] [--repeats 10]

The hand landmark network on one thread, each way in a process of its own: CPU seconds, page faults and peak memory of
a forward pass, and of one with its backward pass.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
from measure import machine, seconds_in_a_row

from maskhand.machine import reuse_memory
from maskhand.models.hand_landmark import HandLandmarkNet

Row = dict[str, float]


def passes(batch: int, px: int) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    torch.manual_seed(0)
    network = HandLandmarkNet().to(memory_format=torch.channels_last)
    images = torch.rand(batch, 3, px, px).to(memory_format=torch.channels_last)

    def forward() -> None:
        with torch.no_grad():
            network(images)

    def with_backward() -> None:
        network(images).last.sum().backward()

    return {"forward": forward, "forward and backward": with_backward}


def measure(reused: bool, batch: int, px: int, repeats: int, answer: Connection) -> None:
    """Send a row per pass; in a process of its own."""
    if reused:
        reuse_memory()
    torch.set_num_threads(1)
    rows: dict[str, Row] = {}
    for name, run in passes(batch, px).items():
        run()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        taken = seconds_in_a_row(run, repeats)
        after = resource.getrusage(resource.RUSAGE_SELF)
        faults = (after.ru_minflt - before) / (repeats + 1)
        rows[name] = {"seconds": taken, "faults": faults, "peak_mib": after.ru_maxrss / 1024}
    answer.send(rows)


def in_a_process(reused: bool, options: argparse.Namespace) -> dict[str, Row]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(reused, options.batch, options.px, options.repeats, theirs))
    process.start()
    theirs.close()
    rows: dict[str, Row] = ours.recv()
    process.join()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--px", type=int, default=192, help="side of the images, a multiple of 32")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.batch} images of {options.px} px; {machine()}")
    print("| | memory | CPU s | page faults | peak MiB |\n|---|---|---|---|---|")
    for memory, reused in (("returned", False), ("used again", True)):
        for name, row in in_a_process(reused, options).items():
            print(f"| {name} | {memory} | {row['seconds']:.3f} | {row['faults']:.0f} | {row['peak_mib']:.0f} |")


if __name__ == "__main__":
    main()
