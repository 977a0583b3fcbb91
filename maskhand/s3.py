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
_SETTINGS = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_DEFAULT_REGION", "AWS_REGION",
)  # fmt: skip
_TIMEOUT = "MASKHAND_S3_TIMEOUT_S"
"""How long a store may be silent within an answer before the request is repeated."""


class StorageError(MaskhandError, OSError):
    """A file or bucket that cannot be read or written; the message is a sentence that says what to do."""

    retryable = True


class StoreSettingError(StorageError):
    """A setting of this side with which no store can be asked."""

    retryable = False


class MissingFileError(StorageError):
    """There is no such file."""

    retryable = False


class FullDiskError(StorageError):
    """There is no space left; somebody has to make some."""

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
    return _client(os.getpid(), *(os.environ.get(name) for name in (*_SETTINGS, _ATTEMPTS, _TIMEOUT)))


@lru_cache(maxsize=4)
def _client(_process: int, *_environment: str | None) -> Any:
    import boto3
    from botocore.config import Config

    settings = Config(
        retries={"total_max_attempts": int(_number(_ATTEMPTS, 7)), "mode": "standard"},
        connect_timeout=10,
        read_timeout=_number(_TIMEOUT, 60),
        max_pool_connections=32,
        # Servers other than AWS do not all know the newer default checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session = boto3.session.Session()
    region = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
    return session.client("s3", config=settings, region_name=region)


def _number(variable: str, default: float) -> float:
    given = os.environ.get(variable) or default
    try:
        return float(given)
    except ValueError:
        raise StoreSettingError(f"{variable}={given}: expected a number, such as {default:g}") from None


def settings_in_files() -> dict[str, str]:
    """What `~/.aws/config` and `~/.aws/credentials` say for the profile in use, as variables for machines without them.

    Keys are left out where the environment has some. Secrets: not to be shown.
    """
    places = (("AWS_CONFIG_FILE", "~/.aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"))
    if not any(Path(os.environ.get(variable) or place).expanduser().is_file() for variable, place in places):
        return {}
    import botocore.session
    from botocore.exceptions import BotoCoreError

    try:
        found = botocore.session.get_session().get_scoped_config()
    except BotoCoreError:  # said where a store is asked
        return {}
    keys = {"region": "AWS_DEFAULT_REGION", "endpoint_url": "AWS_ENDPOINT_URL"}
    if not os.environ.get("AWS_ACCESS_KEY_ID"):
        keys |= {key: key.upper() for key in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")}
    return {variable: str(found[key]) for key, variable in keys.items() if found.get(key)}


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
        if (mistake := _own_mistake(error)) is not None:
            raise StoreSettingError(f"{uri}: {mistake}") from error
        kind = MissingFileError if _s3_reason(error) == _NO_FILE else StorageError
        raise kind(f"{uri}: {_s3_reason(error)}") from error


_OTHER_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "301")
_NO_FILE = "there is no such file"
_NO_ANSWER = (
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "ConnectionError",
    "HTTPClientError",
)


def _own_mistake(error: Exception) -> str | None:
    """What this side has to mend before any store can answer; None where the store is to blame."""
    name, endpoint = type(error).__name__, os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if name == "ProfileNotFound":
        return f"AWS_PROFILE={os.environ.get('AWS_PROFILE')} is not in ~/.aws/config; correct its name, or unset it"
    if isinstance(error, ValueError) and "endpoint" in str(error).lower():
        return f"AWS_ENDPOINT_URL={endpoint}: expected an address such as http://HOST:PORT"
    if name in ("ParamValidationError", "InvalidBucketName"):
        return "the bucket's name can hold letters, digits, dots and hyphens only; the address is s3://bucket/key"
    if name == "ClientError" and _code(error) in _OTHER_REGION:
        return "the store is of another region; set AWS_DEFAULT_REGION, or `region` in ~/.aws/config"
    return None


def _code(error: Exception) -> str:
    # botocore's timeouts have a response, too: None.
    return str((getattr(error, "response", None) or {}).get("Error", {}).get("Code", ""))


def _s3_reason(error: Exception) -> str:
    code = _code(error)
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
