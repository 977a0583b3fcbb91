"""Index of the members of a published WebDataset tar, so that one sample is read by a seek and not by a scan.

A local tar is indexed by its headers alone, over which the file is skipped; one on S3 is streamed once.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from maskhand import storage
from maskhand.adapters.base import RawDataError

_END_OF_TAR = 1024
"""Every whole tar ends with two empty blocks."""


@dataclass(frozen=True)
class Span:
    """Bytes of one member within its tar."""

    offset: int
    length: int


NOWHERE = Span(-1, -1)
"""In place of a member that a sample does not have."""


@dataclass
class TarSample:
    """The members that share a WebDataset key."""

    key: str
    """Path up to the first dot of the file's name."""
    members: dict[str, Span] = field(default_factory=dict)
    """Extension (`jpg`, `data.pyd`) -> place."""
    contents: dict[str, bytes] = field(default_factory=dict)
    """Contents that were read while the tar was indexed."""


def index_tar(uri: str, read: tuple[str, ...] = ()) -> Iterator[TarSample]:
    """The samples of a tar in its order; members with an extension in `read` are read on the way.

    RawDataError for a tar that was cut, inside a member or between two, and for what is no tar.
    """
    size = storage.size(uri)
    if size is None:
        raise RawDataError(f"{uri}: there is no such tar")
    current: TarSample | None = None
    end = 0
    try:
        with (
            storage.open_stream(uri) as stream,
            tarfile.open(fileobj=stream, mode="r|" if storage.is_remote(uri) else "r:") as tar,
        ):
            for member in tar:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                folder, _, name = member.name.rpartition("/")
                stem, dot, extension = name.partition(".")
                if not member.isfile() or not dot:
                    continue
                key = f"{folder}/{stem}" if folder else stem
                if current is None or current.key != key:
                    if current is not None:
                        yield current
                    current = TarSample(key)
                current.members[extension] = Span(member.offset_data, member.size)
                if extension in read:
                    file = tar.extractfile(member)
                    assert file is not None, "regular members have content"
                    current.contents[extension] = file.read()
                tar.members = []  # type: ignore[attr-defined]  # tarfile would remember every header of a long tar
    except tarfile.TarError as error:
        raise _cut(uri, size, str(error)) from None
    if size < end + _END_OF_TAR:
        raise _cut(uri, size, "its end is missing")
    if current is not None:
        yield current


def _cut(uri: str, size: int, reason: str) -> RawDataError:
    return RawDataError(f"{uri}: not a whole tar ({reason}); it holds {size} bytes and was probably cut, copy it again")
