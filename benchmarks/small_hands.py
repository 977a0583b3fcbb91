"""Small hands in large pictures: found, wrongly found and seconds, by the usual search and with `--small`.

    python benchmarks/small_hands.py --pictures 12

Rendered hands with their forearms are laid into rendered backgrounds at known sizes (longer side of the box around the
joints), six to a picture; a hand is found when a box overlaps its own by `SAME` or more, and every other box is false.
Pictures without hands are searched as well.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from maskhand.annotate.hand_finder import find_hands
from maskhand.annotate.small_hands import SmallHandFinder
from maskhand.arrays import Array
from maskhand.geometry2d import box_iou, tight_box
from maskhand.synth.background import make_background
from maskhand.synth.film import develop, sample_grade
from maskhand.synth.scene import open_studio, render_foreground, sample_labels
from maskhand.synth.view import SIZE_PX
from maskhand.workspace import Workspace

SIZES_PX = (11, 14, 18, 24, 32, 48, 72)
HANDS = 6
SAME = 0.3
"""Intersection over union from which a box is the hand's: a box of few pixels is off by a pixel at once."""


@dataclass(frozen=True)
class KnownPicture:
    image: Array
    boxes: tuple[Array, ...]
    """(4,) each, tight around the joints."""


def picture(rng: np.random.Generator, size: tuple[int, int], hand_px: float, hands: int) -> KnownPicture:
    """A background with so many hands of that size, none near another."""
    image = make_background(rng, size).copy()
    boxes: list[Array] = []
    while len(boxes) < hands:
        labels = sample_labels(open_studio(), rng)
        uvw = labels.joints_cam_m @ labels.K_px.T
        box = tight_box(uvw[:, :2] / uvw[:, 2:])
        scale = hand_px / float((box[2:] - box[:2]).max())
        side = round(SIZE_PX * scale)
        x, y = (int(rng.integers(length - side)) for length in size)
        placed = (box + 0.5) * (side / SIZE_PX) - 0.5 + [x, y, x, y]
        if any(np.abs(placed[:2] - other[:2]).max() < 1.5 * side for other in boxes):
            continue
        before = cv2.resize(image[y : y + side, x : x + side], (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_CUBIC)
        shown = render_foreground(open_studio(), labels, rng, empty_handed=True)
        after = develop(shown.layer, shown.gain, before, sample_grade(rng), rng)
        cover = cv2.GaussianBlur(shown.layer.alpha, (0, 0), 1.0)[..., None]
        mixed = (cover * after + (1 - cover) * before).astype(np.uint8)
        image[y : y + side, x : x + side] = cv2.resize(mixed, (side, side), interpolation=cv2.INTER_AREA)
        boxes.append(placed)
    return KnownPicture(image, tuple(boxes))


def judged(found: Sequence[Array], true: Sequence[Array]) -> tuple[int, int]:
    """How many of the true boxes were found, and how many of the found ones are false."""
    hits = sum(any(box_iou(box, other) >= SAME for box in found) for other in true)
    false = sum(all(box_iou(box, other) < SAME for other in true) for box in found)
    return hits, false


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4, help="of each size")
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 768), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES_PX, help="of hands, pixels")
    parser.add_argument("--assets", type=Path, default=Workspace.at().assets)
    options = parser.parse_args()
    searches = {
        "usual": lambda image: find_hands(image, options.assets),
        "small": SmallHandFinder(str(options.assets)),
    }
    size = f"{options.size[0]} x {options.size[1]}"
    print(f"{options.pictures} pictures of {size} a row, {HANDS} hands each: found / false / CPU seconds, of a picture")
    for hand_px in (*options.sizes, 0):
        results: Counter[str] = Counter()
        for k in range(options.pictures):
            rng = np.random.default_rng([hand_px, k])
            known = picture(rng, tuple(options.size), hand_px, HANDS if hand_px else 0)
            for name, search in searches.items():
                begun = time.process_time()
                hands = search(known.image)
                results[f"{name} ms"] += round(1000 * (time.process_time() - begun))
                hits, false = judged([hand.box_xyxy_px for hand in hands], known.boxes)
                results[f"{name} hits"] += hits
                results[f"{name} false"] += false
        shares = [
            f"{name}: {100 * results[f'{name} hits'] / max(options.pictures * HANDS, 1):3.0f} % / "
            f"{results[f'{name} false'] / options.pictures:.2f} / {results[f'{name} ms'] / options.pictures / 1000:.1f}"
            for name in searches
        ]
        print(f"{f'{hand_px} px' if hand_px else 'no hands':8s}  " + "   ".join(shares), flush=True)


if __name__ == "__main__":
    main()
