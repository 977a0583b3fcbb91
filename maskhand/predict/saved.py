"""The kinds of files of a picture, as plain words."""

from __future__ import annotations

from typing import Literal, get_args

Saved = Literal["overlay", "mesh", "json"]
"""What is written of a picture: an overlay, meshes, its hands as readable JSON."""

SAVED: tuple[Saved, ...] = get_args(Saved)
