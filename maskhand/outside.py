"""Objects of other packages, which a card or an option names as `package.module:NAME`."""

from __future__ import annotations

import importlib
from typing import Any

from maskhand.errors import MaskhandError


class OutsideError(MaskhandError, ValueError):
    """An object that is not there. The message is the reason alone; whoever was given the name adds it."""


def load_outside(name: str) -> Any:
    """The object that `package.module:NAME` names. Raises OutsideError, whatever goes wrong in that package."""
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise OutsideError(f"{error}; is its folder on PYTHONPATH, or its package installed?") from None
    except Exception as error:  # a module runs as it is imported, and may do anything
        reason = " ".join(str(error).split())
        raise OutsideError(f"importing {module!r} ended in {type(error).__name__}: {reason}") from error
    try:
        return getattr(found, attribute)
    except AttributeError:
        raise OutsideError(f"{module} has no {attribute}") from None
