"""Fixtures that several suites share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder with the hand models of the embedded detector; fetched by package name once per checkout."""
    from maskhand.assets import hand_models
    from maskhand.workspace import Workspace

    folder = Workspace.default().assets
    hand_models(folder)
    return folder
