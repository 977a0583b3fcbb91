"""Photos of one's own: any names in any folders, and the hands that were found in them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec
from support.published_layouts.hands import Fixture, Truth, write_image

SIZE = (320, 240)


def write(folder: Path, spec: DatasetSpec, split: str, count: int, seed: int = 0) -> Fixture:
    """`count` photos in folders, of one or two hands each; one more in which there is none."""
    rng = np.random.default_rng(seed)
    truths: dict[str, Truth] = {}
    listed: dict[str, list[dict[str, Any]]] = {"nobody.jpg": []}
    write_image(folder / "nobody.jpg", rng, SIZE)
    for k in range(count):
        name = f"day{k % 2}/img_{k:03d}.jpg"
        write_image(folder / name, rng, SIZE)
        listed[name] = []
        for side in ("right", "left")[: 1 + k % 2]:
            box = [*rng.uniform(0, 100, 2).round(2), *rng.uniform(120, 230, 2).round(2)]
            listed[name].append({"side": side, "box_xyxy_px": box, "score": 0.9})
    for name in sorted(listed):
        for k, hand in enumerate(listed[name]):
            truths[_key(split, name, k)] = Truth(
                hand["side"],
                None,
                None,
                np.zeros(21, bool),
                None,
                folder / name,
                box_xyxy_px=np.array(hand["box_xyxy_px"]),
                origin={"photo": name, "hand": k, "score": 0.9},
            )
    (folder / "hands.json").write_text(json.dumps(listed))

    def no_joints(position: int, value: Any) -> None:
        raise AssertionError("no joint is annotated")

    return Fixture(folder, truths, folder / "hands.json", no_joints)


def _key(split: str, name: str, hand: int) -> str:
    """Characters that no key may hold become `-`; a hash of the path keeps names apart that are then the same."""
    safe = name.replace("/", "-").replace(".", "-")
    return f"{split}-{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}-{hand}"
