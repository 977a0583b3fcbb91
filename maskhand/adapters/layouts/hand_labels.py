"""CMU HandDB's layout of hand_labels and hand_labels_synth: an image and a small JSON file per hand.

Facts: docs/formats.md#handdb. The full image is repeated for each of its hands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from maskhand.adapters.base import Item, numbers, read_image
from maskhand.adapters.keypoints_2d import hand_in_2d, marked_points, side_of_suffix
from maskhand.adapters.layouts.images_with_labels import ImagesWithLabels
from maskhand.adapters.readers.label_files import field, read_json_fields
from maskhand.conventions import Side
from maskhand.sample import HandSample, SampleError

_MPII_FIELDS = ("hand_box_center", "mpii_image", "mpii_annorect_idx")
"""Fields that lead back to MPII's annotation, where they are present."""


class HandLabelsLayout(ImagesWithLabels):
    """`<split>/NAME.jpg` and `NAME.json`, perhaps below the folder that the archive makes."""

    revision = "hand_labels layout 1"
    archive_folders = ("hand_labels", "hand_labels_synth")

    def read(self, item: Item) -> HandSample:
        key, label = item.key, item.annotation["label"]
        where = f"{key}: {label}"
        fields = read_json_fields(key, label)
        if not isinstance(fields, dict):
            raise SampleError(
                "wrong_shape", f"{where}: found a {type(fields).__name__}, expected a dictionary of fields"
            )
        stored = numbers(where, "hand_pts", field(where, fields, "hand_pts"), (21, 3), finite=False)
        points = marked_points(where, "hand_pts", stored)
        side = self._side(where, item.annotation["name"], fields)
        image = read_image(key, item.image_uri)
        mpii = {name: fields[name] for name in _MPII_FIELDS if name in fields}
        # The third value is 1 for annotated joints; readers treat every other number as not annotated.
        annotated = (points[:, 2] == 1).astype(np.float64)
        return hand_in_2d(self.spec, item, where, image, side, points[:, :2], annotated, more_origin=mpii)

    def _side(self, where: str, name: str, fields: Mapping[str, Any]) -> Side:
        """`is_left`, else the ending of the name; nothing is guessed."""
        if fields.get("is_left") in (0, 1):
            return "left" if fields["is_left"] else "right"
        side = side_of_suffix(name)
        if side is None:
            raise SampleError(
                "bad_side",
                f"{where}: is_left is {fields.get('is_left', 'missing')!r}, expected 0, 1, false or true, or a name "
                "that ends in _l or _r",
            )
        return side
