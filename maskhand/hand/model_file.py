"""Reader of hand models in MANO's pickle format, or saved as npz, that neither trusts a pickle nor needs chumpy.

A pickle can run any code, so it is read by an unpickler that knows numpy arrays, scipy's sparse matrices and chumpy
values only (`maskhand.hand.model_pickle`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.arrays import Array
from maskhand.carried import CarriedFolder, here
from maskhand.conventions import (
    FINGERTIP_VERTICES,
    LARGEST_HAND_M,
    MANO_16_PARENTS,
    NUM_BETAS,
    NUM_FACES,
    NUM_MANO_JOINTS,
    NUM_VERTICES,
    SMALLEST_HAND_M,
    Side,
)
from maskhand.digest import short_digest
from maskhand.errors import MaskhandError
from maskhand.hand.array_archive import ZIP, UnreadableArchiveError, read_array_archive
from maskhand.hand.array_pickle import UnreadablePickleError, UnsafePickleError, read_array_pickle
from maskhand.hand.model_pickle import ModelUnpickler, plain
from maskhand.hand.surface import why_no_skin, why_no_surface

__all__ = ["HandModel", "HandModelError", "UnsafePickleError", "default_hand_path", "hand_files", "load_hand_model"]


MANO_DIR_VARIABLE = "MASKHAND_MANO_DIR"
_MOST_BYTES = 1 << 28
"""Of a field of an npz file; MANO's largest one has 3 MB."""
OPEN_HAND_FOLDER = Path(__file__).parent / "open_hand"


class HandModelError(MaskhandError, ValueError):
    """A hand model file that cannot be used; the message names the file, the field and what was expected."""


@dataclass(frozen=True)
class HandModel:
    """A MANO-form hand: template, blend shapes and skinning. Rest frame of MANO, meters, float64."""

    side: Side
    v_template_m: Array
    """(778, 3) mean shape, flat hand."""
    faces: Array
    """(1538, 3) int64, outward winding."""
    weights: Array
    """(778, 16) skinning weights, rows sum to one."""
    j_regressor: Array
    """(16, 778) dense: joints = j_regressor @ vertices of the rest pose."""
    parents: Array
    """(16,) int64, -1 for the wrist."""
    shapedirs: Array
    """(778, 3, 10) meters per unit of beta."""
    posedirs: Array
    """(778, 3, 135) meters per unit of (R - I), row-major, joints 1..15."""
    hands_mean_aa: Array
    """(15, 3) MANO's mean pose; absolute pose = stored pose + this where a dataset has flat_hand_mean=False."""
    hands_components: Array
    """(45, 45) rows are MANO's pose principal components, over axis-angle relative to the mean pose."""
    hands_std: Array | None
    """(45,) radians, standard deviation along each component over the poses it was made from (`hands_coeffs`); None
    where the file has none."""
    digest: str
    """First 12 hex digits of the file's sha256."""


def load_hand_model(path: str | Path) -> HandModel:
    """Read and check a hand model pickle (licensed MANO, the open hand, or any file in the same form).

    Raises FileNotFoundError, UnsafePickleError for a pickle with anything but arrays, and HandModelError when a
    field is missing, has another shape or is impossible.
    """
    path = Path(path)
    if not here(path).is_file():
        raise FileNotFoundError(f"{path}: no such hand model file; see `maskhand assets` for where to get one")
    data = here(path).read_bytes()
    fields = _read_fields(data, path)
    v_template = _array(fields, "v_template", (NUM_VERTICES, 3), path)
    model = HandModel(
        side=_side(v_template, path),
        v_template_m=v_template,
        faces=_array(fields, "f", (NUM_FACES, 3), path, np.int64),
        weights=_array(fields, "weights", (NUM_VERTICES, NUM_MANO_JOINTS), path),
        j_regressor=_array(fields, "J_regressor", (NUM_MANO_JOINTS, NUM_VERTICES), path),
        parents=_parents(fields, path),
        shapedirs=_array(fields, "shapedirs", (NUM_VERTICES, 3, NUM_BETAS), path),
        posedirs=_array(fields, "posedirs", (NUM_VERTICES, 3, 9 * (NUM_MANO_JOINTS - 1)), path),
        hands_mean_aa=_array(fields, "hands_mean", (45,), path).reshape(15, 3),
        hands_components=_array(fields, "hands_components", (45, 45), path),
        hands_std=_pose_spread(fields, path),
        digest=short_digest(data),
    )
    for name, rows, tolerance in (("weights", model.weights, 1e-3), ("J_regressor", model.j_regressor, 1e-2)):
        if not np.allclose(rows.sum(1), 1.0, atol=tolerance):
            raise HandModelError(f"{path}: the rows of {name!r} do not sum to one")
    size_m = float(np.linalg.norm(np.ptp(model.v_template_m, axis=0)))
    if not SMALLEST_HAND_M <= size_m <= LARGEST_HAND_M:
        raise HandModelError(
            f"{path}: the hand of 'v_template' is {size_m:.3g} m large, expected {SMALLEST_HAND_M:g} to "
            f"{LARGEST_HAND_M:g}; is it in millimeters?"
        )
    if (turn := float(np.linalg.norm(model.hands_mean_aa, axis=1).max())) > np.pi:
        raise HandModelError(
            f"{path}: 'hands_mean' turns a joint by {turn:.3g} radians, expected at most half a turn; is it in degrees?"
        )
    wrong = why_no_surface(model.v_template_m, model.faces) or why_no_skin(
        model.weights, model.shapedirs, model.posedirs
    )
    if wrong:
        raise HandModelError(f"{path}: {wrong}")
    return model


def default_hand_path(side: Side = "right") -> Path:
    """`$MASKHAND_MANO_DIR/MANO_RIGHT.pkl` when that variable is set, else the open hand shipped with maskhand."""
    folder = os.environ.get(MANO_DIR_VARIABLE)
    if not folder:
        return OPEN_HAND_FOLDER / f"OPEN_HAND_{side.upper()}.pkl"
    path = Path(folder) / f"MANO_{side.upper()}.pkl"
    if not here(path).is_file():
        raise FileNotFoundError(
            f"{path}: not found; ${MANO_DIR_VARIABLE} must name the folder with MANO_RIGHT.pkl and MANO_LEFT.pkl "
            "(unset it to use the open hand)"
        )
    return path


def hand_files() -> CarriedFolder:
    """The hand models in use, as they travel to other machines; a file that is not there is left out."""
    folder = os.environ.get(MANO_DIR_VARIABLE)
    prefix = "MANO" if folder else "OPEN_HAND"
    return CarriedFolder.of(folder or OPEN_HAND_FOLDER, [f"{prefix}_{side}.pkl" for side in ("RIGHT", "LEFT")])


def _read_fields(data: bytes, path: Path) -> Mapping[str, Any]:
    try:
        if data.startswith(ZIP):
            return _archived_fields(data, path)
        fields = read_array_pickle(data, str(path), ModelUnpickler)
    except (UnreadablePickleError, UnreadableArchiveError) as error:
        raise HandModelError(f"{error}; expected a hand model in MANO's form") from None
    if not isinstance(fields, dict):
        raise HandModelError(f"{path}: expected a dictionary of fields, found {type(fields).__name__}")
    return fields


def _archived_fields(data: bytes, path: Path) -> Mapping[str, Any]:
    """The fields of a model that was saved as npz, as smplx reads it: what is no array is an array around it."""
    arrays = read_array_archive(data, str(path), None, _MOST_BYTES, ModelUnpickler)
    return {
        name: array.item() if array.dtype == object and array.ndim == 0 else array for name, array in arrays.items()
    }


def _array(fields: Mapping[str, Any], name: str, shape: tuple[int, ...], path: Path, dtype: type = np.float64) -> Array:
    if name not in fields:
        raise HandModelError(f"{path}: field {name!r} is missing; a MANO model has it with shape {shape}")
    try:
        value: Array = np.array(plain(fields[name]), dtype=dtype)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
        raise HandModelError(f"{path}: field {name!r} is not an array ({error})") from None
    if name == "shapedirs" and value.ndim == 3 and value.shape[2] > shape[2]:
        value = value[..., : shape[2]]
    if value.shape != shape:
        raise HandModelError(f"{path}: field {name!r} has shape {value.shape}, expected {shape}")
    if not np.isfinite(value).all():
        raise HandModelError(f"{path}: field {name!r} holds NaN or infinity")
    return value


def _pose_spread(fields: Mapping[str, Any], path: Path) -> Array | None:
    """(45,) standard deviation of `hands_coeffs` (N, 45), a row per pose; None where the file has none."""
    if "hands_coeffs" not in fields:
        return None
    poses = np.shape(plain(fields["hands_coeffs"]))[:1]
    coefficients = _array(fields, "hands_coeffs", (*poses, 45), path)
    if len(coefficients) < 2:
        raise HandModelError(f"{path}: field 'hands_coeffs' holds {len(coefficients)} pose; a spread takes two or more")
    return coefficients.std(axis=0)


def _parents(fields: Mapping[str, Any], path: Path) -> Array:
    parents = _array(fields, "kintree_table", (2, NUM_MANO_JOINTS), path, np.int64)[0]
    parents[0] = -1  # stored as 2 ** 32 - 1
    if tuple(parents) != MANO_16_PARENTS:
        raise HandModelError(f"{path}: 'kintree_table' gives parents {parents.tolist()}, expected {MANO_16_PARENTS}")
    return parents


def _side(v_template_m: Array, path: Path) -> Side:
    """In MANO's rest frame the fingers of a right hand point along -x, those of a left hand along +x."""
    tips = v_template_m[list(FINGERTIP_VERTICES["smplx"][1:])]
    side: Side = "right" if tips[:, 0].mean() < v_template_m[:, 0].mean() else "left"
    other = "LEFT" if side == "right" else "RIGHT"
    if other in path.stem.upper():
        raise HandModelError(f"{path}: the name says {other.lower()}, but the mesh is a {side} hand; was it renamed?")
    return side
