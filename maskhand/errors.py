"""The base of every error that this package raises on purpose."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(?P<before>\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@:\[]*:)(?!\d+[/?#\s])\S+(?=@)")
_SECRET_QUERY = re.compile(r"(?P<before>[?&](?:password|passwd|pwd|token|secret|sslpassword)=)[^\s&#]+", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """The text with the passwords of all addresses in it replaced by `***`: `https://user:***@host`."""
    return _SECRET_QUERY.sub(r"\g<before>***", _PASSWORD.sub(r"\g<before>***", text))


class MaskhandError(Exception):
    """An error whose message is a sentence for people: what is wrong, where, and what to do.

    Passwords in the addresses that it names are not shown. Subclasses also derive from the built-in error that says
    what kind they are (ValueError, RuntimeError, OSError).
    """

    retryable: bool = False
    """May the same call succeed later by itself, as after a lost worker or a broken connection?"""

    def __init__(self, *args: object) -> None:
        super().__init__(*(without_passwords(arg) if isinstance(arg, str) else arg for arg in args))
