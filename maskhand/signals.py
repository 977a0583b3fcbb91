"""Ctrl-C, SIGTERM and a closed terminal: the command ends as after an error, and says that it can be repeated."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SENTENCES = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "ended, as its terminal was closed",
}
_GOES_ON = "the same command goes on from the last checkpoint or shard that was finished"
_AGAIN_S = 0.1
_OF_A_SIGNAL = 128
"""What a shell adds to a signal's number for an exit code."""


@contextmanager
def by_exceptions() -> Iterator[None]:
    """A block that SIGTERM and SIGHUP end by SystemExit, so that Ray, servers and tracked runs are ended, too; raises
    SystemExit with a shell's exit code after printing the sentence of the signal, as for Ctrl-C.

    A signal that somebody has set to be ignored, as nohup does, stays so.
    """
    received: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        sys.exit(_OF_A_SIGNAL + number)

    is_main = threading.current_thread() is threading.main_thread()
    was_lost = sys.unraisablehook

    def send_again(lost: sys.UnraisableHookArgs) -> None:
        """An exception that came within a destructor or a callback, of an import for example, ends there."""
        is_end = received and isinstance(lost.exc_value, SystemExit)
        if not is_end and not isinstance(lost.exc_value, KeyboardInterrupt):
            was_lost(lost)
            return
        number = received[-1] if is_end else signal.SIGINT
        again = threading.Timer(_AGAIN_S, os.kill, [os.getpid(), number])
        again.daemon = True
        again.start()

    taken = [one for one in (signal.SIGTERM, signal.SIGHUP) if is_main and signal.getsignal(one) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    sys.unraisablehook = send_again
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) or error.code == _OF_A_SIGNAL + signal.SIGINT:
            received.append(signal.SIGINT)
        if not received:
            raise
        if is_main:  # a further Ctrl-C ends what is left to do at the exit, without a traceback
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        _tell(received[0])
        raise SystemExit(_OF_A_SIGNAL + received[0]) from None
    finally:
        sys.unraisablehook = was_lost
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _tell(number: int) -> None:
    try:
        print(f"{SENTENCES[signal.Signals(number)]}; {_GOES_ON}", file=sys.stderr, flush=True)
    except OSError:  # the terminal is gone, and Python's own flush at the end would fail, too
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
