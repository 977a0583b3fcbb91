"""Fixtures that several suites share; and Prefect's home, settled before any test imports it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

_PREFECT_HOME = tempfile.TemporaryDirectory(prefix="maskhand-prefect-")
os.environ.pop("PREFECT_API_URL", None)
os.environ |= {
    "PREFECT_HOME": _PREFECT_HOME.name,
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
}


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder with the hand models of the embedded detector; fetched by package name once per checkout."""
    from maskhand.assets import hand_models
    from maskhand.workspace import Workspace

    folder = Workspace.default().assets
    hand_models(folder)
    return folder
