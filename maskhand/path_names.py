"""Names that become parts of paths: of recipes, datasets, splits, shards, labels, whoever gives them."""

from __future__ import annotations

from maskhand.errors import MaskhandError

_MARKS = frozenset("._-+=,@ ")
_MOST_BYTES = 120
"""Other words join a name in one file name, and file systems take 255 bytes."""


class PathNameError(MaskhandError, ValueError):
    """A name that would lead to another place than the one it names."""


def path_name(text: str, what: str = "name") -> str:
    """`text`, if it can be one part of a path; PathNameError otherwise. what: whose name it is, for the sentence."""
    good = text and text[0] not in ".- " and all(c.isalnum() or c in _MARKS for c in text)
    if not good or len(text.encode(errors="replace")) > _MOST_BYTES:
        raise PathNameError(
            f"{what} {text[:60]!r}: expected at most {_MOST_BYTES} letters, digits, and after the first of them any of "
            "'. _ - + = , @'; it becomes part of a path"
        )
    return text


def path_names(text: str, what: str = "name") -> str:
    """`text`, if every part between slashes is a `path_name`, such as freihand/training."""
    for part in text.split("/"):
        path_name(part, f"{what} {text[:60]!r}, part" if "/" in text else what)
    return text
