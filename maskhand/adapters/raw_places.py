"""Why the published files are not where a layout expects them: still packed, a folder deeper, in other letters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from maskhand import storage

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar", ".bz2", ".xz")
_DEPTH = 3
_MOST_FOLDERS = 200
"""That are looked into."""
_NAMED = 6
_OTHER_SUFFIXES = (".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG")


def what_is_there(raw_dir: str, is_dataset: Callable[[str], bool]) -> str:
    """The beginning of a sentence about a folder in which nothing was found; empty for one of S3.

    is_dataset: whether a folder holds what is looked for.
    """
    if storage.is_remote(raw_dir):
        return ""
    folder = Path(raw_dir).expanduser()
    if folder.is_file():
        return f"{folder.name} is a file, expected a folder: unpack it and give the folder. "
    if not folder.is_dir():
        return ""
    if (deeper := next((str(one) for one in _folders_below(folder) if is_dataset(str(one))), None)) is not None:
        return f"They are in {deeper}: give that folder. "
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if packed := [name for name in names if name.lower().endswith(_ARCHIVES)]:
        return f"There are archives, {_listed(packed)}: unpack them first. "
    if not names:
        return "The folder is empty. "
    return f"There are {_listed(names)}: expected are the published names, in the same upper and lower case. "


def _folders_below(folder: Path) -> list[Path]:
    """Those next to the top first; links are followed no further than that."""
    found: list[Path] = []
    level = [folder]
    for _ in range(_DEPTH):
        with contextlib.suppress(OSError):  # a folder that nobody may look into
            level = [path for one in level for path in sorted(one.iterdir()) if path.is_dir()][:_MOST_FOLDERS]
            found += level
    return found[:_MOST_FOLDERS]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def other_name(uri: str) -> str:
    """The end of a sentence about an image that is not there: the same name with another suffix, if there is one."""
    if storage.is_remote(uri):
        return ""
    path = Path(uri)
    others = (path.with_suffix(suffix) for suffix in _OTHER_SUFFIXES if suffix != path.suffix)
    found = next((other.name for other in others if other.is_file()), None)
    return f"; there is {found}, and names must agree in every letter" if found else ""
