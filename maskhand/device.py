"""The accelerator of this process. A Ray task that asks for a GPU sees its own; one that does not may see them all."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def accelerator() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def gpu_count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"


@contextmanager
def one_thread() -> Iterator[None]:
    """A block in which torch computes on one thread: sums over several are rounded differently from sums over one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
