"""The base of every error that this package raises on purpose."""

from __future__ import annotations


class MaskhandError(Exception):
    """An error whose message is a sentence for people: what is wrong, where, and what to do.

    Subclasses also derive from the built-in error that says what kind they are (ValueError, RuntimeError, OSError).
    """

    retryable: bool = False
    """May the same call succeed later by itself, as after a lost worker or a broken connection?"""
