"""S3 as `storage` needs it: a client, an object read through broken connections, errors as sentences.

Endpoint, credentials, region and attempts are boto3's own (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_MAX_ATTEMPTS`,
...); `MASKHAND_S3_TIMEOUT_S` is how long a store may be silent. The only module that imports boto3.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskhand.errors import MaskhandError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

REOPENINGS = 5
"""Attempts at an object whose connection breaks, without progress between them."""
_ATTEMPTS = "AWS_MAX_ATTEMPTS"
"""Attempts at each request (botocore's own variable)."""
_TIMEOUT = "MASKHAND_S3_TIMEOUT_S"
"""How long a store may be silent within an answer before the request is repeated."""


class StorageError(MaskhandError, OSError):
    """A file or bucket that cannot be read or written; the message is a sentence that says what to do."""

    retryable = True


class MissingFileError(StorageError):
    """There is no such file."""

    retryable = False


class NotAFileError(StorageError):
    """Something else has the name of a file: a folder, a pipe, a device."""

    retryable = False


def is_remote(uri: str | Path) -> bool:
    return str(uri).startswith("s3://")


class RangedObject(io.RawIOBase):
    """An S3 object or a part of it, read once from front to back; broken connections continue with Range requests."""

    def __init__(self, uri: str, offset: int = 0, length: int | None = None) -> None:
        self._uri = uri
        self._bucket, self._key = bucket_key(uri)
        self._position = offset
        self._failures = 0
        part = {} if length is None else {"Range": f"bytes={offset}-{offset + length - 1}"}
        with sentences(uri):
            answer = client().get_object(Bucket=self._bucket, Key=self._key, **part)
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
        if self._failures > REOPENINGS:
            raise StorageError(
                f"{self._uri}: reading broke off {self._failures} times, last at byte {self._position} of "
                f"{self._length} ({type(error).__name__}); check the connection to the store and start again"
            ) from error
        time.sleep(min(0.1 * 2**self._failures, 5.0))
        with sentences(self._uri):
            answer = client().get_object(
                Bucket=self._bucket, Key=self._key, Range=f"bytes={self._position}-", IfMatch=self._version
            )
        self._body = answer["Body"]

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()


def bucket_key(uri: str | Path) -> tuple[str, str]:
    """Raises StorageError for a URI without a bucket."""
    bucket, _, key = str(uri).removeprefix("s3://").partition("/")
    if not bucket:
        raise StorageError(f"{uri}: expected s3://bucket/key")
    return bucket, key


def client() -> Any:
    """boto3's, made once."""
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


def client_error() -> type[Exception]:
    """What botocore raises when the store answers with an error."""
    from botocore.exceptions import ClientError

    return ClientError


def status(error: Any) -> int:
    """HTTP status of a `client_error`."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextlib.contextmanager
def sentences(uri: str | Path) -> Iterator[None]:
    """Turn the errors of the file system and of botocore into sentences about this URI."""
    try:
        yield
    except StorageError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingFileError(f"{uri}: {_NO_FILE}") from error
    except IsADirectoryError as error:
        raise NotAFileError(f"{uri}: this is a folder, expected a file") from error
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
