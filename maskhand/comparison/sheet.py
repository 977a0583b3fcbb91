"""The hands that changed most, drawn: what each run made of them, beside the image and the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskhand.arrays import Array
from maskhand.comparison.records import ChangedHand, PairOfRuns, PlacedJoints
from maskhand.config import Recipe
from maskhand.evaluation.views import HandView, read_samples
from maskhand.hand.layer import ManoLayer
from maskhand.loading.loader import eval_rows, eval_set
from maskhand.render import contact_sheet
from maskhand.shards.layout import ShardError

_LABEL = 30
"""Letters of a run's label below a picture."""


@dataclass(frozen=True)
class DrawnHand:
    """A changed hand as both runs see it; images (tile_px, tile_px, 3) uint8, left hands left."""

    hand: ChangedHand
    images: tuple[tuple[str, Array], ...]
    """(title, image): the image, the truth where it is known, and the joints of each run where these were kept."""


def draw_changed(
    pair: PairOfRuns,
    set_uri: str,
    recipe: Recipe,
    joints: Mapping[str, PlacedJoints],
    mano: ManoLayer,
    tile_px: int = 224,
) -> list[DrawnHand]:
    """The changed hands of a pair out of the reference's shards, cropped as `recipe` crops.

    joints: by label, of runs that kept them. Raises ShardError where the shards are not here or hold other hands.
    """
    if not pair.changed:
        return []
    rows = eval_rows(recipe, read_samples(eval_set(recipe, set_uri), [hand.index[0] for hand in pair.changed]))
    drawn = []
    for k, (hand, row) in enumerate(zip(pair.changed, rows.samples, strict=True)):
        if row.sample.key != hand.key:
            raise ShardError(f"{set_uri}: its hand {row.index} is {row.sample.key}, and {hand.key} was measured")
        affine = rows.hands.crop_from_image[k].numpy()
        view = HandView(row, affine, recipe.data.crop_px, tile_px, bool(rows.unreadable[k]))
        images = [("image", view.image)]
        truth = view.truth(mano, rows.hands, k)
        if truth is None and row.sample.joints_2d_px is not None:
            truth = view.joints(row.sample.joints_2d_px)
        if truth is not None:
            images.append(("truth", truth))
        for label, index in zip((pair.reference, pair.other), hand.index, strict=True):
            if label in joints and (at := np.flatnonzero(joints[label].index == index)).size:
                images.append((label, view.joints(joints[label].joints_px[at[0]])))
        drawn.append(DrawnHand(hand, tuple((title, view.shown(image)) for title, image in images)))
    return drawn


def changed_sheet(name: str, pair: PairOfRuns, drawn: Sequence[DrawnHand], tile_px: int = 224) -> bytes:
    """A PNG, a row per hand: the set `name`, with the run and its error below the pictures."""
    unit = pair.ranked_by.rpartition("_")[2]
    captions = []
    for one in drawn:
        hand = one.hand
        said = {
            "image": f"{hand.key}\n{hand.side}, {hand.change:+.1f} {unit}",
            pair.reference: f"{_shortened(pair.reference)}\n{hand.reference:.1f} {unit}",
            pair.other: f"{_shortened(pair.other)}\n{hand.other:.1f} {unit}",
        }
        captions.append([said.get(title, "") for title, _ in one.images])
    columns = max(([title for title, _ in one.images] for one in drawn), key=len)
    headings = {pair.reference: "the reference", pair.other: "the other run"}
    images = [[image for _, image in one.images] for one in drawn]
    title = f"{name}: hands that changed most"
    return contact_sheet(images, captions, [headings.get(column, column) for column in columns], title, tile_px)


def _shortened(label: str) -> str:
    """So long that it fits below a picture; names of runs tell themselves apart at their ends."""
    return label if len(label) <= _LABEL else f"{label[: _LABEL // 2 - 1]}..{label[-_LABEL // 2 + 1 :]}"
