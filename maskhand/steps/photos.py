"""The step that looks for hands in photos without labels, so that they become a dataset."""

from __future__ import annotations

import json
from dataclasses import dataclass

from maskhand import storage
from maskhand.adapters.base import RawDataError
from maskhand.adapters.layouts.photos import ENDINGS, HANDS_FILE, hands_of_text, photos_below
from maskhand.annotate.find_hands import FindHands, PhotoHands
from maskhand.cluster.map import map_shards
from maskhand.cluster.session import ray_session
from maskhand.fetched_models import carried_hand_models
from maskhand.progress import Progress
from maskhand.steps.receipt import Receipt
from maskhand.workspace import Workspace

PHOTOS = "photos"
"""The dataset of the catalog whose photos are one's own."""
_AT_ONCE = 16
"""Photos that a worker looks at between two reports of progress."""


@dataclass(frozen=True)
class PhotosReceipt(Receipt):
    """Names `hands.json` beside the photos."""

    photos: int
    hands: int
    photos_looked_at: int
    """Those that were not listed before."""
    doubtful_hands_left_out: int
    photos_that_cannot_be_read: int


def find(workspace: Workspace, folder: str | None, progress: Progress, rebuild: bool = False) -> PhotosReceipt:
    """hands.json beside the photos of a folder (else WORKSPACE/raw/photos).

    Photos that it lists already keep their hands, which people may have edited; `rebuild` looks at all again. Raises
    RawDataError when there is no photo or hands.json is damaged, AssetError when the finder's models cannot be had.
    """
    place = storage.absolute(folder or str(workspace.raw / PHOTOS))
    names, uri = photos_below(place), storage.join(place, HANDS_FILE)
    if not names:
        raise RawDataError(f"{place}: no photo here; expected files that end in {', '.join(ENDINGS)}")
    keep = storage.exists(uri) and not rebuild
    listed = hands_of_text(storage.read_bytes(uri), uri) if keep else {}
    new = [name for name in names if name not in listed]
    looked = 0

    def on_done(some: list[PhotoHands]) -> None:
        nonlocal looked
        looked += len(some)
        progress(looked, len(new), f"{looked} photos")

    chunks = [new[start : start + _AT_ONCE] for start in range(0, len(new), _AT_ONCE)]
    models = carried_hand_models(workspace.assets)  # fetched once, not by every worker
    with ray_session():
        answers = map_shards(FindHands(place, str(workspace.assets)), chunks, carried=[models], on_done=on_done)
    found = [photo for some in answers for photo in some]
    hands = listed | {photo.name: photo.hands or [] for photo in found}
    lines = (f"{json.dumps(name)}: {json.dumps(hands[name])}" for name in sorted(hands))
    storage.write_bytes_atomic(uri, ("{" + ",\n".join(lines) + "}\n").encode())
    return PhotosReceipt.of(
        uri,
        photos=len(names),
        hands=sum(map(len, hands.values())),
        photos_looked_at=len(new),
        doubtful_hands_left_out=sum(photo.uncertain for photo in found),
        photos_that_cannot_be_read=sum(photo.hands is None for photo in found),
    )
