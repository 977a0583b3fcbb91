"""Reader of untrusted pickles: an unpickler that knows numpy arrays and plain values and nothing else.

A pickle can name any function and have it called. Datasets of the Python 2 years (HO-3D, RHD, MTC) and MANO itself are
published as pickles all the same, so they are read here: every global that is not part of an array is refused before
anything is called. Python 2's strings are decoded as latin-1, the one codec that keeps their bytes, in which its arrays
are stored.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections import OrderedDict
from typing import Any, ClassVar

import numpy as np

from maskhand.errors import MaskhandError


class UnsafePickleError(MaskhandError, ValueError):
    """A pickle that names something other than arrays. Nothing of it was executed."""


class UnreadablePickleError(MaskhandError, ValueError):
    """Not a pickle, or one that was cut or damaged."""


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """The function with which Python 3 writes bytes into old pickle protocols; no other codec is needed."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected codec {encoding!r}")
    return text.encode("latin1")


def _array_globals() -> dict[tuple[str, str], Any]:
    """Every global that may be named, under its old and new module paths."""
    multiarray = np._core.multiarray  # type: ignore[attr-defined]
    numeric = np._core.numeric  # type: ignore[attr-defined]
    allowed: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    for core in ("numpy.core", "numpy._core"):
        allowed[f"{core}.multiarray", "_reconstruct"] = multiarray._reconstruct
        allowed[f"{core}.multiarray", "scalar"] = multiarray.scalar
        allowed[f"{core}.numeric", "_frombuffer"] = numeric._frombuffer
    for module in ("copy_reg", "copyreg"):
        allowed[module, "_reconstructor"] = copyreg._reconstructor  # type: ignore[attr-defined]
    for module in ("__builtin__", "builtins"):
        allowed[module, "object"] = object
        allowed[module, "set"] = set
    allowed["_codecs", "encode"] = _encode_latin1
    allowed["collections", "OrderedDict"] = OrderedDict
    return allowed


class ArrayUnpickler(pickle.Unpickler):
    """Reads numpy arrays, numbers, text and containers; refuses any other global with UnsafePickleError."""

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = _array_globals()
    CONTENT: ClassVar[str] = "numpy arrays and plain values"
    """What such a file may contain, for the error message."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.ALLOWED:
            return self.ALLOWED[module, name]
        raise UnsafePickleError(
            f"{self._name}: refused, the pickle asks for {module}.{name}; such a file may contain only {self.CONTENT}. "
            "Nothing was executed; get the file from its official source"
        )

    def persistent_load(self, _place: Any) -> Any:
        raise UnreadablePickleError(f"{self._name}: the pickle is a part of a larger file, such as torch writes")


def read_array_pickle(data: bytes, name: str, unpickler: type[ArrayUnpickler] = ArrayUnpickler) -> Any:
    """The value of a pickle; `name` is the file in error sentences.

    Raises UnsafePickleError for any global that is not part of an array, UnreadablePickleError for anything else.
    """
    try:
        return unpickler(data, name).load()
    except (UnsafePickleError, UnreadablePickleError):
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = " ".join(str(error).split())
        raise UnreadablePickleError(f"{name}: not a readable pickle ({type(error).__name__}: {reason})") from None
