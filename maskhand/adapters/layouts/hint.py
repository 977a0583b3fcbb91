"""HInt's published layout: an image and a small JSON file per hand, each subset in a folder named like its split.

Facts: docs/formats.md#hint.
"""

from __future__ import annotations

from maskhand.adapters.base import Item, counting_rows, numbers, read_image
from maskhand.adapters.keypoints_2d import hand_in_2d, side_of_suffix
from maskhand.adapters.layouts.images_with_labels import ImagesWithLabels
from maskhand.adapters.readers.label_files import field, read_json_fields
from maskhand.sample import HandSample, SampleError


class HIntLayout(ImagesWithLabels):
    """`<split>/NAME_{l,r}.jpg` and `.json`, perhaps below `HInt_annotation` or `HInt_annotation_partial`."""

    revision = "hint layout 1"
    archive_folders = ("HInt_annotation", "HInt_annotation_partial")

    def read(self, item: Item) -> HandSample:
        key, label = item.key, item.annotation["label"]
        where = f"{key}: {label}"
        hands = read_json_fields(key, label)
        side = side_of_suffix(item.annotation["name"])
        if side is None:
            raise SampleError("bad_side", f"{where}: the name ends neither in _l nor in _r, so the side is unknown")
        if not isinstance(hands, list) or len(hands) != 1 or not isinstance(hands[0], dict):
            found = f"a list of {len(hands)}" if isinstance(hands, list) else f"a {type(hands).__name__}"
            raise SampleError("wrong_shape", f"{where}: found {found}, expected a list with the fields of one hand")
        exists = numbers(where, "existence", field(where, hands[0], "existence"), (21,))
        box = numbers(where, "bbox", field(where, hands[0], "bbox"), (1, 4))
        occluded, points = (
            numbers(where, name, field(where, hands[0], name), shape, finite=False)
            for name, shape in {"occlusion": (21,), "keypoints": (21, 2)}.items()
        )
        points = counting_rows(where, "keypoints", points, exists > 0)
        occluded = counting_rows(where, "occlusion", occluded[:, None], exists > 0)[:, 0]
        image = read_image(key, item.image_uri)
        # The published box is about 1.24 times the joints' box; it is kept, since some normalize errors by it.
        published = {"box_xyxy_px": box[0].tolist()}
        known = (exists > 0).astype(float)
        return hand_in_2d(self.spec, item, where, image, side, points, known, occluded=occluded, more_origin=published)
