"""What a module tells people by `logging`, whatever the libraries of a long test run have done to loggers."""

from __future__ import annotations

import logging

import pytest


def warnings_of(module: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings of a module's logger from now on, as they come."""
    told: list[str] = []
    monkeypatch.setattr(logging.getLogger(module), "warning", told.append)
    return told
