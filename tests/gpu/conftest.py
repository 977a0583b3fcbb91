"""The device of these tests. `pytest -m gpu` runs them where there is a GPU; elsewhere they are skipped.

`MASKHAND_TEST_DEVICE=cpu` runs them on the CPU instead, which shows that the tests themselves work.
"""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    device = os.environ.get("MASKHAND_TEST_DEVICE", "cuda")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device(device)


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """For what only a GPU can show."""
    if device.type != "cuda":
        pytest.skip("needs a CUDA device")
    return device
