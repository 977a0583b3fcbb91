"""What is said of a tracking store that cannot serve."""

from __future__ import annotations

from maskhand.errors import MaskhandError


class TrackingServerError(MaskhandError, RuntimeError):
    """A tracking server or database that cannot serve; the message says what to do."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable
