"""What a finished step hands to the next one: where its result is and its digest; never the data itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from maskhand import storage


@dataclass(frozen=True)
class Receipt:
    """Names one finished result: a manifest, an exported model, a report."""

    uri: str
    """The one file that is written last (manifest.json, tokenizer.json, ...): a path or `s3://...`."""
    digest: str
    """First 12 hex digits of the sha256 of that file."""
    numbers: dict[str, float | int | str] = field(default_factory=dict)
    """A few figures and names for people and for the steps that follow."""

    @classmethod
    def of(cls, uri: str, **numbers: float | int | str) -> Receipt:
        """The receipt of the file at `uri`, which must exist (FileNotFoundError names it)."""
        return cls(uri, _digest(uri), numbers)

    @property
    def folder(self) -> str:
        """URI of the folder that holds the result."""
        return self.uri.rpartition("/")[0]

    def holds(self) -> bool:
        """Is the result still there, unchanged? A cached receipt of deleted files must not be believed."""
        return storage.exists(self.uri) and _digest(self.uri) == self.digest


def _digest(uri: str) -> str:
    return hashlib.sha256(storage.read_bytes(uri)).hexdigest()[:12]
