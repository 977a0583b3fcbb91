"""DexYCB's four split setups, each with train, val and test: unseen sequences, subjects, cameras, grasped objects.

A split is a choice of subjects, cameras and sequences; a sequence is known by its place among the hundred of its
subject, in the order of their names. Source: NVlabs/dex-ycb-toolkit dex_ycb_toolkit/dex_ycb.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

SEQUENCES_PER_SUBJECT = 100

SERIALS = (
    "836212060125",
    "839512060362",
    "840412060917",
    "841412060263",
    "932122060857",
    "932122060861",
    "932122061900",
    "932122062010",
)
"""The eight cameras, in the order by which the splits count them."""

_SUBJECTS = frozenset(range(10))
_CAMERAS = frozenset(range(len(SERIALS)))
_SEQUENCES = frozenset(range(SEQUENCES_PER_SUBJECT))


@dataclass(frozen=True)
class Selection:
    """The part of the dataset that a split is; all numbers count from 0."""

    split: str
    """Its name."""
    subjects: frozenset[int] = _SUBJECTS
    cameras: frozenset[int] = _CAMERAS
    sequences: frozenset[int] = _SEQUENCES

    @property
    def needs_every_sequence(self) -> bool:
        """Whether sequences are chosen by their place, so that a subject with missing ones would be read wrongly."""
        return self.sequences != _SEQUENCES


def _fifths(places: Iterable[int]) -> frozenset[int]:
    """Every subject grasps each of 20 objects in five consecutive sequences: those at these places of the five."""
    wanted = set(places)
    return frozenset(s for s in _SEQUENCES if s % 5 in wanted)


def _objects(objects: Iterable[int]) -> frozenset[int]:
    wanted = set(objects)
    return frozenset(s for s in _SEQUENCES if s // 5 in wanted)


SELECTIONS: dict[str, Selection] = {
    selection.split: selection
    for selection in (
        Selection("s0_train", sequences=_fifths([0, 1, 2, 3])),
        Selection("s0_val", subjects=frozenset([0, 1]), sequences=_fifths([4])),
        Selection("s0_test", subjects=frozenset(range(2, 10)), sequences=_fifths([4])),
        Selection("s1_train", subjects=frozenset([0, 1, 2, 3, 4, 5, 9])),
        Selection("s1_val", subjects=frozenset([6])),
        Selection("s1_test", subjects=frozenset([7, 8])),
        Selection("s2_train", cameras=frozenset(range(6))),
        Selection("s2_val", cameras=frozenset([6])),
        Selection("s2_test", cameras=frozenset([7])),
        Selection("s3_train", sequences=_objects(set(range(20)) - {3, 7, 11, 15, 19})),
        Selection("s3_val", sequences=_objects([3, 19])),
        Selection("s3_test", sequences=_objects([7, 11, 15])),
    )
}
