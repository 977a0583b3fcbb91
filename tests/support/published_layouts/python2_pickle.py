"""Pickles as Python 2 wrote them: protocol 2, `str` and array buffers as raw bytes, numpy under its old names."""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any, ClassVar

_PurePython: Any = pickle._Pickler  # type: ignore[attr-defined]


class _Python2Pickler(_PurePython):
    dispatch: ClassVar[dict] = dict(_PurePython.dispatch)

    def save_text(self, text: str) -> None:
        self._save_raw(text.encode("latin1"))

    def _save_raw(self, raw: bytes) -> None:
        if len(raw) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(raw)]) + raw)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)

    def save_global(self, value: Any, name: str | None = None) -> None:
        module, qualified = value.__module__, name or value.__qualname__
        old = {"numpy._core.multiarray": "numpy.core.multiarray", "builtins": "__builtin__"}
        self.write(pickle.GLOBAL + f"{old.get(module, module)}\n{qualified}\n".encode())

    dispatch[str] = save_text
    dispatch[bytes] = _save_raw
    dispatch[type] = save_global
    dispatch[type(len)] = save_global
    dispatch[type(lambda: None)] = save_global


def dumps(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2, fix_imports=False).dump(value)
    return buffer.getvalue()
