"""S3 as `storage` needs it: a client, and an object read through broken connections.

Endpoint, credentials, region and attempts are boto3's own (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_MAX_ATTEMPTS`,
...); `MASKHAND_S3_TIMEOUT_S` is how long a store may be silent, `s3_patience` how long it may be down. The only module
that imports boto3.
"""

from __future__ import annotations

import io
import math
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskhand import s3_patience
from maskhand.storage_errors import StorageError, StoreSettingError, endpoint, sentences

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

REOPENINGS = 5
"""Attempts at an object whose connection breaks, without progress between them."""
_ATTEMPTS = "AWS_MAX_ATTEMPTS"
"""Attempts at each request (botocore's own variable). Where it is not set, a store that is down is waited for, too."""
_SETTINGS = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_DEFAULT_REGION", "AWS_REGION",
)  # fmt: skip
_TIMEOUT = "MASKHAND_S3_TIMEOUT_S"
"""How long a store may be silent within an answer before the request is repeated."""
_LONGEST_S = 1e6
"""Sockets take no times of thousands of years."""


class RangedObject(io.RawIOBase):
    """An S3 object or a part of it, read once from front to back; broken connections continue with Range requests."""

    def __init__(self, uri: str, offset: int = 0, length: int | None = None) -> None:
        self._uri = uri
        self._bucket, self._key = bucket_key(uri)
        self._position = offset
        self._failures = 0
        part = {} if length is None else {"Range": f"bytes={offset}-{offset + length - 1}"}
        with sentences(uri):
            answer = known_as_s3(uri, client().get_object(Bucket=self._bucket, Key=self._key, **part), "ETag")
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


def known_as_s3(uri: str | Path, answer: dict[str, Any], *fields: str) -> dict[str, Any]:
    """The answer, in which a store always sends one of these fields. Raises StoreSettingError.

    A web server that answers every request with a page passes for an empty bucket with boto3.
    """
    if not any(field in answer for field in fields):
        raise StoreSettingError(
            f"{uri}: what answers at {endpoint()} is no S3 store; is AWS_ENDPOINT_URL the address of a web page, such "
            "as a store's console (of MinIO, 9000 is the store and 9001 the console), or of a proxy?"
        )
    return answer


def client() -> Any:
    """boto3's, made once."""
    # One client per process (a forked child must not share sockets) and per setting of the environment.
    return _client(os.getpid(), *(os.environ.get(name) for name in (*_SETTINGS, _ATTEMPTS, _TIMEOUT)))


@lru_cache(maxsize=4)
def _client(_process: int, *_environment: str | None) -> Any:
    import boto3
    from botocore.config import Config

    settings = Config(
        retries={"total_max_attempts": int(_number(_ATTEMPTS, 3, least=1)), "mode": "standard"},
        connect_timeout=10,
        read_timeout=_number(_TIMEOUT, 60, least=0.1),
        max_pool_connections=32,
        # Servers other than AWS do not all know the newer default checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    session = boto3.session.Session()
    region = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
    client = session.client("s3", config=settings, region_name=region)
    if not os.environ.get(_ATTEMPTS):
        s3_patience.add_to(client)
    return client


def _number(variable: str, default: float, least: float) -> float:
    given = os.environ.get(variable) or default
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not least <= number < _LONGEST_S:  # and not a number
        raise StoreSettingError(f"{variable}={given}: expected a number from {least:g} on, such as {default:g}")
    return number


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
