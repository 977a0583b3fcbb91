"""Timing for the benchmarks: candidates take turns in one process, so that a busy machine slows all of them alike."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping

import torch


def machine() -> str:
    """What the figures were measured on, for the head of a report."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def seconds(candidates: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 1) -> dict[str, float]:
    """Median seconds of each candidate: on the CPU those of the process (other programs do not count), else of the
    clock with the device waited for."""
    cuda = torch.cuda.is_available()
    clock = time.perf_counter if cuda else time.process_time
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warmup + repeats):
        for name, run in candidates.items():
            start = clock()
            run()
            if cuda:
                torch.cuda.synchronize()
            if turn >= warmup:
                taken[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in taken.items()}
