"""Ctrl-C, SIGTERM and a closed terminal: the command ends as after an error, and says that it can be repeated."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SENTENCES = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "ended, as its terminal was closed",
}
_GOES_ON = "the same command goes on from the last checkpoint or shard that was finished"
_AGAIN_S = 0.1
PATIENCE_S = 30.0
"""So long the clean-up after a signal is not interrupted by another one."""
_OF_A_SIGNAL = 128
"""What a shell adds to a signal's number for an exit code."""


class _Ending:
    """The first signal that this process was ended by, and when it may be repeated."""

    number: int | None = None
    until_s: float = 0.0


def is_first(number: int) -> bool:
    """Called by a handler: whether to end the program. A further signal would interrupt the clean-up of the first, and
    is ignored for `PATIENCE_S`."""
    if is_ending():
        return False
    _Ending.number = _Ending.number or number
    _Ending.until_s = time.monotonic() + PATIENCE_S
    return True


def is_ending() -> bool:
    """Whether the program cleans up after a signal."""
    return _Ending.number is not None and time.monotonic() < _Ending.until_s


def received() -> int | None:
    """The signal that ends the program; None where there was none."""
    return _Ending.number


def only_first(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], Any]:
    """A handler that a further signal does not reach while the program cleans up."""

    def guarded(number: int, frame: FrameType | None) -> None:
        if is_first(number):
            handler(number, frame)

    return guarded


@contextmanager
def by_exceptions() -> Iterator[None]:
    """A block that SIGTERM and SIGHUP end by SystemExit, so that Ray, servers and tracked runs are ended, too; raises
    SystemExit with a shell's exit code after printing the sentence of the signal, as for Ctrl-C.

    A signal that somebody has set to be ignored, as nohup does, stays so. Further signals change nothing, until the
    process has ended.
    """
    is_main = threading.current_thread() is threading.main_thread()
    was_lost = sys.unraisablehook

    def send_again(lost: sys.UnraisableHookArgs) -> None:
        """An exception that came within a destructor or a callback, of an import for example, ends there."""
        if _Ending.number is None or not isinstance(lost.exc_value, SystemExit | KeyboardInterrupt):
            was_lost(lost)
            return
        _Ending.until_s = 0.0
        again = threading.Timer(_AGAIN_S, os.kill, [os.getpid(), _Ending.number])
        again.daemon = True
        again.start()

    usual = (signal.SIG_DFL, signal.default_int_handler)
    taken = {one: found for one in SENTENCES if is_main and (found := signal.getsignal(one)) in usual}
    for number in taken:
        signal.signal(number, only_first(signal.default_int_handler if number == signal.SIGINT else _exit))
    sys.unraisablehook = send_again
    _Ending.number = None
    atexit.register(_ignore_further)  # the first to be registered is the last to be called
    try:
        yield
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt) or (
            isinstance(error, SystemExit) and error.code == _OF_A_SIGNAL + signal.SIGINT
        )
        if _Ending.number is None and interrupted:  # by a handler of somebody else's
            is_first(signal.SIGINT)
        succeeded = isinstance(error, SystemExit) and not error.code  # such as a server, whose end is a signal
        if _Ending.number is None or succeeded:
            raise
        _tell(_Ending.number)
        raise SystemExit(_OF_A_SIGNAL + _Ending.number) from None
    finally:
        sys.unraisablehook = was_lost
        for number, before in taken.items():
            signal.signal(number, before if _Ending.number is None else only_first(_end_at_once))


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(_OF_A_SIGNAL + number)


def _ignore_further() -> None:
    """Python gives its handlers up at the end, but not this."""
    for number in SENTENCES if _Ending.number is not None else ():
        signal.signal(number, signal.SIG_IGN)


def _end_at_once(_number: int, _frame: FrameType | None) -> None:
    """When what is left to do at the exit takes too long."""
    os._exit(_OF_A_SIGNAL + (_Ending.number or 0))


def _tell(number: int) -> None:
    try:
        print(f"{SENTENCES[signal.Signals(number)]}; {_GOES_ON}", file=sys.stderr, flush=True)
    except OSError:  # the terminal is gone, and Python's own flush at the end would fail, too
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
