"""Photos without labels: a folder of images, and the hands that were found in them.

    FOLDER/.../NAME.jpg    any names and folders, JPEG or PNG
    FOLDER/hands.json      path below FOLDER -> [{"side", "box_xyxy_px": [x0, y0, x1, y1], "score"}, ...]

`maskhand find` writes hands.json (`annotate.find_hands`). A hand has a box and a side and nothing else: keypoints come
from a detector, and MANO targets from fits to those (`maskhand annotate mano SET --from keypoints`).
"""

from __future__ import annotations

import hashlib
from typing import Any

from maskhand import storage
from maskhand.adapters.base import (
    Item,
    RawDataError,
    RawPlan,
    combined_digest,
    hand_sample,
    numbers,
    read_image,
    spot_check,
)
from maskhand.adapters.keypoints_2d import key_of
from maskhand.catalog import DatasetSpec
from maskhand.json_text import JsonError, parse_json
from maskhand.sample import HandSample, SampleError

VERSION = 1
"""Raise it when the conversion changes, so that shards are built anew."""
HANDS_FILE = "hands.json"
ENDINGS = (".jpg", ".jpeg", ".png")


class PhotosLayout:
    """Every hand that hands.json lists, in the order of the images' paths."""

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        self.spec, self.raw_dir, self.split = spec, raw_dir, split
        self.hands_uri = storage.join(raw_dir, HANDS_FILE)

    def present(self) -> bool:
        return storage.exists(self.hands_uri)

    def plan(self) -> RawPlan:
        text = self._text()
        listed = hands_of_text(text, self.hands_uri)
        there = set(photos_below(self.raw_dir))
        hands = [(name, k, hand) for name in sorted(there & listed.keys()) for k, hand in enumerate(listed[name])]
        keys = [f"{key_of(self.split, name)}-{k}" for name, k, _ in hands]

        def item(position: int) -> Item:
            name, k, hand = hands[position]
            return Item(keys[position], storage.join(self.raw_dir, name), {"hand": hand}, {"photo": name, "hand": k})

        images = spot_check([storage.join(self.raw_dir, name) for name in dict.fromkeys(name for name, _, _ in hands)])
        digest = combined_digest(f"photos layout {VERSION}", hashlib.sha256(text).hexdigest(), images)
        gone, new = len(listed.keys() - there), len(there - listed.keys())
        notes = ((f"{gone} photos that {HANDS_FILE} names are not there", gone),
                 (f"{new} photos came after {HANDS_FILE}; run `maskhand find` again for their hands", new))  # fmt: skip
        return RawPlan(keys, item, digest, tuple(note for note, number in notes if number), listed=len(hands))

    def read(self, item: Item) -> HandSample:
        where, hand = f"{item.key}: {self.hands_uri}", item.annotation["hand"]
        if not isinstance(hand, dict) or hand.get("side") not in ("right", "left"):
            raise SampleError("bad_side", f"{where}: found {hand!r}, expected a hand whose side is right or left")
        box = numbers(where, "box_xyxy_px", hand.get("box_xyxy_px"), (4,))
        image = read_image(item.key, item.image_uri)
        score = {name: hand[name] for name in ("score",) if name in hand}
        return hand_sample(self.spec, item, image, side=hand["side"], box_xyxy_px=box, more_origin=score)

    def _text(self) -> bytes:
        try:
            return storage.read_bytes(self.hands_uri)
        except storage.MissingFileError:
            raise RawDataError(f"{self.hands_uri}: not found; see how_to_get in the dataset's card") from None


def hands_of_text(text: bytes, uri: str) -> dict[str, list[Any]]:
    """The content of a hands.json: path of a photo -> its hands. RawDataError, naming `uri`, when it is damaged."""
    try:
        listed = parse_json(text)
    except JsonError as error:
        raise RawDataError(f"{uri}: {error}; run `maskhand find --rebuild`") from None
    if not isinstance(listed, dict) or not all(isinstance(hands, list) for hands in listed.values()):
        raise RawDataError(f"{uri}: expected a list of hands for each photo; run `maskhand find --rebuild`")
    return listed


def photos_below(folder: str) -> list[str]:
    """Paths of the images in a folder and below it, sorted."""
    prefix = storage.join(folder, "")
    names = (uri.removeprefix(prefix) for uri in storage.list_sizes(folder))
    return sorted(name for name in names if name.lower().endswith(ENDINGS))
