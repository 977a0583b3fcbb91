"""Plain POSIX tars whose bytes depend on their members alone, written from a template and faster than `tarfile` does.

Fixed time, owner and mode, a sample's members sorted by their extension: the bytes are those of webdataset's TarWriter,
which makes a Python object per member and sums its header up byte by byte.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Mapping

_BLOCK = 512
_LONGEST_NAME, _LARGEST = 100, 8**11


def sample_pieces(key: str, members: Mapping[str, bytes]) -> list[bytes]:
    """What stands in a tar for one sample: header, content and padding of `{key}.{extension}`, one after the other."""
    pieces: list[bytes] = []
    for extension in sorted(members):
        content = members[extension]
        pieces += (_header(f"{key}.{extension}", len(content)), content, bytes(-len(content) % _BLOCK))
    return pieces


def in_blocks(pieces: Iterable[list[bytes]], at_least: int) -> Iterator[bytes]:
    """A whole tar from its samples' pieces, in blocks of about this many bytes."""
    waiting: list[bytes] = []
    size = written = 0
    for sample in pieces:
        waiting += sample
        size += sum(map(len, sample))
        if size >= at_least:
            yield b"".join(waiting)
            waiting, size, written = [], 0, written + size
    # Two empty blocks end a tar, and it is filled up to whole records.
    end = 2 * _BLOCK
    waiting.append(bytes(end + -(written + size + end) % tarfile.RECORDSIZE))
    yield b"".join(waiting)


def _header(name: str, size: int) -> bytes:
    if len(name) > _LONGEST_NAME or size >= _LARGEST or not name.isascii():
        return _by_tarfile(name, size)
    raw, digits = name.encode(), b"%011o" % size
    total = _SUM + sum(raw) + sum(digits)
    return b"%b%b%b%b%06o%b" % (raw.ljust(100, b"\0"), _OWNER, digits, _TIME, total, _REST)


def _by_tarfile(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.PAX_FORMAT)


_EMPTY = _by_tarfile("", 0)
# Places in a header: name 0, mode and owner 100, size 124, time 136, sum 148 (six digits), kind and the rest 156.
_OWNER, _TIME, _REST = _EMPTY[100:124], _EMPTY[135:148], _EMPTY[154:]
_SUM = int(_EMPTY[148:154], 8) - sum(b"0" * 11)
"""Sum of a header without name and size; a header's sum takes its own field for spaces."""
