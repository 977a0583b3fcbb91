"""Kaggle's ASL alphabet: a folder of images per sign; nothing of the hand is annotated but the sign.

Facts: docs/formats.md#asl-alphabet. The box of such a hand is the whole image, and the sign is kept in `origin`.
Besides the published splits there are `letters_train` and `letters_test`: the 26 letters of the published training
images, dealt four to one within each letter, for text to mesh (paper section 4.3).
"""

from __future__ import annotations

import hashlib
import re

from maskhand import storage
from maskhand.adapters.base import Item, RawDataError, RawPlan, combined_digest, hand_sample, read_image, spot_check
from maskhand.catalog import CatalogError, DatasetSpec
from maskhand.conventions import Side
from maskhand.sample import HandSample

VERSION = 1
"""Raise it when the conversion changes, so that shards are built anew."""

_NAMES = {
    "train": re.compile(r"(?P<sign>[A-Z]|del|nothing|space)/(?P=sign)(?P<number>\d+)\.jpg"),
    "test": re.compile(r"(?P<sign>[A-Z]|del|nothing|space)_test(?P<number>)\.jpg"),
}
WITHOUT_HAND = "nothing"
"""The class that shows the background alone."""
LETTER_SPLITS = {"letters_train": False, "letters_test": True}
"""Split of the letters -> whether it is the held-out one."""
HELD_OUT = 5
"""Of each letter, one image in so many is held out."""


class AslAlphabetLayout:
    """`asl_alphabet_<split>/asl_alphabet_<split>/...` as the archive makes it, or with fewer of these folders."""

    side: Side

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        if spec.handedness == "both" or split not in (*_NAMES, *LETTER_SPLITS):
            raise CatalogError(
                f"{spec.name}: the layout asl_alphabet has splits {', '.join((*_NAMES, *LETTER_SPLITS))} and one "
                f"handedness, the card has {split!r} and {spec.handedness!r}"
            )
        self.spec, self.split, self.side = spec, split, spec.handedness
        self.published = "train" if split in LETTER_SPLITS else split
        folder = f"asl_alphabet_{self.published}"
        self.folders = [storage.join(raw_dir, folder, folder), storage.join(raw_dir, folder)]

    def present(self) -> bool:
        return any(self._images(folder) for folder in self.folders)

    def plan(self) -> RawPlan:
        folder, found = next(((f, images) for f in self.folders if (images := self._images(f))), (self.folders[0], []))
        hands = [entry for entry in found if entry[0] != WITHOUT_HAND]
        if self.split in LETTER_SPLITS:
            hands = _letters(hands, held_out=LETTER_SPLITS[self.split])
        if not hands:
            raise RawDataError(f"{folder}: images not found; see how_to_get in the dataset's card")

        def uri(position: int) -> str:
            return storage.join(folder, hands[position][2])

        def item(position: int) -> Item:
            return Item(keys[position], uri(position), {}, {"sign": hands[position][0], "path": hands[position][2]})

        keys = [f"{self.published}-{sign}{number:04d}" for sign, number, _ in hands]
        names = hashlib.sha256("\n".join(name for _, _, name in hands).encode()).hexdigest()
        checked = spot_check([uri(position) for position in range(len(hands))])
        digest = combined_digest(f"asl alphabet layout {VERSION}", names, checked)
        empty = sum(sign == WITHOUT_HAND for sign, _, _ in found)
        note = f"{empty} images of the class {WITHOUT_HAND!r} show no hand and were left out"
        return RawPlan(keys, item, digest, (note,) if empty else (), listed=len(found))

    def read(self, item: Item) -> HandSample:
        return hand_sample(self.spec, item, read_image(item.key, item.image_uri), side=self.side)

    def _images(self, folder: str) -> list[tuple[str, int, str]]:
        """(sign, number, path) by sign and number; the number is 0 in the test split."""
        prefix = storage.join(folder, "")
        names = (uri.removeprefix(prefix) for uri in storage.list_sizes(folder))
        matches = ((name, _NAMES[self.published].fullmatch(name)) for name in names)
        return sorted((m["sign"], int(m["number"] or 0), name) for name, m in matches if m)


def _letters(images: list[tuple[str, int, str]], held_out: bool) -> list[tuple[str, int, str]]:
    """The images of letters that are held out, or the others: of each letter one in `HELD_OUT`, by its name's hash."""
    letters: dict[str, list[tuple[str, int, str]]] = {}
    for entry in images:
        if len(entry[0]) == 1:
            letters.setdefault(entry[0], []).append(entry)
    chosen = []
    for entries in letters.values():
        ranked = sorted(entries, key=lambda entry: hashlib.sha256(entry[2].encode()).digest())
        cut = len(ranked) // HELD_OUT
        chosen += sorted(ranked[:cut] if held_out else ranked[cut:])
    return chosen
