"""A reader of the weights in a TensorFlow Lite file (FlatBuffers) that does not need TensorFlow.

Field numbers are those of the published schema (tensorflow/lite/schema/schema.fbs, version 3).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from maskhand.errors import MaskhandError

_DEQUANTIZE = 6
_KINDS: dict[int, Literal["conv", "depthwise", "linear"]] = {3: "conv", 4: "depthwise", 9: "linear"}
"""Builtin operator codes -> layer."""
_FLOATS: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
"""Tensor types -> values."""


class TfliteError(MaskhandError, ValueError):
    """A file that is not a TensorFlow Lite network of float layers; the message names it and says what to do."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer, float32."""

    kind: Literal["conv", "depthwise", "linear"]
    weight: np.ndarray
    """conv (out, height, width, in); depthwise (1, height, width, channels); linear (out, in)."""
    bias: np.ndarray
    """(out,)."""


def read_layers(path: str | Path) -> list[Layer]:
    """The layers with weights, in the execution order of the file's first graph. Raises TfliteError."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise TfliteError(f"{path}: no such file; `maskhand assets --fetch` gets the hand landmark model") from None
    if data[4:8] != b"TFL3":
        raise TfliteError(f"{path}: not a TensorFlow Lite file; delete it and run `maskhand assets --fetch`")
    try:
        return _layers(data)
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise TfliteError(
            f"{path}: a damaged TensorFlow Lite file, or one with other than float layers ({error!r}); delete it and "
            "run `maskhand assets --fetch`"
        ) from None


def _layers(data: bytes) -> list[Layer]:
    model = _Table(data, _u32(data, 0))
    codes = [max(code.number(0, "b"), code.number(3, "i")) for code in model.tables(1)]
    graph, buffers = model.tables(2)[0], model.tables(4)
    tensors = graph.tables(0)

    def values(index: int) -> np.ndarray:
        tensor = tensors[index]
        stored = buffers[tensor.number(2, "I")].bytes(0)
        return np.frombuffer(stored, _FLOATS[tensor.number(1, "b")]).reshape(tensor.ints(0)).astype(np.float32)

    stored_as: dict[int, int] = {}  # half-precision weights are converted by a separate operator
    layers = []
    for operator in graph.tables(3):
        code, inputs = codes[operator.number(0, "I")], operator.ints(1)
        if code == _DEQUANTIZE:
            stored_as[operator.ints(2)[0]] = inputs[0]
        elif code in _KINDS:
            weight, bias = (values(stored_as.get(index, index)) for index in inputs[1:3])
            layers.append(Layer(_KINDS[code], weight, bias))
    return layers


@dataclass(frozen=True)
class _Table:
    """A FlatBuffers table at a byte offset in a file; fields are accessed by number."""

    data: bytes
    place: int

    def number(self, field: int, form: str) -> int:
        """A scalar field; form: its format character in `struct`. 0 if the field is absent."""
        at = self._field(field)
        return 0 if at is None else struct.unpack_from("<" + form, self.data, at)[0]

    def ints(self, field: int) -> list[int]:
        start, count = self._vector(field)
        return list(struct.unpack_from(f"<{count}i", self.data, start))

    def bytes(self, field: int) -> memoryview:
        start, count = self._vector(field)
        return memoryview(self.data)[start : start + count]

    def tables(self, field: int) -> list[_Table]:
        start, count = self._vector(field)
        places = range(start, start + 4 * count, 4)
        return [_Table(self.data, at + _u32(self.data, at)) for at in places]

    def _field(self, number: int) -> int | None:
        directory = self.place - struct.unpack_from("<i", self.data, self.place)[0]
        entry = 4 + 2 * number
        if entry >= struct.unpack_from("<H", self.data, directory)[0]:
            return None
        offset = struct.unpack_from("<H", self.data, directory + entry)[0]
        return self.place + offset if offset else None

    def _vector(self, field: int) -> tuple[int, int]:
        """Offset of a vector's first entry, and the number of entries."""
        at = self._field(field)
        if at is None:
            return 0, 0
        start = at + _u32(self.data, at)
        return start + 4, _u32(self.data, start)


def _u32(data: bytes, at: int) -> int:
    return struct.unpack_from("<I", data, at)[0]
