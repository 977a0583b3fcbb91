"""Processes that end with the one that started them, however that ends."""

from __future__ import annotations

import atexit
import signal
import subprocess


def end_with_us(process: int, with_signal: signal.Signals) -> None:
    """Have a process end when this one is killed, when nobody is left to end it.

    A shell holds the other end of a pipe: it closes with us, and says so when we end as we should.
    """
    watch = 'read -r ended || kill -"$1" "$0"'
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", watch, str(process), str(with_signal.value)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us
    )
    atexit.register(watcher.communicate, b"ended\n")
