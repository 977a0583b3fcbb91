"""Published raw files -> `HandSample`: the registry of layouts, one short module each.

An adapter is selected by the `layout` of a dataset's card and takes every fact from the card (joint order, units, axes,
MANO convention, images per annotation); it never branches on the dataset's name. It works in two steps:

* `plan()` runs once, in the driver: it reads the annotation files and names every hand of the split;
* `read(item)` runs in many processes: it reads one image and converts one annotation into maskhand's conventions. It
  raises `SampleError` with a countable reason, so that one bad file costs one sample and never its neighbors.
  `read_hand` validates the result.

Layouts lie in `layouts/`, the readers of file formats that they share in `readers/`.

A layout of another package is named in the card as `package.module:Class`; docs/add_a_dataset.md shows one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from maskhand import storage
from maskhand.adapters.base import MENDABLE, Adapter, Item, RawDataError, RawPlan, read_hand
from maskhand.adapters.layouts.asl_alphabet import AslAlphabetLayout
from maskhand.adapters.layouts.coco_wholebody import CocoWholeBodyLayout
from maskhand.adapters.layouts.dexycb import DexYcbLayout
from maskhand.adapters.layouts.freihand import FreiHandLayout
from maskhand.adapters.layouts.halpe import HalpeLayout
from maskhand.adapters.layouts.hamer_npz import HamerNpzLayout
from maskhand.adapters.layouts.hamer_tars import HamerTarsLayout
from maskhand.adapters.layouts.hand143 import Hand143Layout
from maskhand.adapters.layouts.hand_labels import HandLabelsLayout
from maskhand.adapters.layouts.hint import HIntLayout
from maskhand.adapters.layouts.ho3d import Ho3dLayout
from maskhand.adapters.layouts.interhand26m import InterHandLayout
from maskhand.adapters.layouts.mtc import MtcLayout
from maskhand.adapters.layouts.photos import PhotosLayout
from maskhand.adapters.layouts.rhd import RhdLayout
from maskhand.adapters.raw_places import what_is_there
from maskhand.catalog import CatalogError, DatasetSpec
from maskhand.errors import MaskhandError
from maskhand.outside import OutsideError, load_outside

LAYOUTS: dict[str, type[Adapter]] = {
    "asl_alphabet": AslAlphabetLayout,
    "coco_wholebody": CocoWholeBodyLayout,
    "dexycb": DexYcbLayout,
    "freihand": FreiHandLayout,
    "hamer_npz": HamerNpzLayout,
    "hamer_tars": HamerTarsLayout,
    "halpe": HalpeLayout,
    "hand143": Hand143Layout,
    "hand_labels": HandLabelsLayout,
    "hint": HIntLayout,
    "ho3d": Ho3dLayout,
    "interhand26m": InterHandLayout,
    "mtc": MtcLayout,
    "photos": PhotosLayout,
    "rhd": RhdLayout,
}

__all__ = [
    "LAYOUTS",
    "MENDABLE",
    "Adapter",
    "Item",
    "RawDataError",
    "RawPlan",
    "check_present",
    "layout_of",
    "open_adapter",
    "present_splits",
    "read_hand",
]


def layout_of(spec: DatasetSpec) -> type[Adapter]:
    """The adapter that a card names: a key of LAYOUTS, or `package.module:Class`. CatalogError when it is not there."""
    if spec.layout in LAYOUTS:
        return LAYOUTS[spec.layout]
    if not all(spec.layout.partition(":")):
        raise CatalogError(
            f"{spec.name}: no adapter reads the layout {spec.layout!r}; known: {', '.join(LAYOUTS)}. "
            "A layout of another package is named package.module:Class"
        )
    try:
        found = load_outside(spec.layout)
    except OutsideError as error:
        raise CatalogError(f"{spec.name}: the card's layout {spec.layout!r} cannot be used: {error}") from error
    if not (isinstance(found, type) and all(hasattr(found, name) for name in ("present", "plan", "read"))):
        raise CatalogError(
            f"{spec.name}: the card's layout {spec.layout!r} cannot be used: it is {found!r}, expected a class with "
            "the methods present, plan and read (maskhand.adapters.base.Adapter)"
        )
    return found


def open_adapter(spec: DatasetSpec, raw_dir: str, split: str) -> Adapter:
    """The adapter for a card's layout over one split; CatalogError for an unknown layout or split."""
    spec.check_split(split)
    return layout_of(spec)(spec, storage.absolute(raw_dir), split)


def present_splits(spec: DatasetSpec, raw_dir: str) -> list[str]:
    """The splits built when none is named: the card's default splits whose annotation files are in this folder.

    RawDataError when there is none; splits that share the images of the default ones are never chosen for the user.
    """
    if "://" not in raw_dir and not Path(raw_dir).is_dir():
        there = what_is_there(raw_dir, lambda folder: False)
        raise RawDataError(f"{raw_dir}: {there or 'there is no such folder. '}{spec.how_to_get}")
    default = spec.default_splits or tuple(spec.splits)
    if found := _present(spec, raw_dir, default):
        return found
    if others := _present(spec, raw_dir, [split for split in spec.splits if split not in default]):
        raise RawDataError(
            f"{raw_dir}: none of {spec.name}'s default splits ({', '.join(default)}) is here; name the split that you "
            f"want, there are files of {', '.join(others)}"
        )
    there = what_is_there(raw_dir, partial(_holds_one, spec, tuple(spec.splits)))
    raise RawDataError(
        f"{raw_dir}: none of {spec.name}'s splits ({', '.join(spec.splits)}) is here. {there}{spec.how_to_get}"
    )


def check_present(spec: DatasetSpec, raw_dir: str, splits: Sequence[str]) -> None:
    """RawDataError where no file of any of these splits is there."""
    if not _present(spec, raw_dir, splits):
        there = what_is_there(raw_dir, partial(_holds_one, spec, splits))
        raise RawDataError(f"{raw_dir}: no label file of {spec.name}/{splits[0]} is here. {there}{spec.how_to_get}")


def _holds_one(spec: DatasetSpec, splits: Sequence[str], folder: str) -> bool:
    try:
        return bool(_present(spec, folder, splits))
    except (MaskhandError, OSError):  # what stands there is no such file, or nobody may look
        return False


def _present(spec: DatasetSpec, raw_dir: str, splits: Iterable[str]) -> list[str]:
    return [split for split in splits if open_adapter(spec, raw_dir, split).present()]
