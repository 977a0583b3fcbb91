"""The views in which a hand is fully visible, from MTC's annotation pickle."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskhand.adapters.base import RawDataError, joint_order, numbers
from maskhand.adapters.readers.columns import DictionaryColumn, FloatColumn, LazySequence
from maskhand.catalog import DatasetSpec
from maskhand.conventions import BONES, Side
from maskhand.sample import SampleError

_SIDES: tuple[Side, ...] = ("right", "left")

_BONES_CM, _PLAUSIBLE_CM = 81, (50, 120)
"""Summed length of a hand's 20 bones in the authors' code, and what the median of grown people's may be. The release
states no unit, and a wrong one would make every hand ten or a hundred times too large or too small."""
_MEASURED = 100
"""Hands, spread evenly over the split."""


@dataclass(frozen=True)
class View:
    """One hand of one person in one camera's image."""

    sequence: str
    frame: str
    person: int
    side: Side
    camera: int
    hand: int
    """Row of its landmarks."""


def checked_hands(text: str, name: str) -> frozenset[tuple[str, str, Side]]:
    """Sequence, frame and side of the hands that the authors marked as wrong: lines `SEQ FRAME left|righ 0|1`."""
    verdicts = {"0": False, "False": False, "1": True, "True": True}
    wrong = set()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 4 or words[3] not in verdicts or words[2] not in ("left", "righ", "right"):
            raise RawDataError(f"{name}, line {number}: expected 'sequence frame left|righ True|False', found {line!r}")
        if not verdicts[words[3]]:
            side: Side = "left" if words[2] == "left" else "right"
            wrong.add((words[0], words[1], side))
    return frozenset(wrong)


def visible_views(
    people: Any, part: str, uri: str, wrong: frozenset[tuple[str, str, Side]]
) -> tuple[Sequence[View], FloatColumn]:
    """Views by the authors' rule (all joints in the image, none hidden, no overlap), and (63,) landmarks per hand."""
    if not isinstance(people, dict) or not isinstance(people.get(part), list):
        raise RawDataError(f"{uri}: expected a dictionary with the lists training_data and testing_data")
    landmarks, owners = FloatColumn((63,)), DictionaryColumn()
    view_hands, view_cameras = array("i"), array("i")
    for person in people[part]:
        try:
            place = (str(person["seqName"]), str(person["frame_str"]))
            for side in _SIDES:
                hand = person.get(f"{side}_hand")
                if hand is None or (*place, side) in wrong:
                    continue
                cameras = [int(camera) for camera, seen in hand["2D"].items() if _fully_visible(seen)]
                if not cameras:
                    continue
                view_hands.extend([len(landmarks)] * len(cameras))
                view_cameras.extend(cameras)
                owners.append((*place, int(person["id"]), side))
                landmarks.append(hand.get("landmarks"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RawDataError(
                f"{uri}: expected seqName, frame_str, id and hands with 2D views per person "
                f"({type(error).__name__}: {error})"
            ) from None
    if not view_hands:
        raise RawDataError(f"{uri}: {part} has no hand that is fully visible in any view")

    def view(position: int) -> View:
        hand = view_hands[position]
        sequence, frame, person, side = owners[hand]
        return View(sequence, frame, person, side, view_cameras[position], hand)

    return LazySequence(len(view_hands), view), landmarks


def _fully_visible(seen: Any) -> bool:
    return all(seen["insideImg"]) and not any(seen["occluded"]) and not seen["overlap"]


def check_unit(landmarks: FloatColumn, spec: DatasetSpec, uri: str) -> None:
    """RawDataError where the bones of the hands, in the card's unit, do not have the length of a hand's."""
    hands = []
    for k in np.linspace(0, len(landmarks) - 1, _MEASURED).astype(int):
        with contextlib.suppress(SampleError):  # a hand that cannot be measured is rejected when it is read
            hands.append(numbers("", "landmarks", landmarks[k], (63,)).reshape(21, 3)[joint_order(spec)])
    if not hands:
        return
    parents, children = np.array(BONES).T
    joints = 100 * spec.meters_per_unit * np.stack(hands)
    found = np.median(np.linalg.norm(joints[:, children] - joints[:, parents], axis=2).sum(axis=1))
    low, high = _PLAUSIBLE_CM
    if not low <= found <= high:
        raise RawDataError(
            f"{uri}: read in the card's unit ({spec.units}), the bones of a hand's landmarks add up to {found:.3g} cm "
            f"(median), expected {low} to {high}, about {_BONES_CM}; put this release's unit into units of the card"
        )
