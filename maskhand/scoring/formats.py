"""The only list of official formats: the command line offers it and cards are checked against it.

Formats are listed by where they are and loaded when they are used, so that reading a card imports no numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from maskhand.errors import MaskhandError
from maskhand.outside import OutsideError, load_outside

if TYPE_CHECKING:
    from maskhand.scoring.format import Format

FORMATS: Mapping[str, str] = {
    "freihand": "maskhand.scoring.freihand_ho3d:FREIHAND",
    "ho3d": "maskhand.scoring.freihand_ho3d:HO3D",
    "dexycb": "maskhand.scoring.dexycb:DEXYCB",
    "hint": "maskhand.scoring.hint:HINT",
    "interhand": "maskhand.scoring.interhand:INTERHAND",
}
"""Name -> `package.module:FORMAT`. A format from outside is named by the latter alone."""


class FormatError(MaskhandError, ValueError):
    """A format that does not exist or cannot be loaded; the message says which ones there are."""


def check_name(name: str) -> None:
    """Raise FormatError for what is neither in the list nor of the form `package.module:FORMAT`."""
    if name not in FORMATS and not all(name.partition(":")):
        raise FormatError(
            f"format {name!r} not known; known are {', '.join(FORMATS)}. One of your own is named package.module:FORMAT"
        )


def load_format(name: str) -> Format:
    """The format of this name. Raises FormatError when there is none."""
    check_name(name)
    from maskhand.scoring.format import Format

    try:
        found = load_outside(FORMATS.get(name, name))
    except OutsideError as error:
        raise FormatError(f"format {name!r} cannot be used: {error}") from error
    if not isinstance(found, Format):
        raise FormatError(f"format {name!r} cannot be used: it is {found!r}, expected a maskhand.scoring.format.Format")
    return found
