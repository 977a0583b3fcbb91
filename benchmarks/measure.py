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


def times_s(candidates: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of every run of each candidate, one at a time: the latency that a single caller waits.

    On one thread those of the process (other programs do not count); with several those of the clock, since threads
    that wait for each other spin: the machine must be idle. So on a GPU, idle before a run and waited for after it.
    """
    cuda = torch.cuda.is_available()
    clock = time.perf_counter if cuda or torch.get_num_threads() > 1 else time.process_time
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warmup + repeats):
        for name, run in candidates.items():
            if cuda:
                torch.cuda.synchronize()
            start = clock()
            run()
            if cuda:
                torch.cuda.synchronize()
            if turn >= warmup:
                taken[name].append(clock() - start)
    return taken


def seconds(candidates: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 1) -> dict[str, float]:
    """The medians of `times_s`."""
    return {name: statistics.median(times) for name, times in times_s(candidates, repeats, warmup).items()}


def p95(times: list[float]) -> float:
    """The time that 95 % of the runs do not exceed (the slowest of fewer than 20)."""
    return sorted(times)[max(0, -(-95 * len(times) // 100) - 1)]


def seconds_in_a_row(run: Callable[[], object], repeats: int, warmup: int = 1) -> float:
    """Mean seconds of `run` when runs follow each other, as training steps do.

    On a GPU the device's own clock: nothing is waited for between the first run and the last, so the host may work
    ahead as far as the program lets it.
    """
    for _ in range(warmup):
        run()
    if not torch.cuda.is_available():
        start = time.process_time()
        for _ in range(repeats):
            run()
        return (time.process_time() - start) / repeats
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    for _ in range(repeats):
        run()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1e3 / repeats
