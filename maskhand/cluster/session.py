"""The Ray session: a local one, or the cluster at `RAY_ADDRESS`."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

LOCAL_CPUS = max(os.cpu_count() or 1, 4)
"""Logical CPUs of a local session. Ray counts but does not pin them; with only two, two training workers and a
data task would deadlock."""

Handler = Callable[[int, FrameType | None], Any] | int | None
"""The return type of `signal.getsignal`."""

_OBJECT_STORE_BYTES = 512 * 1024**2


def ensure_ray() -> bool:
    """Connect this process to Ray unless it is connected; True when this call started or joined a session.

    With `RAY_ADDRESS` set it joins that cluster. Otherwise it starts a small private session on the loopback interface,
    without dashboard or usage statistics.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return False
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING)
        return True
    ray.init(
        num_cpus=LOCAL_CPUS,
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _node_ip_address="127.0.0.2",  # Ray ignores 127.0.0.1 and would bind to an outside interface
    )
    return True


@contextlib.contextmanager
def ray_session() -> Iterator[None]:
    """A context with a Ray session; an existing one is used and left running. SIGTERM ends the block."""
    handler = signal.getsignal(signal.SIGTERM)
    started = ensure_ray()
    try:
        with _ended_by_sigterm(handler):
            yield
    finally:
        if started:
            import ray

            ray.shutdown()


@contextlib.contextmanager
def _ended_by_sigterm(handler: Handler) -> Iterator[None]:
    """A context that SIGTERM leaves with the exception of `handler`, the one before Ray's (Prefect's), else SystemExit.

    Ray's own native handler would end the process at once, without cleanup; and Ray's waits let only SystemExit and
    KeyboardInterrupt through.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = False

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received = True
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    except SystemExit:
        if not received:
            raise
        if callable(handler):
            handler(signal.SIGTERM, None)
        sys.exit(128 + signal.SIGTERM)  # Ray may have changed the code on the way
    finally:
        signal.signal(signal.SIGTERM, handler)
