"""The ASL alphabet as its archive unpacks: a folder per sign for training, an image per sign for testing."""

from __future__ import annotations

import hashlib
import string
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec
from support.published_layouts.hands import Fixture, Truth, write_image

SIZE = (200, 200)


def write(folder: Path, spec: DatasetSpec, split: str, count: int, seed: int = 0, *, levels: int = 2) -> Fixture:
    """`count` images of each of a few signs (all 28 of the test split), numbered from 1 without leading zeros.

    `letters_train` and `letters_test` are dealt from the images of `train`.
    """
    wanted, split = split, "test" if split == "test" else "train"
    rng = np.random.default_rng(seed)
    home = folder.joinpath(*[f"asl_alphabet_{split}"] * levels)
    truths: dict[str, Truth] = {}
    signs = [*string.ascii_uppercase, "nothing", "space"] if split == "test" else ["A", "Z", "del", "nothing", "space"]
    for sign in signs:
        for number in range(1, 9 + count) if split == "train" else [0]:
            path = home / (f"{sign}/{sign}{number}.jpg" if split == "train" else f"{sign}_test.jpg")
            write_image(path, rng, SIZE)
            if sign != "nothing":
                truths[f"{split}-{sign}{number:04d}"] = Truth(
                    "right",
                    None,
                    None,
                    np.zeros(21, bool),
                    None,
                    path,
                    box_xyxy_px=np.array([0, 0, *SIZE]),
                    origin={"sign": sign},
                )

    def no_joints(position: int, value: Any) -> None:
        raise AssertionError("nothing but the sign is annotated")

    others = frozenset[str]() if split == "test" else frozenset({"train", "letters_train", "letters_test"} - {wanted})
    if wanted.startswith("letters"):
        truths = _dealt(truths, held_out=wanted == "letters_test")
    return Fixture(folder, truths, home, no_joints, other_splits=others)


def _dealt(truths: dict[str, Truth], held_out: bool) -> dict[str, Truth]:
    """A fifth of each letter is held out: the least sha256 of its path below the signs' folder."""
    kept = {}
    for letter in string.ascii_uppercase:
        own = {key: truth for key, truth in truths.items() if truth.origin["sign"] == letter}
        paths = sorted(
            (t.image_path.relative_to(t.image_path.parents[1]).as_posix() for t in own.values()),
            key=lambda path: hashlib.sha256(path.encode()).hexdigest(),
        )
        out = set(paths[: len(own) // 5])
        kept |= {k: t for k, t in own.items() if (f"{letter}/{t.image_path.name}" in out) == held_out}
    return kept
