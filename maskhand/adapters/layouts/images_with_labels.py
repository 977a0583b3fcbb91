"""The shape of a published layout whose splits are folders with an image and a small JSON file per hand."""

from __future__ import annotations

from typing import ClassVar

from maskhand import storage
from maskhand.adapters.base import Item, RawDataError, RawPlan, combined_digest
from maskhand.adapters.keypoints_2d import images_digest, key_of, label_files_digest, names_with_labels
from maskhand.catalog import DatasetSpec


class ImagesWithLabels:
    """`<split>/NAME.jpg` beside `NAME.json`, perhaps below a folder that the archive makes.

    An item's annotation is the hand's `name` and the URI of its `label` file. Images and labels are published in pairs;
    one without the other is planned, too, and rejected when it is read.
    """

    revision: ClassVar[str]
    """Layout and version of the conversion; another one builds shards anew."""
    archive_folders: ClassVar[tuple[str, ...]]

    def __init__(self, spec: DatasetSpec, raw_dir: str, split: str) -> None:
        self.spec, self.split = spec, split
        above = (raw_dir, *(storage.join(raw_dir, folder) for folder in self.archive_folders))
        self.folders = [storage.join(folder, split) for folder in above]

    def present(self) -> bool:
        return any(names_with_labels(folder)[1] for folder in self.folders)

    def plan(self) -> RawPlan:
        for folder in self.folders:
            names, labels = names_with_labels(folder)
            if labels:
                return self._plan(folder, names, labels)
        raise RawDataError(f"{self.folders[0]}: annotations not found; see how_to_get in the dataset's card")

    def _plan(self, folder: str, names: list[str], labels: dict[str, int]) -> RawPlan:
        keys = [key_of(self.split, name) for name in names]

        def item(position: int) -> Item:
            name = names[position]
            uri = storage.join(folder, name)
            return Item(keys[position], f"{uri}.jpg", {"name": name, "label": f"{uri}.json"}, {"name": name})

        digest = combined_digest(self.revision, label_files_digest(folder, labels), images_digest(folder, names))
        return RawPlan(keys, item, digest, listed=len(labels))
