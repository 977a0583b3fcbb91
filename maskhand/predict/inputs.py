"""The input files of a run: pictures and films, from files, folders and patterns, in a fixed order.

Folders are searched recursively for files with a picture or film suffix; hidden files and folders are skipped, and
links to folders are not followed. A file that is given by name is used whatever its suffix.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from maskhand import local_files, storage
from maskhand.film.video import FILM_SUFFIXES, is_film
from maskhand.predict.records import PredictError

PICTURE_SUFFIXES = frozenset(
    {
        ".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png",
        ".pnm", ".ppm", ".tif", ".tiff", ".webp",
    }
)  # fmt: skip
"""Suffixes of picture files, in lower case."""

RESERVED = frozenset({"run", "hands", "unfinished"})
"""Names of the run's own files."""
_OF_A_HAND = re.compile(r"_(overlay|hypotheses|hand\d+(_hypotheses)?|frame\d+.*)$")
"""Suffixes that are appended to a picture's name to name its result files."""
LONGEST_NAME = 160
"""Most bytes of a path part of a picture's name in the results: file systems allow 255 with what is appended."""


@dataclass(frozen=True)
class Source:
    """An input file."""

    path: str
    """As given or found; `s3://...` for an object."""
    name: str
    """Prefix of the names of its result files, unique in a run. Slashes separate folders."""
    kind: Literal["picture", "film"]
    mark: str
    """Changes when the file does: its size and modification time, or an object's ETag."""


@dataclass(frozen=True)
class Sources:
    """The files of a run."""

    files: tuple[Source, ...]
    passed_over: Mapping[str, int]
    """Number of skipped files in the folders, by suffix."""


@dataclass(frozen=True)
class _Found:
    path: str
    base: PurePosixPath
    """The path below the folder that was given; a file's own name."""
    above: str
    """Name of the folder that `base` is relative to."""


def find_sources(inputs: Sequence[str | Path], results: str | Path | None = None) -> Sources:
    """The files of `inputs`, each once, in the given order; those of a folder or pattern are sorted.

    inputs: files, folders, patterns (`*`, `?`, `[]`, and `**` for folders of any depth) and `s3://` objects and
    prefixes. results: a folder whose files are skipped. Raises PredictError for missing files, patterns without a
    match, web addresses, and when no file is left.
    """
    other: Counter[str] = Counter()
    found: dict[str, _Found] = {}
    aside = None if results is None or storage.is_remote(results) else Path(results).resolve()
    for given in map(str, inputs):
        for item in _expanded(given, aside, other):
            found.setdefault(item.path if storage.is_remote(item.path) else os.path.realpath(item.path), item)
    if not found:
        passed = f" ({sum(other.values())} files of other kinds)" if other else ""
        raise PredictError(f"{', '.join(map(str, inputs))}: no picture or film there{passed}")
    items = list(found.values())
    etags: dict[str, str] = {}
    for item in items:
        if storage.is_remote(item.path) and item.path not in etags:
            etags |= storage.list_etags(item.path.rpartition("/")[0])
    return Sources(
        tuple(
            Source(item.path, name, _kind(item.path), _mark(item.path, etags))
            for item, name in zip(items, _names(items), strict=True)
        ),
        dict(sorted(other.items())),
    )


def _expanded(given: str, aside: Path | None, other: Counter[str]) -> Iterator[_Found]:
    if storage.is_remote(given):
        yield from _objects(given, other)
        return
    if match := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", given):
        raise PredictError(
            f"{given}: addresses ({match[1]}) are not read, as they may show another picture tomorrow; load it down "
            "first (`curl -O ADDRESS`) and give the file"
        )
    path = os.path.expanduser(given)
    if local_files.status(path) is None and glob.has_magic(path):
        matches = sorted(match_ for match_ in glob.glob(path, recursive=True) if not _is_below(match_, aside))
        if not matches:
            raise PredictError(f"{given}: no file matches this pattern")
        for match_ in matches:
            # a pattern, like a folder, gives only files with a picture or film suffix
            yield from _in_folder(match_, aside, other) if os.path.isdir(match_) else _if_named(match_, other)
    elif os.path.isdir(path):
        if Path(path).resolve() == aside:
            raise PredictError(f"{given}: the results would go among the pictures; choose another --out")
        yield from _in_folder(path, aside, other)
    elif local_files.size(path) is None:
        raise PredictError(f"{given}: there is no such file or folder")
    else:
        yield _file(path)


def _in_folder(folder: str, aside: Path | None, other: Counter[str]) -> Iterator[_Found]:
    paths: list[str] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".") and Path(place, f).resolve() != aside]
        paths += [os.path.join(place, file) for file in files if not file.startswith(".")]
    top = os.path.basename(os.path.abspath(folder))
    for path in sorted(paths):
        if _suffix(path) in PICTURE_SUFFIXES | FILM_SUFFIXES:
            yield _Found(path, PurePosixPath(Path(path).relative_to(folder).as_posix()), top)
        else:
            other[_suffix(path)] += 1


def _is_below(path: str, folder: Path | None) -> bool:
    place = Path(path).resolve()
    return folder is not None and (place == folder or folder in place.parents)


def _if_named(path: str, other: Counter[str]) -> Iterator[_Found]:
    if _suffix(path) in PICTURE_SUFFIXES | FILM_SUFFIXES:
        yield _file(path)
    else:
        other[_suffix(path)] += 1


def _objects(uri: str, other: Counter[str]) -> Iterator[_Found]:
    prefix = uri.rstrip("/")
    for path in [uri] if storage.exists(uri) else storage.list_uris(prefix):
        if _suffix(path) in FILM_SUFFIXES:
            raise PredictError(f"{path}: films are read from files of this machine; copy it here first")
        if path == uri or _suffix(path) in PICTURE_SUFFIXES:
            below = path.removeprefix(prefix + "/") if path != uri else path.rpartition("/")[2]
            yield _Found(path, PurePosixPath(below), prefix.rpartition("/")[2])
        else:
            other[_suffix(path)] += 1


def _file(path: str) -> _Found:
    absolute = Path(os.path.abspath(path))
    return _Found(path, PurePosixPath(absolute.name), absolute.parent.name)


def _names(items: Sequence[_Found]) -> list[str]:
    """A unique name for each file: its path without the suffix if that is enough, else with more of the path."""
    chosen = [0] * len(items)
    while True:
        names = [_name(item, level) for item, level in zip(items, chosen, strict=True)]
        folded = Counter(name.casefold() for name in names)  # some file systems ignore case
        unclear = [
            k
            for k, name in enumerate(names)
            if chosen[k] < 2 and (folded[name.casefold()] > 1 or (chosen[k] == 0 and _is_taken(name)))
        ]
        if not unclear:
            break
        for k in unclear:
            chosen[k] += 1
    seen: Counter[str] = Counter()
    for k, name in enumerate(names):
        while seen[names[k].casefold()]:
            seen[name.casefold()] += 1
            names[k] = f"{name}-{seen[name.casefold()]}"
        seen[names[k].casefold()] += 1
    return names


def _name(item: _Found, level: int) -> str:
    path = item.base if level else item.base.with_suffix("")
    parts = [*([item.above] if level == 2 and item.above else []), *path.parts]
    return "/".join(map(_short, parts))


def _is_taken(name: str) -> bool:
    return name.casefold() in RESERVED or _OF_A_HAND.search(name) is not None


def _short(part: str) -> str:
    data = os.fsencode(part)
    if len(data) <= LONGEST_NAME:
        return part
    return os.fsdecode(data[: LONGEST_NAME - 13]) + "-" + hashlib.sha256(data).hexdigest()[:12]


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _kind(path: str) -> Literal["picture", "film"]:
    return "film" if is_film(path) else "picture"


def _mark(path: str, etags: Mapping[str, str]) -> str:
    if storage.is_remote(path):
        return etags[path]
    found = local_files.status(path)
    return "missing" if found is None else f"{found.st_size} bytes, {found.st_mtime_ns} ns"
