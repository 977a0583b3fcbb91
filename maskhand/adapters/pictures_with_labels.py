"""The shape of a published layout whose splits are folders with a picture and a small JSON file per hand."""

from __future__ import annotations

from typing import ClassVar

from maskhand import storage
from maskhand.adapters.base import Item, RawDataError, RawPlan, combined_digest
from maskhand.adapters.keypoints_2d import key_of, label_files_digest, label_names, pictures_digest
from maskhand.catalog import DatasetSpec


class PicturesWithLabels:
    """`<split>/NAME.jpg` beside `NAME.json`, perhaps below a folder that the archive makes.

    An item's annotation holds the hand's `name` and the URI of its `label` file.
    """

    revision: ClassVar[str]
    """Layout and version of the conversion; another one builds shards anew."""
    archive_folders: ClassVar[tuple[str, ...]]

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        self.spec, self.split = spec, split
        above = (raw_dir, *(storage.join(raw_dir, folder) for folder in self.archive_folders))
        self.folders = [storage.join(folder, split) for folder in above]

    def present(self) -> bool:
        return any(label_names(folder) for folder in self.folders)

    def plan(self) -> RawPlan:
        folder, labels = next(((f, found) for f in self.folders if (found := label_names(f))), (self.folders[0], {}))
        if not labels:
            raise RawDataError(f"{folder}: annotations not found; see how_to_get in the dataset's card")
        names = list(labels)

        def item(position: int) -> Item:
            name = names[position]
            uri = storage.join(folder, name)
            return Item(key_of(self.split, name), f"{uri}.jpg", {"name": name, "label": f"{uri}.json"}, {"name": name})

        digest = combined_digest(self.revision, label_files_digest(folder, labels), pictures_digest(folder, labels))
        return RawPlan([key_of(self.split, name) for name in names], item, digest, listed=len(names))
