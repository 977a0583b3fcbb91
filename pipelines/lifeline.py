"""Child processes that end with their parent process, even if it is killed."""

from __future__ import annotations

import atexit
import signal
import subprocess


def end_with_us(process: int, with_signal: signal.Signals) -> None:
    """Make sure that a process receives `with_signal` if this process is killed and cannot end it.

    A shell reads from a pipe to this process: on a regular exit it gets a line; if the pipe closes without one, it
    sends the signal.
    """
    watch = 'read -r ended || kill -"$1" "$0"'
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", watch, str(process), str(with_signal.value)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C should only reach us
    )
    atexit.register(watcher.communicate, b"ended\n")
