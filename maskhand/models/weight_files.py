"""Reading of torch weight files: only tensors and plain values are unpickled, and every failure has a clear message."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from maskhand.errors import MaskhandError

_LIGHTNING_SETTINGS: list[Any] = [(OrderedDict, "yacs.config.CfgNode")]
"""HaMeR's file also contains a yacs configuration, which is read as a plain dictionary."""


class WeightFileError(MaskhandError, ValueError):
    """A file that cannot be read as weights. The message is only the reason; the caller adds the file's name."""


def load_weights(path: str | Path) -> Any:
    """The content of a file written by `torch.save`, on the CPU; code in it is never run.

    Raises WeightFileError, and the system's OSError.
    """
    try:
        with torch.serialization.safe_globals(_LIGHTNING_SETTINGS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {foreign[1]}" if foreign else f"{type(error).__name__} while reading it"
        raise WeightFileError(f"not a file of weights alone ({reason})") from None


def load_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """`load_weights` of a file that must contain only named tensors, of finite numbers."""
    stored = load_weights(path)
    if not isinstance(stored, dict) or not all(
        isinstance(name, str) and isinstance(weight, torch.Tensor) for name, weight in stored.items()
    ):
        raise WeightFileError(f"expected named tensors, found a {type(stored).__name__} with something else in it")
    if broken := [name for name, weight in stored.items() if not torch.isfinite(weight).all()]:
        raise WeightFileError(
            f"{len(broken)} of {len(stored)} weights hold NaN or infinity ({abbreviate(broken)}; did its training "
            "diverge?)"
        )
    return stored


def misfit(wanted: Mapping[str, torch.Tensor], stored: Mapping[str, torch.Tensor]) -> str:
    """How the stored weights differ from the wanted ones in names and shapes, for a message; "" if they do not."""
    shapes = [
        f"{name} {tuple(stored[name].shape)} instead of {tuple(weight.shape)}"
        for name, weight in wanted.items()
        if name in stored and stored[name].shape != weight.shape
    ]
    problems = (
        ("missing", sorted(wanted.keys() - stored.keys())),
        ("unexpected", sorted(stored.keys() - wanted.keys())),
        ("of another shape", shapes),
    )
    return "; ".join(f"{len(names)} {what}: {abbreviate(names)}" for what, names in problems if names)


def abbreviate(keys: list[str]) -> str:
    """The first three keys, for a message."""
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
