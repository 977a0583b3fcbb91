"""Whether the numbers of a hand model are a hand's: faces that make a surface and look outwards, skin that follows.

Every hand model in MANO's form is one surface with a single opening, at the wrist.
"""

from __future__ import annotations

import numpy as np

from maskhand.arrays import Array
from maskhand.conventions import LARGEST_HAND_M

_MET_SIDES = 0.95
"""Of MANO's 4614 sides of faces all but the wrist's 16 lie against another face's."""
_DOUBLE_SIDES = 1e-3
"""Of one surface there are none; of one with a part turned around as many as around that part."""
_ROUNDED = 1e-3
"""By how much a stored weight may be below zero."""


def why_no_surface(vertices_m: Array, faces: Array) -> str | None:
    """What is wrong with (F, 3) faces of (V, 3) vertices; None if nothing is."""
    if faces.min() < 0 or faces.max() >= len(vertices_m):
        return f"'f' names vertices outside 0..{len(vertices_m) - 1}"
    if len(twice := np.flatnonzero((faces == np.roll(faces, 1, axis=1)).any(1))):
        return f"face {twice[0]} of 'f' is {faces[twice[0]].tolist()}, expected three different vertices"
    sides = np.concatenate([faces[:, [k, (k + 1) % 3]] for k in range(3)])
    there, back = sides @ (len(vertices_m), 1), sides[:, ::-1] @ (len(vertices_m), 1)
    met, double = np.isin(there, back).mean(), 1 - len(np.unique(there)) / len(there)
    if met < _MET_SIDES or double > _DOUBLE_SIDES:
        return (
            f"'f' makes no surface: of the sides of its faces {100 * met:.3g} % lie against another face's, expected "
            f"all but the wrist's, and {100 * double:.3g} % run as another's, expected none; are the faces of another "
            "mesh, or some turned around?"
        )
    corners = (vertices_m - vertices_m.mean(0))[faces]
    if (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum() < 0:
        return (
            "the faces of 'f' look inwards, expected outwards (counterclockwise from outside); was the hand mirrored "
            "without them? Store f[:, ::-1]"
        )
    return None


def why_no_skin(weights: Array, shapedirs_m: Array, posedirs_m: Array) -> str | None:
    """What is wrong with (V, 16) skinning weights, (V, 3, 10) and (V, 3, 135) directions; None if nothing is."""
    if (lowest := float(weights.min())) < -_ROUNDED:
        vertex, joint = np.argwhere(weights == lowest)[0]
        return f"'weights' of vertex {vertex} for joint {joint} is {lowest:.3g}, expected 0 to 1"
    for name, directions in {"shapedirs": shapedirs_m, "posedirs": posedirs_m}.items():
        if (furthest_m := float(np.abs(directions).max())) > LARGEST_HAND_M:
            return (
                f"{name!r} moves a vertex by {furthest_m:.3g} m, expected less than a hand's size; is it in "
                "millimeters?"
            )
    return None
