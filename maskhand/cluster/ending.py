"""What ends a block on Ray early: SIGTERM, and the loss of the session."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from maskhand import signals
from maskhand.cluster.watch import LOST, lost_part
from maskhand.errors import MaskhandError

Handler = Callable[[int, FrameType | None], Any] | int | None
"""The return type of `signal.getsignal`."""


class LostSessionError(MaskhandError, RuntimeError):
    """A part of the Ray session has ended; another session can go on with the work."""

    retryable = True


@contextlib.contextmanager
def ended_early(handler: Handler) -> Iterator[None]:
    """A context that SIGTERM ends with the exception of `handler` (the one before Ray's, such as Prefect's), else
    SystemExit; and the loss of the session with LostSessionError, after what is left of it is ended.

    Ray's native handler of SIGTERM would end the process at once, without cleanup; and only SystemExit and
    KeyboardInterrupt can interrupt Ray's waits.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    lost = ""

    def end(number: int, _frame: FrameType | None) -> None:
        if signals.is_first(number):
            sys.exit(128 + number)

    def lose(_number: int, _frame: FrameType | None) -> None:
        nonlocal lost
        lost = "" if signals.is_ending() else lost_part()
        if lost:
            sys.exit(1)

    signal.signal(signal.SIGTERM, end)
    before = signal.signal(LOST, lose)
    try:
        yield
    except SystemExit:
        if signals.received() == signal.SIGTERM:
            end_with(handler)
        if not lost:
            raise
        _tell_loss(lost)
    except Exception as error:
        if signals.is_ending() or not (part := lost or lost_part()):
            raise
        _tell_loss(part, error)  # Ray was faster, with words of its own
    finally:
        guarded = signals.only_first(handler) if callable(handler) and signals.is_ending() else handler
        signal.signal(signal.SIGTERM, guarded)
        signal.signal(LOST, before)


def end_with(handler: Handler) -> NoReturn:
    """Raise the exception of a handler of SIGTERM, else SystemExit with the code of a shell: Ray's is another."""
    if callable(handler):
        handler(signal.SIGTERM, None)
    sys.exit(128 + signal.SIGTERM)


def shut_down() -> None:
    """End the session. SIGTERM keeps its handler, in whose place Ray leaves the system's default and then waits for its
    processes."""
    import ray
    from ray._private import worker

    node: Any = worker._global_node
    if node is not None and threading.current_thread() is threading.main_thread():
        end_processes = node.kill_all_processes

        def with_handler(*arguments: Any, **options: Any) -> None:
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
            end_processes(*arguments, **options)

        node.kill_all_processes = with_handler
    ray.shutdown()


def _tell_loss(part: str, cause: Exception | None = None) -> NoReturn:
    shut_down()
    raise LostSessionError(
        f"{part} has ended, killed or out of memory; the same command goes on from the last checkpoint or shard that "
        "was finished"
    ) from cause
