"""What a finished step hands to the next one: where its result is and its digest; never the data itself."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from maskhand import storage
from maskhand.digest import short_digest


@dataclass(frozen=True)
class Receipt:
    """Names one finished result: a manifest, an exported model, a report. Steps that say more have a class of their own
    with a field for each figure; flows cache receipts as JSON."""

    uri: str
    """The one file that is written last (manifest.json, tokenizer.json, ...): a path or `s3://...`."""
    digest: str
    """First 12 hex digits of the sha256 of that file."""

    @classmethod
    def of(cls, uri: str, **facts: Any) -> Self:
        """The receipt of the file at `uri`, which must exist (MissingFileError names it)."""
        return cls(uri, file_digest(uri), **facts)

    @property
    def folder(self) -> str:
        """URI of the folder that holds the result."""
        return self.uri.rpartition("/")[0]

    @property
    def facts(self) -> dict[str, float | int | str]:
        """The figures and names of the step, for people; without those that have no value."""
        values = {field.name: getattr(self, field.name) for field in fields(self)[2:]}
        return {name: value for name, value in values.items() if value is not None and value != ""}

    def is_current(self) -> bool:
        """Is the result still there, unchanged? A cached receipt of deleted files must not be believed."""
        return storage.exists(self.uri) and file_digest(self.uri) == self.digest


def file_digest(uri: str) -> str:
    """First 12 hex digits of the sha256 of a file."""
    return short_digest(storage.read_bytes(uri))
