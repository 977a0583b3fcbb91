"""Fixtures that several suites share; and what must be settled before any test imports torch or Prefect."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

_PREFECT_HOME = tempfile.TemporaryDirectory(prefix="maskhand-prefect-")
os.environ.pop("PREFECT_API_URL", None)
os.environ |= {
    "OMP_NUM_THREADS": "1",  # the tensors of tests are small: a second thread only waits, and long on a busy machine
    "PREFECT_HOME": _PREFECT_HOME.name,
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
}


PROCESSES = ("flows", "integration")
"""Suites whose tests start Ray, Prefect and other servers, and take longest."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """They come first, so that no process is left with one of them when the others have ended."""
    root = config.rootpath / "tests"
    items.sort(key=lambda item: item.path.relative_to(root).parts[0] not in PROCESSES)


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder with the hand models of the embedded detector; fetched by package name once per checkout."""
    from maskhand.fetched_models import hand_models
    from maskhand.workspace import Workspace

    folder = Workspace.at().assets
    hand_models(folder)
    return folder
