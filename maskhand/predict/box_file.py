"""Hand boxes of any detector, from a COCO JSON or JSON Lines file, matched to pictures by their paths.

A picture is matched to the name that shares the most trailing parts of its path: the file name, and if the name has a
folder, the picture's folder too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from maskhand import storage
from maskhand.digest import short_digest
from maskhand.json_text import JsonError, parse_json
from maskhand.predict.box_formats import GivenBoxes, read_coco, read_lines
from maskhand.predict.records import PredictError


@dataclass(frozen=True)
class BoxFile:
    """The boxes of a file by picture."""

    path: str
    pictures: tuple[GivenBoxes, ...]
    digest: str = ""
    """12 hex digits over the file's text."""

    @property
    def version(self) -> str:
        """Identifies the file in a run: its path and the digest of its content."""
        return f"{self.path} {self.digest}".strip()

    @staticmethod
    def read(path: str | Path) -> BoxFile:
        """Read a file of boxes. Raises PredictError with file, line (or entry), what was found and expected."""
        try:
            text = storage.read_bytes(path).decode("utf-8-sig")
        except storage.StorageError as error:
            raise PredictError(f"{error}; expected boxes in COCO's JSON or JSON Lines") from None
        except UnicodeDecodeError:
            raise PredictError(f"{path}: not UTF-8 text; expected boxes in COCO's JSON or JSON Lines") from None
        try:
            whole = parse_json(text)
        except JsonError:
            whole = None
        if isinstance(whole, list) or (isinstance(whole, dict) and not {"images", "annotations"}.isdisjoint(whole)):
            return BoxFile(str(path), tuple(read_coco(whole, str(path))), short_digest(text))
        return BoxFile(str(path), tuple(read_lines(text, str(path))), short_digest(text))

    def match(self, pictures: Sequence[str | Path]) -> list[GivenBoxes | None]:
        """The boxes of each picture, by path; None for one that the file does not name.

        Raises PredictError where two names fit a picture equally well, or two pictures a name.
        """
        by_name: dict[str, list[GivenBoxes]] = {}
        for given in self.pictures:
            by_name.setdefault(_path(given.name).name, []).append(given)
        matched: list[GivenBoxes | None] = []
        taken: dict[str, str] = {}
        for picture in map(str, pictures):
            whole = picture if storage.is_remote(picture) else os.path.abspath(picture)
            shared = [(_shared_end(whole, given.name), given) for given in by_name.get(PurePath(picture).name, [])]
            fitting = [(length, given) for length, given in shared if length >= min(2, len(_path(given.name).parts))]
            best = [given for length, given in fitting if length == max(length for length, _ in fitting)]
            if len(best) > 1:
                both = f"{best[0].name} and {best[1].name}"
                raise PredictError(f"{best[1].place}: {both} fit {picture} equally well; write more of the paths")
            if best and (other := taken.setdefault(best[0].name, picture)) != picture:
                raise PredictError(
                    f"{best[0].place}: {best[0].name} fits {other} and {picture}; write more of their paths"
                )
            matched.append(best[0] if best else None)
        return matched

    def why_none(self, given: GivenBoxes | None) -> str:
        """Why a picture has no boxes."""
        if given is None:
            first = f", such as {self.pictures[0].name}" if self.pictures else ""
            return f"{self.path} has no boxes for it: names there{first}, must fit by their folders too"
        return f"{given.place}: it is there without a box"


def _path(name: str) -> PurePath:
    """A name in the file, which may have been written on Windows."""
    return PurePath(name if "/" in name else name.replace("\\", "/"))


def _shared_end(path: str, name: str) -> int:
    """Number of trailing parts that two paths share."""
    count = 0
    for a, b in zip(reversed(PurePath(path).parts), reversed(_path(name).parts), strict=False):
        if a != b:
            break
        count += 1
    return count
