"""Errors of files and of `s3://`, as sentences that say what to do; errors of boto3 are known by their names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from maskhand.errors import MaskhandError


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


def endpoint() -> str:
    """Address of the S3 store in use, for people."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"


def is_remote(uri: str | Path) -> bool:
    return str(uri).startswith("s3://")


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


_LOGIN = "the login of this AWS profile has expired; log in again, such as with `aws sso login`"
_SETTINGS = {
    "InvalidRegionError": "the region in AWS_DEFAULT_REGION or ~/.aws/config is none; one is called us-east-1",
    "ConfigParseError": "~/.aws/config, or the file of AWS_CONFIG_FILE, cannot be read; correct it",
    "SSOTokenLoadError": _LOGIN,
    "UnauthorizedSSOTokenError": _LOGIN,
    "TokenRetrievalError": _LOGIN,
}
"""Name of an error of botocore's -> what is wrong on this side, what to do."""
_OTHER_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "301")
_NO_FILE = "there is no such file"
NO_ANSWER = (
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "ConnectionError",
    "HTTPClientError",
)
"""Names of botocore's errors for a store that cannot be reached, or breaks off."""


def _own_mistake(error: Exception) -> str | None:
    """What this side has to mend before any store can answer; None where the store is to blame."""
    name = type(error).__name__
    if name == "ProfileNotFound":
        return f"AWS_PROFILE={os.environ.get('AWS_PROFILE')} is not in ~/.aws/config; correct its name, or unset it"
    if name in _SETTINGS:
        return _SETTINGS[name]
    if name == "EndpointResolutionError" or (isinstance(error, ValueError) and "endpoint" in str(error).lower()):
        return f"AWS_ENDPOINT_URL={endpoint()}: expected an address such as http://HOST:PORT"
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
    known = {
        "NoSuchKey": _NO_FILE,
        "404": _NO_FILE,
        "NoSuchBucket": f"the bucket does not exist at {endpoint()}; create it first",
        "AccessDenied": "the store refused access; check the rights of AWS_ACCESS_KEY_ID on this bucket",
        "403": "the store refused access; check the rights of AWS_ACCESS_KEY_ID on this bucket",
        "InvalidAccessKeyId": "the store does not know AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "the store refused the signature; check AWS_SECRET_ACCESS_KEY",
        "ExpiredToken": "AWS_SESSION_TOKEN has expired; log in again",
        "InvalidToken": "the store does not know AWS_SESSION_TOKEN; log in again, or unset it beside keys of one's own",
        "RequestTimeTooSkewed": "the clocks of this machine and of the store differ by minutes; set this one's",
        "PreconditionFailed": "the object was replaced while it was being read; start again",
    }
    if code in known:
        return known[code]
    name = type(error).__name__
    if name in ("NoCredentialsError", "PartialCredentialsError"):
        return "no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if name == "SSLError":
        return (
            f"no secure connection to {endpoint()}; write http:// in AWS_ENDPOINT_URL for a store without TLS, or name "
            "the file of its certificate in AWS_CA_BUNDLE"
        )
    if name in NO_ANSWER:
        return f"the store at {endpoint()} does not answer; check AWS_ENDPOINT_URL and the network"
    return f"the store at {endpoint()} answered with {code or name}; try again, then check the store's log"
