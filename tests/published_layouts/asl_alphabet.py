"""The ASL alphabet as its archive unpacks: a folder per sign for training, a picture per sign for testing."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec
from published_layouts.hands import Fixture, Truth, write_picture

SIZE = (200, 200)


def write(folder: Path, spec: DatasetSpec, split: str, count: int, seed: int = 0, *, levels: int = 2) -> Fixture:
    """`count` pictures of each of a few signs (all 28 of the test split), numbered from 1 without leading zeros."""
    rng = np.random.default_rng(seed)
    home = folder.joinpath(*[f"asl_alphabet_{split}"] * levels)
    truths: dict[str, Truth] = {}
    signs = [*string.ascii_uppercase, "nothing", "space"] if split == "test" else ["A", "Z", "del", "nothing", "space"]
    for sign in signs:
        for number in range(1, 9 + count) if split == "train" else [0]:
            path = home / (f"{sign}/{sign}{number}.jpg" if split == "train" else f"{sign}_test.jpg")
            write_picture(path, rng, SIZE)
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

    return Fixture(folder, truths, home, no_joints)
