"""Files in a local folder or behind `s3://`, with one set of functions; the only module that imports boto3.

A URI is a plain path or `s3://bucket/key`. Writes are atomic: a reader sees the old file or the whole new one. The S3
endpoint, credentials, region and attempts are boto3's own (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`,
`AWS_MAX_ATTEMPTS`, ...); `MASKHAND_S3_TIMEOUT_S` says how long a store may be silent.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK = 1 << 20
_REOPENINGS = 5
_ATTEMPTS = "AWS_MAX_ATTEMPTS"
"""Of each request (botocore's own variable)."""
_TIMEOUT = "MASKHAND_S3_TIMEOUT_S"
"""How long a store may be silent within an answer before it is asked again."""
_TEMPORARY = ".partial"


class StorageError(OSError):
    """A file or bucket that cannot be read or written; the message is a sentence that says what to do."""


class MissingFileError(StorageError):
    """There is no such file."""


def is_remote(uri: str | Path) -> bool:
    return str(uri).startswith("s3://")


def join(uri: str | Path, *parts: str) -> str:
    """`join("s3://b/x/", "y", "z.tar")` -> `s3://b/x/y/z.tar`."""
    return "/".join([str(uri).rstrip("/"), *(part.strip("/") for part in parts)])


def absolute(uri: str | Path) -> str:
    """The same place under a name that holds in every process of the machine; without a slash at the end."""
    return str(uri).rstrip("/") if is_remote(uri) else str(Path(uri).expanduser().absolute())


def exists(uri: str | Path) -> bool:
    """Is there a file (not a folder) at this URI?"""
    return size(uri) is not None


def size(uri: str | Path) -> int | None:
    """Bytes of a file, None when there is none."""
    if not is_remote(uri):
        path = Path(uri)
        return path.stat().st_size if path.is_file() else None
    bucket, key = _bucket_key(uri)
    with _sentences(uri):
        try:
            return int(_s3().head_object(Bucket=bucket, Key=key)["ContentLength"])
        except _client_error() as error:
            if _status(error) == 404:
                return None
            raise


def read_bytes(uri: str | Path) -> bytes:
    """The whole file; MissingFileError when there is none."""
    if not is_remote(uri):
        with _sentences(uri), open(uri, "rb", buffering=0) as file:
            return file.read()
    with open_stream(uri) as stream:
        return stream.read()


def read_range(uri: str | Path, offset: int, length: int) -> bytes:
    """`length` bytes from `offset` on, fewer at the end of the file; MissingFileError when there is none."""
    if length <= 0:
        return b""
    if is_remote(uri):
        with io.BufferedReader(_RangedObject(str(uri), offset, length), buffer_size=_CHUNK) as stream:
            return stream.read()
    with _sentences(uri), open(uri, "rb") as file:
        file.seek(offset)
        return file.read(length)


def will_read(uri: str | Path) -> None:
    """Ask the system to have the beginning of a local file in memory soon. Nothing follows of it for any other."""
    if is_remote(uri) or not hasattr(os, "posix_fadvise"):
        return
    with contextlib.suppress(OSError):
        file = os.open(uri, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, _CHUNK, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(file)


def open_stream(uri: str | Path) -> IO[bytes]:
    """A buffered binary stream; over S3 it re-opens at its position after a broken connection.

    A connection that closes early is an error to be retried, never an end of file: the length is known from the
    first answer, and every re-opening insists on the same version of the object.
    """
    if is_remote(uri):
        return io.BufferedReader(_RangedObject(str(uri)), buffer_size=_CHUNK)
    with _sentences(uri):
        return open(uri, "rb")


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
        bucket, key = _bucket_key(uri)
        with _sentences(uri):
            _s3().put_object(Bucket=bucket, Key=key, Body=b"".join(pieces))
        return
    # Errors of the block itself are not about this file and pass as they are.
    with contextlib.ExitStack() as stack:
        with _sentences(uri):
            file = stack.enter_context(_local_replacement(Path(uri)))

        def write(data: bytes) -> None:
            with _sentences(uri):
                file.write(data)

        yield write
        with _sentences(uri):
            stack.close()


def put_file(local_path: str | Path, uri: str | Path) -> None:
    """Copy a local file to a URI, atomically; large files go up in parts."""
    if is_remote(uri):
        bucket, key = _bucket_key(uri)
        with _sentences(uri):
            _s3().upload_file(str(local_path), bucket, key)
        return
    with _sentences(uri), open(local_path, "rb") as source, _local_replacement(Path(uri)) as file:
        shutil.copyfileobj(source, file, _CHUNK)


def get_file(uri: str | Path, local_path: str | Path) -> None:
    """Copy a file at a URI to a local path, atomically."""
    with open_stream(uri) as source, _sentences(local_path), _local_replacement(Path(local_path)) as file:
        shutil.copyfileobj(source, file, _CHUNK)


def list_uris(prefix: str | Path) -> list[str]:
    """Every file below a folder, sorted; files of unfinished writes are left out. A missing folder is empty."""
    return sorted(list_sizes(prefix))


def list_sizes(prefix: str | Path) -> dict[str, int]:
    """The same files with their bytes; one request for a thousand objects instead of one each."""
    if not is_remote(prefix):
        files = (p for p in Path(prefix).rglob("*") if not p.name.endswith(_TEMPORARY) and p.is_file())
        return {str(p): p.stat().st_size for p in files}
    bucket, key = _bucket_key(join(prefix, ""))
    with _sentences(prefix):
        pages = _s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        entries = [entry for page in pages for entry in page.get("Contents", ())]
    return {f"s3://{bucket}/{entry['Key']}": int(entry["Size"]) for entry in entries}


def list_folders(prefix: str | Path) -> list[str]:
    """Names of the folders directly in a folder, sorted, without walking into them. A missing folder has none."""
    if not is_remote(prefix):
        folder = Path(prefix)
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    bucket, key = _bucket_key(join(prefix, ""))
    with _sentences(prefix):
        pages = _s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key, Delimiter="/")
        found = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", ())]
    return sorted(name.removeprefix(key).rstrip("/") for name in found)


def delete(uri: str | Path) -> None:
    """Remove one file; nothing happens when there is none."""
    if not is_remote(uri):
        with _sentences(uri):
            Path(uri).unlink(missing_ok=True)
        return
    bucket, key = _bucket_key(uri)
    with _sentences(uri):
        _s3().delete_object(Bucket=bucket, Key=key)


def clean_partial(folder: str | Path) -> None:
    """Remove what killed local writes left directly in a folder. Only call it when nobody is writing there."""
    if not is_remote(folder):
        for path in Path(folder).glob(f".*{_TEMPORARY}"):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _local_replacement(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    # The rename itself survives a power cut only once the folder is on disk.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class _RangedObject(io.RawIOBase):
    """An S3 object or a part of it, read once from front to back; broken connections continue with Range requests."""

    def __init__(self, uri: str, offset: int = 0, length: int | None = None) -> None:
        self._uri = uri
        self._bucket, self._key = _bucket_key(uri)
        self._position = offset
        self._failures = 0
        part = {} if length is None else {"Range": f"bytes={offset}-{offset + length - 1}"}
        with _sentences(uri):
            answer = _s3().get_object(Bucket=self._bucket, Key=self._key, **part)
        self._length = offset + int(answer["ContentLength"])
        self._version = answer["ETag"]
        self._body: Any = answer["Body"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        while self._position < self._length:
            try:
                piece = self._body.read(min(len(view), self._length - self._position))
                if not piece:
                    raise ConnectionError("the connection closed before the end of the object")
            except Exception as error:
                self._reopen(error)
                continue
            view[: len(piece)] = piece
            self._position += len(piece)
            self._failures = 0
            return len(piece)
        return 0

    def _reopen(self, error: Exception) -> None:
        """Open again at the current position, after a pause; a bounded number of times in a row without progress."""
        self._body.close()
        self._failures += 1
        if self._failures > _REOPENINGS:
            raise StorageError(
                f"{self._uri}: reading broke off {self._failures} times, last at byte {self._position} of "
                f"{self._length} ({type(error).__name__}); check the connection to the store and start again"
            ) from error
        time.sleep(min(0.1 * 2**self._failures, 5.0))
        with _sentences(self._uri):
            answer = _s3().get_object(
                Bucket=self._bucket, Key=self._key, Range=f"bytes={self._position}-", IfMatch=self._version
            )
        self._body = answer["Body"]

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()


def _bucket_key(uri: str | Path) -> tuple[str, str]:
    bucket, _, key = str(uri).removeprefix("s3://").partition("/")
    if not bucket:
        raise StorageError(f"{uri}: expected s3://bucket/key")
    return bucket, key


def _s3() -> Any:
    # One client per process (a forked child must not share sockets) and per setting of the environment.
    names = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_DEFAULT_REGION")
    return _client(os.getpid(), *(os.environ.get(name) for name in (*names, _ATTEMPTS, _TIMEOUT)))


@lru_cache(maxsize=4)
def _client(_process: int, *_environment: str | None) -> Any:
    import boto3
    from botocore.config import Config

    settings = Config(
        retries={"total_max_attempts": int(os.environ.get(_ATTEMPTS, 7)), "mode": "standard"},
        connect_timeout=10,
        read_timeout=float(os.environ.get(_TIMEOUT, 60)),
        max_pool_connections=32,
        # Servers other than AWS do not all know the newer default checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    region = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION") or "us-east-1"
    return boto3.session.Session().client("s3", config=settings, region_name=region)


def _client_error() -> type[Exception]:
    from botocore.exceptions import ClientError

    return ClientError


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextlib.contextmanager
def _sentences(uri: str | Path) -> Iterator[None]:
    """Turn the errors of the file system and of botocore into sentences about this URI."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"{uri}: there is no such file") from error
    except OSError as error:
        if not is_remote(uri):
            raise StorageError(f"{uri}: {(error.strerror or str(error)).lower()}") from error
        raise StorageError(f"{uri}: {_s3_reason(error)}") from error
    except Exception as error:
        if not is_remote(uri):
            raise
        kind = MissingFileError if _s3_reason(error) == _NO_FILE else StorageError
        raise kind(f"{uri}: {_s3_reason(error)}") from error


_NO_FILE = "there is no such file"
_NO_ANSWER = (
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "ConnectionError",
    "HTTPClientError",
)


def _s3_reason(error: Exception) -> str:
    # botocore's timeouts have a response, too: None.
    code = str((getattr(error, "response", None) or {}).get("Error", {}).get("Code", ""))
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
    known = {
        "NoSuchKey": _NO_FILE,
        "404": _NO_FILE,
        "NoSuchBucket": f"the bucket does not exist at {endpoint}; create it first",
        "AccessDenied": "the store refused access; check the rights of AWS_ACCESS_KEY_ID on this bucket",
        "403": "the store refused access; check the rights of AWS_ACCESS_KEY_ID on this bucket",
        "InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "the store refused the signature; check AWS_SECRET_ACCESS_KEY",
        "PreconditionFailed": "the object was replaced while it was being read; start again",
    }
    if code in known:
        return known[code]
    name = type(error).__name__
    if name in ("NoCredentialsError", "PartialCredentialsError"):
        return "no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if name in _NO_ANSWER:
        return f"the store at {endpoint} does not answer; check AWS_ENDPOINT_URL and the network"
    return f"the store at {endpoint} answered with {code or name}; try again, then check the store's log"
