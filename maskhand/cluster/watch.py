"""The loss of the Ray session, seen within seconds: without its GCS, Ray ends the program after a minute, with lines
for developers of Ray and without clean-up."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

LOST = signal.SIGURG
"""Sent to the main thread when the session is lost: only a handler's SystemExit interrupts Ray's waits. Ignored where
nobody handles it."""

_LOOK_S, _LOOK_AT_HEAD_S = 0.5, 5.0
_HEAD_AWAY_S = 45.0
"""Ray ends a program 60 s after it lost the head of its cluster; one that is started again may come back until then."""
_PARTS = {"raylet": "raylet", "gcs_server": "GCS"}
"""Ray's names of the processes without which a session is of no use -> words for them."""


class SessionWatch:
    """Looks at the session that this process has started or joined."""

    def __init__(self) -> None:
        from ray._private import worker

        self._node: Any = worker._global_node
        self._answered_s = time.monotonic()

    def lost_part(self) -> str:
        """Words for what has ended by itself; "" while all is there, and after `ray.shutdown`."""
        if self._node.is_head():  # of a private session: the processes are ours
            ended = [kind for kind, _ in self._node.dead_processes() if kind in _PARTS]
            return f"the {_PARTS[ended[0]]} of this command's Ray session" if ended else ""
        is_away = time.monotonic() - self._answered_s > _HEAD_AWAY_S
        return f"the head of the Ray cluster at {self._node.gcs_address}" if is_away else ""

    def run(self, done: threading.Event) -> None:
        """Tell the main thread, once, unless `done` comes first."""
        while not done.wait(_LOOK_S if self._node.is_head() else _LOOK_AT_HEAD_S):
            if not self._node.is_head() and _accepts(self._node.gcs_address):
                self._answered_s = time.monotonic()
            if self.lost_part():
                signal.pthread_kill(threading.main_thread().ident or 0, LOST)
                return


_watch: SessionWatch | None = None
"""Of this process's session."""


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """A context in which the main thread gets LOST when the session is lost."""
    global _watch
    before, _watch = _watch, SessionWatch()
    done = threading.Event()
    threading.Thread(target=_watch.run, args=[done], name="ray-session-watch", daemon=True).start()
    try:
        yield
    finally:
        done.set()
        _watch = before


def lost_part() -> str:
    """Words for a part of the session that has ended by itself; "" where all is there, or nothing is watched."""
    return "" if _watch is None else _watch.lost_part()


def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LOOK_AT_HEAD_S).close()
    except OSError:
        return False
    return True
