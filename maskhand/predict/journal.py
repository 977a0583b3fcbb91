"""The progress of a run in an append-only file: rows, and after each group of pictures a line that seals the group.

A killed run leaves at most one unsealed group, which is truncated; the run resumes after the last seal. The groups
then have the same boundaries, so the results equal those of an uninterrupted run byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Self

from maskhand.predict.pictures import Place
from maskhand.predict.rows import Row, json_line

_SEAL = b'{"sealed":'


class Journal:
    """The journal of a run; a context manager that closes it."""

    def __init__(self, path: Path) -> None:
        """Open the journal and truncate it after its last seal; create it if it is missing."""
        self.path = path
        self.place = Place()
        """The next photo or frame to process."""
        self.pictures = 0
        """Number of processed pictures."""
        self.files: list[str] = []
        """The picture files written so far, relative to the run's folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = open(path, "a+b")  # noqa: SIM115
        self._file.truncate(self._sealed_bytes())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, rows: Sequence[Row], pictures: int, files: Sequence[str], then: Place) -> None:
        """Append and seal the rows and files of a group of pictures; then: the next photo or frame to process."""
        data = b"".join(map(json_line, rows))
        self._file.write(data)
        self._seal(hashlib.sha256(data).hexdigest(), pictures, files, then)

    def take_over(self, finished: Path, pictures: int, files: Sequence[str], then: Place) -> None:
        """Append and seal the rows of a finished run (lines of a file) as the first group of an empty journal."""
        digest = hashlib.sha256()
        with open(finished, "rb") as lines:
            for line in lines:
                digest.update(line)
                self._file.write(line)
        self._seal(digest.hexdigest(), pictures, files, then)

    def _seal(self, sha256: str, pictures: int, files: Sequence[str], then: Place) -> None:
        seal = {"sealed": sha256, "pictures": pictures, "files": list(files), "then": [then.source, then.frame]}
        self._file.write(json_line(seal))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._count(seal)

    def lines(self) -> Iterator[bytes]:
        """The lines of all rows."""
        with open(self.path, "rb") as file:
            for line in file:
                if not line.startswith(_SEAL):
                    yield line

    def rows(self) -> Iterator[Row]:
        """All rows."""
        return map(json.loads, self.lines())

    def _sealed_bytes(self) -> int:
        """Number of bytes up to the last valid seal; also restores the journal's state from the seals."""
        sealed = read = 0
        digest = hashlib.sha256()
        self._file.seek(0)
        for line in self._file:
            read += len(line)
            if not line.startswith(_SEAL):
                digest.update(line)
                continue
            try:
                seal = json.loads(line)
            except ValueError:
                break
            if seal["sealed"] != digest.hexdigest():
                break
            self._count(seal)
            sealed, digest = read, hashlib.sha256()
        return sealed

    def _count(self, seal: Row) -> None:
        self.pictures += seal["pictures"]
        self.files += seal["files"]
        self.place = Place(*seal["then"])
