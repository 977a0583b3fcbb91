"""Files in a local folder or behind `s3://`, with one set of functions.

A URI is a plain path or `s3://bucket/key`. Writes are atomic: a reader sees the old file or the whole new one. Errors
are sentences (`StorageError`, `MissingFileError`). Settings of the store: see `s3`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from maskhand import local_files, s3, s3_objects
from maskhand.replacement import is_unfinished, move, replacement
from maskhand.storage_errors import (
    FullDiskError,
    MissingFileError,
    NotAFileError,
    StorageError,
    is_remote,
    sentences,
)

__all__ = [
    "FullDiskError",
    "MissingFileError",
    "NotAFileError",
    "StorageError",
    "absolute",
    "atomic_writer",
    "clean_partial",
    "copy_out",
    "delete",
    "exists",
    "is_remote",
    "join",
    "list_etags",
    "list_folders",
    "list_sizes",
    "list_uris",
    "move_in",
    "open_stream",
    "read_bytes",
    "read_range",
    "sha256",
    "size",
    "will_read",
    "write_bytes_atomic",
    "write_json_atomic",
]

_CHUNK = 1 << 20


def join(uri: str | Path, *parts: str) -> str:
    """`join("s3://b/x/", "y", "z.tar")` -> `s3://b/x/y/z.tar`."""
    return "/".join([str(uri).rstrip("/"), *(part.strip("/") for part in parts)])


def absolute(uri: str | Path) -> str:
    """The same place under a name that holds in every process of the machine; without a slash at the end.

    StorageError for the address of another kind of store, which would pass for a folder here.
    """
    if re.match("[A-Za-z][A-Za-z0-9]+:/", str(uri)) and not is_remote(uri):
        raise StorageError(f"{uri}: neither a folder nor s3://bucket/prefix; mind the two slashes")
    return str(uri).rstrip("/") if is_remote(uri) else str(Path(uri).expanduser().absolute())


def exists(uri: str | Path) -> bool:
    """Whether there is a file at this URI; a folder or a broken link is an error, as for `size`."""
    return size(uri) is not None


def size(uri: str | Path) -> int | None:
    """Bytes of a file, None when nothing has this name.

    Raises NotAFileError for a folder or a pipe, and MissingFileError for a broken link: a file was meant there, and to
    treat it as absent would hide that.
    """
    with sentences(uri):
        return s3_objects.size(uri) if is_remote(uri) else local_files.size(uri)


def read_bytes(uri: str | Path) -> bytes:
    """The whole file; MissingFileError when there is none."""
    if not is_remote(uri):
        with sentences(uri), local_files.open_file(uri, buffering=0) as file:
            return file.read()
    with open_stream(uri) as stream:
        return stream.read()


def read_range(uri: str | Path, offset: int, length: int) -> bytes:
    """`length` bytes from `offset` on, fewer at the end of the file; MissingFileError when there is none."""
    if length <= 0:
        return b""
    if is_remote(uri):
        with io.BufferedReader(s3.RangedObject(str(uri), offset, length), buffer_size=_CHUNK) as stream:
            return stream.read()
    with sentences(uri), local_files.open_file(uri) as file:
        file.seek(offset)
        return file.read(length)


def will_read(uri: str | Path) -> None:
    """Ask the system to read the beginning of a local file ahead; does nothing for an object of S3."""
    if is_remote(uri) or not hasattr(os, "posix_fadvise"):
        return
    with contextlib.suppress(OSError, ValueError):
        file = os.open(uri, os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.posix_fadvise(file, 0, _CHUNK, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(file)


def open_stream(uri: str | Path) -> IO[bytes]:
    """A buffered binary stream; over S3 it is opened again at its position after a broken connection.

    A connection that closes early is never taken for the end of the file: the length is known from the first answer,
    and every further request is for the same version of the object.
    """
    if is_remote(uri):
        return io.BufferedReader(s3.RangedObject(str(uri)), buffer_size=_CHUNK)
    with sentences(uri):
        return local_files.open_file(uri)


def sha256(uri: str | Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with open_stream(uri) as stream:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def write_bytes_atomic(uri: str | Path, data: bytes) -> None:
    """Put a whole file in place at once (locally: temporary file, fsync, rename, fsync of the folder)."""
    with atomic_writer(uri) as write:
        write(data)


@contextlib.contextmanager
def atomic_writer(uri: str | Path) -> Iterator[Callable[[bytes], object]]:
    """A function that appends to a file, which is put in place at once when the block ends; not if it ends in an error.

    A local file grows on disk, an S3 object is kept in memory until it is whole.
    """
    if is_remote(uri):
        pieces: list[bytes] = []
        yield pieces.append
        with sentences(uri):
            s3_objects.put(uri, b"".join(pieces))
        return
    # Errors of the block itself are not about this file and pass as they are.
    with contextlib.ExitStack() as stack:
        with sentences(uri):
            file = stack.enter_context(replacement(Path(uri)))

        def write(data: bytes) -> None:
            with sentences(uri):
                file.write(data)

        yield write
        with sentences(uri):
            stack.close()


def move_in(source: Path, uri: str | Path) -> None:
    """Put a local file of any size in place at once, and remove it where it was.

    For a local URI it is of the same file system; to S3 it goes in parts, several at a time.
    """
    with sentences(uri):
        if not is_remote(uri):
            move(source, Path(uri))
            return
        s3_objects.upload(source, uri)
    source.unlink()


def copy_out(uri: str | Path, target: Path) -> str:
    """Copy a file of any size to a local path; returns its sha256. Folders above are made."""
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_stream(uri) as stream, sentences(target), target.open("wb") as file:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def list_uris(prefix: str | Path) -> list[str]:
    """Every file below a folder, sorted; files of unfinished writes are left out. A missing folder is empty."""
    return sorted(list_sizes(prefix))


def list_sizes(prefix: str | Path) -> dict[str, int]:
    """The files of a folder with their bytes; one request for a thousand objects instead of one each.

    A broken link counts as an empty file, so that reading it raises an error.
    """
    if is_remote(prefix):
        with sentences(prefix):
            return s3_objects.sizes(prefix)
    files = ((p, local_files.status(p)) for p in Path(prefix).rglob("*") if not is_unfinished(p))
    return {
        str(p): 0 if found is None else found.st_size
        for p, found in files
        if (p.is_symlink() if found is None else stat.S_ISREG(found.st_mode))
    }


def list_etags(prefix: str | Path) -> dict[str, str]:
    """The objects below an `s3://` folder with their ETags, which differ where contents do."""
    with sentences(prefix):
        return s3_objects.etags(prefix)


def list_folders(prefix: str | Path) -> list[str]:
    """Names of the folders directly in a folder, sorted, without walking into them. A missing folder has none."""
    if is_remote(prefix):
        with sentences(prefix):
            return sorted(s3_objects.folders(prefix))
    folder = Path(prefix)
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def delete(uri: str | Path) -> None:
    """Remove one file; nothing happens when there is none."""
    with sentences(uri):
        if is_remote(uri):
            s3_objects.delete(uri)
        else:
            Path(uri).unlink(missing_ok=True)


def write_json_atomic(uri: str | Path, values: object) -> None:
    """`write_bytes_atomic` of values as indented JSON."""
    write_bytes_atomic(uri, (json.dumps(values, indent=1) + "\n").encode())


def clean_partial(folder: str | Path) -> None:
    """Remove what interrupted local writes left directly in a folder. Only for a folder that nobody writes into."""
    if not is_remote(folder):
        for path in filter(is_unfinished, Path(folder).glob(".*")):
            path.unlink(missing_ok=True)
