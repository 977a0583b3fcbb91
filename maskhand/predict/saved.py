"""The names of the kinds of files that can be written for a picture."""

from __future__ import annotations

from typing import Literal, get_args

Saved = Literal["overlay", "mesh", "json"]
"""A kind of file to write for a picture: an overlay, meshes, its hands as readable JSON."""

SAVED: tuple[Saved, ...] = get_args(Saved)
