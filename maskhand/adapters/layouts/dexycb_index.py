"""Index of the images of a DexYCB split, from folders, a YAML file per sequence, and the calibration.

Facts: docs/formats.md#dexycb.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from maskhand import storage
from maskhand.adapters.base import RawDataError, first_existing
from maskhand.adapters.layouts.dexycb_splits import SEQUENCES_PER_SUBJECT, SERIALS, Selection
from maskhand.adapters.readers.yaml_files import YamlFile, read_yaml
from maskhand.arrays import Array
from maskhand.conventions import Side

_SUBJECT = re.compile(r"\d{8}-subject-(\d{2})")
_SIDES: tuple[Side, ...] = ("right", "left")


@dataclass(frozen=True)
class Sequence:
    """One recording: a subject grasps one object with one hand."""

    subject_folder: str
    subject: int
    """Counted from 1, as the folder's name does."""
    name: str
    place: int
    """Among the sequences of its subject, counted from 0."""
    frames: int
    """Per camera."""
    side: Side
    betas: object
    """As stored in the calibration, unchecked; None where it has none."""
    betas_file: str


@dataclass(frozen=True)
class Frame:
    """One image."""

    sequence: Sequence
    serial: str
    """Serial number of the camera."""
    number: int
    K_px: Array
    """(3, 3) intrinsics of the color camera."""

    @property
    def folder(self) -> str:
        return f"{self.sequence.subject_folder}/{self.sequence.name}/{self.serial}"


@dataclass(frozen=True)
class FrameIndex:
    """Every image of a split in the official order: sequence by sequence, in it camera by camera."""

    sequences: list[Sequence]
    serials: list[str]
    K_px: list[Array]
    """Per camera (3, 3)."""
    absent_subjects: list[int]
    """Counted from 1; the split has them, the folder does not."""
    yaml_sha256: list[str]
    """Hex digest of every YAML file that was read."""

    @cached_property
    def rows(self) -> Array:
        """(N, 3) int32: sequence, camera, frame."""
        grids = [
            np.meshgrid(np.int32(s), np.arange(len(self.serials)), np.arange(sequence.frames), indexing="ij")
            for s, sequence in enumerate(self.sequences)
        ]
        return np.concatenate([np.stack(grid, -1).reshape(-1, 3) for grid in grids]).astype(np.int32)

    def __len__(self) -> int:
        return len(self.rows)

    def frame(self, position: int) -> Frame:
        return self._frame(*self.rows[position].tolist())

    def __iter__(self) -> Iterator[Frame]:
        for row in self.rows.tolist():
            yield self._frame(*row)

    def _frame(self, sequence: int, camera: int, number: int) -> Frame:
        return Frame(self.sequences[sequence], self.serials[camera], number, self.K_px[camera])


def is_present(root: str, selection: Selection) -> bool:
    """Whether the calibration and a folder with frames of the split are there; lists folders up to the first one."""
    serials = {SERIALS[camera] for camera in selection.cameras}
    return storage.exists(intrinsics_uri(root, min(serials))) and any(
        serials.intersection(storage.list_folders(storage.join(root, folder, name)))
        for folder in _subjects(root, selection).values()
        for place, name in enumerate(storage.list_folders(storage.join(root, folder)))
        if place in selection.sequences
    )


def read_index(root: str, selection: Selection) -> FrameIndex:
    """The images of a split; RawDataError when calibration, subjects or descriptions are missing or unusable."""
    serials = [SERIALS[camera] for camera in sorted(selection.cameras)]
    uris = [first_existing([intrinsics_uri(root, serial)], "camera intrinsics") for serial in serials]
    cameras = [read_yaml(uri) for uri in uris]
    subjects = _subjects(root, selection)
    sha256 = [file.sha256 for file in cameras]
    sequences: list[Sequence] = []
    for subject, folder in subjects.items():
        sequences += _sequences(root, selection, subject, folder, sha256)
    if not any(sequence.frames for sequence in sequences):
        raise RawDataError(
            f"{root}: frames of the subjects of {selection.split} not found; see how_to_get in the dataset's card"
        )
    return FrameIndex(
        sequences,
        serials,
        [_intrinsics(file, uri) for file, uri in zip(cameras, uris, strict=True)],
        [subject + 1 for subject in sorted(selection.subjects - subjects.keys())],
        sha256,
    )


def _subjects(root: str, selection: Selection) -> dict[int, str]:
    """Subjects of the split that are there, counted from 0 -> folder."""
    matches = [match for name in storage.list_folders(root) if (match := _SUBJECT.fullmatch(name))]
    found = {int(match[1]) - 1: match[0] for match in matches}
    return {subject: found[subject] for subject in sorted(found) if subject in selection.subjects}


def _sequences(root: str, selection: Selection, subject: int, folder: str, sha256: list[str]) -> Iterator[Sequence]:
    """The split's sequences of one subject, in their order; the digests of what was read are added to `sha256`."""
    home = storage.join(root, folder)
    names = storage.list_folders(home)
    if selection.needs_every_sequence and len(names) != SEQUENCES_PER_SUBJECT:
        raise RawDataError(
            f"{home} holds {len(names)} sequences; {selection.split} chooses them by their place among all "
            f"{SEQUENCES_PER_SUBJECT}, so unpack the whole subject or leave it out, or name a split of s1 or s2"
        )
    betas: dict[str, object] = {}
    for place, name in enumerate(names):
        if place not in selection.sequences:
            continue
        uri = first_existing([storage.join(home, name, "meta.yml")], "the sequence's description")
        meta = read_yaml(uri)
        sha256.append(meta.sha256)
        frames, side, calibration = _description(meta.value, uri)
        shape_uri = storage.join(root, "calibration", f"mano_{calibration}", "mano.yml")
        if calibration not in betas:
            shape = read_yaml(first_existing([shape_uri], "the subject's hand shape"))
            sha256.append(shape.sha256)
            betas[calibration] = shape.value.get("betas")
        yield Sequence(folder, subject + 1, name, place, frames, side, betas[calibration], shape_uri)


def intrinsics_uri(root: str, serial: str) -> str:
    """The calibration file of a camera."""
    return storage.join(root, "calibration", "intrinsics", f"{serial}_640x480.yml")


def _intrinsics(file: YamlFile, uri: str) -> Array:
    try:
        fx, fy, ppx, ppy = (float(file.value["color"][name]) for name in ("fx", "fy", "ppx", "ppy"))
    except (KeyError, TypeError, ValueError) as error:
        raise RawDataError(
            f"{uri}: expected color: fx, fy, ppx, ppy as numbers ({type(error).__name__}: {error})"
        ) from None
    return np.array([[fx, 0, ppx], [0, fy, ppy], [0, 0, 1]])


def _description(meta: Mapping, uri: str) -> tuple[int, Side, str]:
    """Frames, side and hand calibration of a sequence."""
    try:
        frames, side, calibration = meta["num_frames"], meta["mano_sides"][0], meta["mano_calib"][0]
        if not isinstance(frames, int) or side not in _SIDES:
            raise ValueError(f"num_frames is {frames!r}, mano_sides[0] is {side!r}")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RawDataError(
            f"{uri}: expected num_frames, mano_sides and mano_calib ({type(error).__name__}: {error})"
        ) from None
    return frames, side, str(calibration)
