"""Read a shard set with its sidecars: shard by shard, samples by position, each exactly once in evaluation."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskhand import storage
from maskhand.sample import HandSample
from maskhand.shards.checked_tar import open_tar, read_tar
from maskhand.shards.codec import UNREADABLE, Members, decode_sample, not_ours
from maskhand.shards.layout import IMAGES, MANO, ShardError, keypoint_part, tar_uri
from maskhand.shards.manifest import Manifest, ShardEntry, read_manifest
from maskhand.shards.npz import decode_all, decode_arrays
from maskhand.shards.sidecar_checks import check_entries
from maskhand.shards.sidecar_records import DetectedKeypoints, ManoTarget


@dataclass(frozen=True)
class ShardSample:
    """A sample and the entries of its sidecars."""

    sample: HandSample
    index: int
    """Position in the set, 0..len-1, shard after shard."""
    sidecars: Mapping[str, Mapping[str, np.ndarray] | None]
    """Part -> the arrays of its entry; None where the annotator rejected this sample."""

    def mano_target(self) -> ManoTarget | None:
        """None where the annotator rejected this sample, or the part `mano` is not read."""
        arrays = self.sidecars.get(MANO)
        return None if arrays is None else ManoTarget.decode(arrays)

    def keypoints(self, detector: str) -> DetectedKeypoints | None:
        """None where the detector rejected this sample, or its part is not read."""
        arrays = self.sidecars.get(keypoint_part(detector))
        return None if arrays is None else DetectedKeypoints.decode(arrays)


@dataclass(frozen=True)
class LoadedShard:
    """One shard, its arrays decoded; the rest of a sample is decoded on access."""

    uri: str
    """Of its image tar."""
    first_index: int
    images: Sequence[tuple[str, Members]]
    labels: Sequence[Mapping[str, np.ndarray]]
    """The arrays of each image's npz member."""
    sidecars: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
    """Part -> key -> arrays."""

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, position: int) -> ShardSample:
        key, members = self.images[position]
        try:
            sample = decode_sample(key, members, self.labels[position])
        except ShardError as error:
            raise ShardError(f"{self.uri}: {error}") from None
        return ShardSample(
            sample,
            self.first_index + position,
            {part: entries.get(key) for part, entries in self.sidecars.items()},
        )


@dataclass(frozen=True)
class ShardSet:
    """An opened set: its manifests are read and known to belong together."""

    uri: str
    manifest: Manifest
    sidecar_manifests: Mapping[str, Manifest]

    @classmethod
    def open(cls, set_uri: str, sidecars: Sequence[str] = ()) -> ShardSet:
        """Raises ShardError when a part is missing, unfinished, or was made from other images."""
        manifest = read_manifest(set_uri, IMAGES)
        sides = {part: read_manifest(set_uri, part) for part in sidecars}
        for part, side in sides.items():
            check_sidecar(set_uri, manifest, part, side)
        return cls(str(set_uri), manifest, sides)

    def __len__(self) -> int:
        return self.manifest.count

    def __hash__(self) -> int:
        return hash((self.uri, self.manifest.digest))

    @property
    def shard_counts(self) -> np.ndarray:
        """(number of shards,) int64 samples per shard."""
        return np.array([entry.count for entry in self.manifest.shards], dtype=np.int64)

    def load(self, shard: int, in_memory: bool = True) -> LoadedShard:
        """Fetch one shard and its sidecars; ShardError when a tar is missing, cut, altered or has another count.

        in_memory: hold the images, too; else only their places in an open file (see `cached_tar`).
        """
        read = read_tar if in_memory else open_tar
        entry, folder = self.manifest.shards[shard], storage.join(self.uri, IMAGES)
        images = read(folder, entry)
        sides = {}
        for part, manifest in self.sidecar_manifests.items():
            sides[part] = dict(read_arrays(storage.join(self.uri, part), manifest.shards[shard]))
            if foreign := sides[part].keys() - {key for key, _ in images}:
                raise ShardError(_foreign_key(storage.join(self.uri, part), manifest.shards[shard], min(foreign)))
        uri = tar_uri(folder, entry.name)
        return LoadedShard(uri, int(self.shard_counts[:shard].sum()), images, _arrays_of(uri, images), sides)

    def read_shard(self, shard: int) -> list[ShardSample]:
        loaded = self.load(shard)
        return [loaded.sample(position) for position in range(len(loaded))]

    def __iter__(self) -> Iterator[ShardSample]:
        """Every sample once, by its index."""
        return self.between(0, len(self))

    def between(self, start: int, stop: int) -> Iterator[ShardSample]:
        """The samples start, start + 1, ..., stop - 1 of the set.

        The last shard stays in memory: a call for the samples behind these does not read and check it again.
        """
        return self.at(range(max(start, 0), min(stop, len(self))))

    def at(self, places: Sequence[int]) -> Iterator[ShardSample]:
        """The samples at these places of the set, which ascend; shards without any of them are not read."""
        ends = np.cumsum(self.shard_counts)
        loaded, behind = None, 0
        for place in places:
            if loaded is None or place >= behind:
                shard = int(np.searchsorted(ends, place, side="right"))
                loaded, behind = _last_loaded(self, shard), int(ends[shard])
            yield loaded.sample(place - loaded.first_index)


@functools.lru_cache(maxsize=1)
def _last_loaded(shard_set: ShardSet, shard: int) -> LoadedShard:
    return shard_set.load(shard)


def read_arrays(part_uri: str, entry: ShardEntry) -> list[tuple[str, dict[str, np.ndarray]]]:
    """A sidecar tar's keys and arrays; ShardError as for `read_tar`, and for entries that are none of this part."""
    uri, part = tar_uri(part_uri, entry.name), part_uri.rsplit("/", 1)[-1]
    return sidecar_entries(uri, part, read_tar(part_uri, entry))


def sidecar_entries(
    uri: str, part: str, samples: Sequence[tuple[str, Members]]
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """The keys and arrays of a sidecar's tar at `uri`; ShardError for entries that are none of this part."""
    entries = list(zip([key for key, _ in samples], _arrays_of(uri, samples), strict=True))
    check_entries(uri, part, entries)
    return entries


def _arrays_of(uri: str, samples: Sequence[tuple[str, Members]]) -> list[dict[str, np.ndarray]]:
    """The arrays of each sample of the tar at `uri`, decoded together; ShardError where one has none."""
    for key, members in samples:
        if "npz" not in members:
            raise ShardError(f"{uri}: sample {key}: found members {sorted(members)}, expected npz among them")
    try:
        return decode_all([members["npz"] for _, members in samples])
    except UNREADABLE as error:
        raise ShardError(f"{uri}: sample {_unreadable(samples)}: {not_ours(error)}") from None


def _unreadable(samples: Sequence[tuple[str, Members]]) -> str:
    """Key of the first sample whose arrays cannot be read."""
    for key, members in samples:
        try:
            decode_arrays(members["npz"])
        except UNREADABLE:
            return key
    return samples[0][0]


def _foreign_key(part_uri: str, entry: ShardEntry, key: str) -> str:
    return f"{tar_uri(part_uri, entry.name)}: key {key} is in no image tar; annotate again with --rebuild"


def check_sidecar(set_uri: str, images: Manifest, part: str, sidecar: Manifest) -> None:
    """ShardError when a sidecar was made from other images than those that are here now."""
    made_from = sidecar.inputs.get(IMAGES)
    if made_from != images.digest:
        raise ShardError(
            f"{storage.join(set_uri, part)} was made from images {made_from}, here are images {images.digest}; "
            f"annotate again (with --rebuild)"
        )
