"""The objects of an S3 store by their `s3://bucket/key`; errors are boto3's, see `storage_errors.sentences`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskhand import s3


def size(uri: str | Path) -> int | None:
    """Bytes of an object, None when there is none."""
    bucket, key = s3.bucket_key(uri)
    try:
        answer = s3.known_as_s3(uri, s3.client().head_object(Bucket=bucket, Key=key), "ETag")
        return int(answer["ContentLength"])
    except s3.client_error() as error:
        if s3.status(error) == 404:
            return None
        raise


def put(uri: str | Path, data: bytes) -> None:
    bucket, key = s3.bucket_key(uri)
    s3.known_as_s3(uri, s3.client().put_object(Bucket=bucket, Key=key, Body=data), "ETag")


def upload(source: Path, uri: str | Path) -> None:
    """Put a file of any size, in parts, several at a time."""
    bucket, key = s3.bucket_key(uri)
    with source.open("rb") as file:
        s3.client().upload_fileobj(file, bucket, key)


def delete(uri: str | Path) -> None:
    bucket, key = s3.bucket_key(uri)
    s3.client().delete_object(Bucket=bucket, Key=key)


def sizes(prefix: str | Path) -> dict[str, int]:
    """The objects below a folder with their bytes; one request for a thousand of them."""
    return {uri: int(entry["Size"]) for uri, entry in _entries(prefix)}


def etags(prefix: str | Path) -> dict[str, str]:
    """The objects below a folder with what the store calls their content."""
    return {uri: str(entry["ETag"]) for uri, entry in _entries(prefix)}


def folders(prefix: str | Path) -> list[str]:
    """Names of the folders directly below a folder."""
    _, folder = _bucket_folder(prefix)
    pages = _pages(prefix, Delimiter="/")
    return [
        entry["Prefix"].removeprefix(folder).rstrip("/") for page in pages for entry in page.get("CommonPrefixes", ())
    ]


def _entries(prefix: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    bucket, _ = _bucket_folder(prefix)
    for page in _pages(prefix):
        for entry in page.get("Contents", ()):
            yield f"s3://{bucket}/{entry['Key']}", entry


def _pages(prefix: str | Path, **options: str) -> Iterator[dict[str, Any]]:
    bucket, folder = _bucket_folder(prefix)
    for page in s3.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder, **options):
        yield s3.known_as_s3(prefix, page, "Name", "IsTruncated", "KeyCount", "Contents", "CommonPrefixes")


def _bucket_folder(prefix: str | Path) -> tuple[str, str]:
    return s3.bucket_key(str(prefix).rstrip("/") + "/")
