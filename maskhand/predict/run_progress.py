"""The progress of a prediction run: pictures, hands, and the time that is left."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from maskhand.progress import Progress


@dataclass
class RunProgress:
    """Reports the finished pictures of a run, its hands, and the time that is left."""

    total: int
    before: int
    """Number of pictures that were already done at the start."""
    hands: int
    progress: Progress

    def __post_init__(self) -> None:
        self.begun = time.monotonic()
        self.done = self.before
        self.phase_begun, self.phase_from, self.last = self.begun, 0.0, math.inf
        self.progress(self.before, self.total, _so_far(self.hands, 0.0, 0))

    def __call__(self, done: int) -> None:
        """Report the number of finished pictures."""
        self.done = done
        left = max(self.total - done, 0)
        passed_s = time.monotonic() - self.begun
        self.progress(
            min(done, self.total), self.total,
            _so_far(self.hands, passed_s / max(done - self.before, 1) * left, left),
        )  # fmt: skip

    def within(self, done: float, total: float, text: str = "") -> None:
        """Report the progress within a film, which has two phases: tracking its hands, then drawing them."""
        now = time.monotonic()
        if done <= self.last:
            self.phase_begun, self.phase_from = now, done
        self.last, since = done, done - self.phase_from
        left = _left((now - self.phase_begun) / since * (total - done)) if since > 0 and done < total else ""
        self.progress(min(self.done + done, self.total), self.total, text + (left and f"{left} of this film"))


def _so_far(hands: int, left_s: float, left: int) -> str:
    return f"{hands} hands" + (_left(left_s) if left else "")


def _left(seconds: float) -> str:
    return f", {round(seconds) // 60}:{round(seconds) % 60:02d} left"
