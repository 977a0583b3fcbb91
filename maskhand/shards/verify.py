"""Find what is wrong with a shard set: cut, altered, missing or foreign tars, parts that do not fit together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from maskhand import storage
from maskhand.shards.checked_tar import check_tar
from maskhand.shards.layout import IMAGES, MANIFEST, ShardError, manifest_uri, record_uri, tar_uri
from maskhand.shards.manifest import Manifest, ShardEntry, read_manifest
from maskhand.shards.part import Mapper, serial_map
from maskhand.shards.reader import check_sidecar, sidecar_entries

_MEMBERS = {IMAGES: ({"json", "npz", "jpg"}, {"json", "npz", "png"})}
_SIDECAR_MEMBERS = ({"npz"},)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    uri: str
    kind: str
    """`missing`, `truncated`, `altered`, `wrong_content`, `extra`, `unfinished`, `foreign`."""
    message: str


@dataclass(frozen=True)
class CheckedShard:
    problems: tuple[Problem, ...]
    keys: tuple[str, ...] = ()


def verify(set_uri: str, *, mapper: Mapper = serial_map) -> list[Problem]:
    """Read every tar of every part of a set; an empty list means that all of it is as its manifests say."""
    uris = storage.list_uris(set_uri)
    prefix = str(set_uri).rstrip("/") + "/"
    parts = sorted({uri[len(prefix) :].split("/")[0] for uri in uris if "/" in uri[len(prefix) :]})
    if IMAGES not in parts:
        return [Problem(str(set_uri), "missing", f"{set_uri}: there is no shard set here (no folder {IMAGES})")]
    problems: list[Problem] = []
    manifests: dict[str, Manifest] = {}
    for part in parts:
        try:
            manifests[part] = read_manifest(set_uri, part)
        except ShardError as error:
            problems.append(Problem(manifest_uri(storage.join(set_uri, part)), "unfinished", str(error)))
    keys: dict[str, list[tuple[str, ...]]] = {}
    for part, manifest in manifests.items():
        part_uri = storage.join(set_uri, part)
        checked = mapper(partial(check_shard, part_uri, part), manifest.shards)
        problems += [problem for shard in checked for problem in shard.problems]
        keys[part] = [shard.keys for shard in checked]
        problems += _files(part_uri, manifest, set(uris))
    if IMAGES in manifests:
        if not manifests[IMAGES].count:
            reasons = ", ".join(f"{count} {reason}" for reason, count in manifests[IMAGES].rejects.items())
            part_uri = storage.join(set_uri, IMAGES)
            problems.append(Problem(part_uri, "unfinished", f"{part_uri}: there is no hand in this set ({reasons})"))
        for part, manifest in manifests.items():
            if part != IMAGES:
                problems += _sidecar(str(set_uri), part, manifest, manifests[IMAGES], keys)
    return problems


def check_shard(part_uri: str, part: str, entry: ShardEntry) -> CheckedShard:
    """One tar against its manifest entry (runs in a worker)."""
    uri = tar_uri(part_uri, entry.name)
    try:
        data = storage.read_bytes(uri)
    except storage.MissingFileError:
        return CheckedShard((Problem(uri, "missing", f"{uri}: the tar is not there; build this part again"),))
    try:
        samples = check_tar(uri, data, entry)
    except ShardError as error:
        kind = "truncated" if len(data) < entry.bytes else "altered"
        return CheckedShard((Problem(uri, kind, str(error)),))
    for key, members in samples:
        if set(members) not in _MEMBERS.get(part, _SIDECAR_MEMBERS):
            message = f"{uri}: sample {key} has members {sorted(members)}; the tar was not written by this version"
            return CheckedShard((Problem(uri, "wrong_content", message),))
    if part != IMAGES:
        try:
            sidecar_entries(uri, part, samples)
        except ShardError as error:
            return CheckedShard((Problem(uri, "wrong_content", str(error)),))
    return CheckedShard((), tuple(key for key, _ in samples))


def _files(part_uri: str, manifest: Manifest, uris: set[str]) -> list[Problem]:
    """Files that nobody lists, and records that are gone."""
    tars = {tar_uri(part_uri, entry.name) for entry in manifest.shards}
    records = {record_uri(part_uri, entry.name) for entry in manifest.shards}
    here = {uri for uri in uris if uri.startswith(part_uri + "/")}
    extra = here - tars - records - {storage.join(part_uri, MANIFEST)}
    return [
        Problem(uri, "extra", f"{uri}: the manifest does not list this file; delete it") for uri in sorted(extra)
    ] + [
        Problem(uri, "missing", f"{uri}: the shard's record is not there; build this part again")
        for uri in sorted(records - here)
    ]


def _sidecar(
    set_uri: str, part: str, manifest: Manifest, images: Manifest, keys: dict[str, list[tuple[str, ...]]]
) -> list[Problem]:
    """A sidecar must come from these images and hold no key that they lack."""
    part_uri = storage.join(set_uri, part)
    try:
        check_sidecar(set_uri, images, part, manifest)
    except ShardError as error:
        return [Problem(part_uri, "foreign", str(error))]
    problems = []
    for entry, image_keys, own_keys in zip(manifest.shards, keys[IMAGES], keys[part], strict=True):
        unknown = set(own_keys) - set(image_keys)
        if image_keys and unknown:
            message = f"{tar_uri(part_uri, entry.name)}: key {min(unknown)} is in no image tar; annotate again"
            problems.append(Problem(tar_uri(part_uri, entry.name), "foreign", message))
    return problems
