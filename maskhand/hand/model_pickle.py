"""The unpickler of hand models in MANO's format: arrays, scipy's sparse matrices and chumpy values, without chumpy.

MANO_RIGHT.pkl was written by Python 2 with chumpy expressions inside (`shapedirs` is a `chumpy.reordering.Select` over
a `chumpy.ch.Ch`). chumpy no longer installs; its values are read as their attributes. Every other global is refused
before anything is called (`maskhand.hand.array_pickle`).
"""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import numpy as np
import scipy.sparse

from maskhand.arrays import Array
from maskhand.hand.array_pickle import ArrayUnpickler


class _PickledRecord:
    """The attributes of an instance of a foreign class, and nothing else of it."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"expected a dictionary of attributes, found {type(state).__name__}")
        self.__dict__.update(state)


class _ChumpyValue(_PickledRecord):
    """A `chumpy.ch.Ch` (its array is `x`) or another node whose result was kept as `r`."""

    def value(self) -> Any:
        for name in ("x", "r"):
            if name in self.__dict__:
                return plain(self.__dict__[name])
        raise ValueError("a chumpy expression without a stored array; load and re-save it as numpy arrays once")


class _ChumpySelect(_ChumpyValue):
    """`chumpy.reordering.Select`: entries `idxs` of the flattened `a`, in shape `preferred_shape`."""

    def value(self) -> Any:
        state = self.__dict__
        if "a" not in state or "idxs" not in state:
            return super().value()
        chosen = np.asarray(plain(state["a"])).ravel()[np.asarray(plain(state["idxs"]))]
        shape = state.get("preferred_shape")
        return chosen if shape is None else chosen.reshape(shape)


class _SparseMatrix(_PickledRecord):
    """A scipy sparse matrix of any scipy version, rebuilt from its three arrays."""

    rebuild: Any = None

    def value(self) -> Array:
        state = self.__dict__
        shape = state.get("_shape", state.get("shape"))
        return self.rebuild((state["data"], state["indices"], state["indptr"]), shape=shape).toarray()


class _CscMatrix(_SparseMatrix):
    rebuild = staticmethod(scipy.sparse.csc_matrix)


class _CsrMatrix(_SparseMatrix):
    rebuild = staticmethod(scipy.sparse.csr_matrix)


def _sparse_globals() -> dict[tuple[str, str], Any]:
    return {
        (f"{prefix}{kind}", f"{kind}_{suffix}"): record
        for prefix in ("scipy.sparse.", "scipy.sparse._")
        for kind, record in (("csc", _CscMatrix), ("csr", _CsrMatrix))
        for suffix in ("matrix", "array")
    }


class ModelUnpickler(ArrayUnpickler):
    """Also reads sparse matrices and chumpy values."""

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = ArrayUnpickler.ALLOWED | _sparse_globals()
    CONTENT: ClassVar[str] = "numpy arrays, scipy sparse matrices and chumpy values"

    def find_class(self, module: str, name: str) -> Any:
        if module == "chumpy" or module.startswith("chumpy."):
            return _ChumpySelect if name == "Select" else _ChumpyValue
        return super().find_class(module, name)


def plain(value: Any) -> Any:
    """The array of a sparse matrix or a chumpy value; other values as they are."""
    return value.value() if isinstance(value, _ChumpyValue | _SparseMatrix) else value
