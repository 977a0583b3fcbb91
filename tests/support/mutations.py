"""Small damages of files, drawn from a seed: what disks, tools of other makes and people do to labels and models."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

DEEP = 100_000
"""Levels of nesting, more than any parser follows."""


def junk(rng: random.Random) -> Any:
    """A value that no label has."""
    return rng.choice(
        [
            None, True, -1, 10**400, 2**63, 0.5, float("nan"), float("inf"), "", "word", "1", "\ud800", "a\0b",
            [], [[]], [1, [2, 3]], {}, {"a": {"b": [None]}}, [None] * 21, "x" * 5000, [[0.0] * 3] * 20, ["a", "b"],
        ]
    )  # fmt: skip


def with_junk(value: Any, rng: random.Random) -> Any:
    """A copy of nested lists and dictionaries in which one node has become junk, is gone, or is there twice."""
    value = copy.deepcopy(value)
    nodes = list(_places(value, limit=4000))
    if not nodes:
        return junk(rng)
    # Shallow nodes are few among thousands of numbers, and most of the structure.
    depth = rng.choice(sorted({len(path) for path in nodes}))
    *parents, last = rng.choice([path for path in nodes if len(path) == depth])
    owner = value
    for name in parents:
        owner = owner[name]
    action = rng.choice(["junk", "junk", "junk", "gone", "twice"])
    if action == "gone":
        del owner[last]
    elif action == "twice" and isinstance(owner, list):
        owner.insert(last, copy.deepcopy(owner[last]))
    else:
        owner[last] = junk(rng)
    return value


def _places(value: Any, limit: int, path: tuple = ()) -> Iterator[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in list(items)[:50]:
        yield (*path, name)
        if len(path) < 7:
            yield from _places(inner, limit, (*path, name))


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))] if data else b""


def _flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 5, 50])):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _other(data: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        [
            b"", b"<html>not found</html>", b"\xef\xbb\xbf" + data, b"\xff\xfe" + data, b"[" * DEEP, b'{"a":' * DEEP,
            b"9" * 5000, b"a: &a [x]\nb: " + b"[" * DEEP, data + data, pickle.dumps(list(range(9))), b"\0" * 500,
            b"null", b"[1e999]", b'"\\ud800"', bomb(1 << 33), npz_with_header((10**12,)),
        ]
    )  # fmt: skip


def bomb(size: int) -> bytes:
    """A small npz whose array states that it takes `size` bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, joint_3d=np.zeros(1000), pose_m=np.zeros(1000))
    data = bytearray(buffer.getvalue())
    place = data.find(b"PK\1\2")
    data[place + 24 : place + 28] = struct.pack("<I", min(size, 2**32 - 2))
    return bytes(data)


def npz_with_header(shape: tuple[int, ...], names: tuple[str, ...] = ("joint_3d", "imgname")) -> bytes:
    """An npz whose arrays have a header of this shape and nothing behind it."""
    buffer, header = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(f"{name}.npy", header.getvalue())
    return buffer.getvalue()


def _structure(data: bytes, rng: random.Random) -> bytes:
    """The same kind of file with junk somewhere in it; other bytes where its kind is not known."""
    try:
        return json.dumps(with_junk(json.loads(data), rng)).encode()
    except (ValueError, RecursionError):
        pass
    try:
        return pickle.dumps(with_junk(pickle.loads(data, encoding="latin1"), rng), protocol=2)
    except Exception:  # not a pickle of plain values
        pass
    try:
        with np.load(io.BytesIO(data)) as file:
            arrays: dict[str, Any] = with_junk({name: file[name] for name in file.files}, rng)
        buffer = io.BytesIO()
        np.savez(buffer, **{k: np.asarray(v, dtype=object if isinstance(v, list) else None) for k, v in arrays.items()})
        return buffer.getvalue()
    except Exception:
        return _flipped(data, rng)


def damage(path: Path, rng: random.Random) -> str:
    """Change a file in one of many ways; returns which. The old one must be kept by the caller."""
    whole = path.read_bytes()
    kind = rng.choice(["structure"] * 6 + ["cut", "flipped", "other", "other", "other", "place"])
    if kind != "place":
        change: dict[str, Callable[[bytes, random.Random], bytes]] = {
            "structure": _structure, "cut": _cut, "flipped": _flipped, "other": _other,
        }  # fmt: skip
        path.write_bytes(change[kind](whole, rng))
        return kind
    path.unlink()
    kind = rng.choice(["gone", "folder", "pipe", "link"])
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(path.with_name("nowhere"))
    return kind


def restore(path: Path, whole: bytes) -> None:
    """Put a damaged file back."""
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(whole)
