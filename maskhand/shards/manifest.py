"""Descriptions of a shard (its record) and of a part (its manifest), as JSON files."""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from maskhand import storage
from maskhand.digest import short_digest
from maskhand.json_text import parse_json_object
from maskhand.path_names import path_name
from maskhand.shards.layout import FORMAT_VERSION, MANO, ShardError, manifest_uri, record_uri, subcommand_for

R = TypeVar("R", "Reject", "ShardRecord", "ShardEntry", "Manifest")


@dataclass(frozen=True)
class Reject:
    """A hand that did not enter the shard."""

    key: str
    reason: str
    message: str


@dataclass(frozen=True)
class ShardRecord:
    """Written beside a tar once it is in place: the tar is complete if and only if its record exists."""

    name: str
    """Six digits; the tar is `{name}.tar`."""
    plan_digest: str
    planned: int
    count: int
    """Samples in the tar; planned minus rejects."""
    bytes: int
    sha256: str
    rejects: tuple[Reject, ...] = ()


@dataclass(frozen=True)
class ShardEntry:
    """A shard as the manifest lists it."""

    name: str
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything about one part of a shard set; written last."""

    part: str
    """`images`, `mano`, `keypoints.<detector>`."""
    dataset: str
    split: str
    plan_digest: str
    """Changes with everything that decides the content."""
    planned: int
    count: int = 0
    """Samples in all tars."""
    rejects: dict[str, int] = field(default_factory=dict)
    """Reason -> number; the records beside the tars name each one."""
    shards: tuple[ShardEntry, ...] = ()
    format_version: int = FORMAT_VERSION
    official_count: int | None = None
    """Images, or hands, that the dataset's authors state for this split; None where they state none."""
    notes: tuple[str, ...] = ()
    annotator: dict[str, Any] | None = None
    """Sidecars: name, version and settings of what made them."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Sidecars: part -> digest of the manifests they were made from, `images` among them."""

    @property
    def digest(self) -> str:
        """The data digest: 12 hex digits over names, order and checksums of the tars. Equal digests, equal bytes."""
        text = json.dumps([[s.name, s.count, s.sha256] for s in self.shards])
        return short_digest(text)

    def to_json(self) -> bytes:
        return _to_json(asdict(self) | {"digest": self.digest})


def record_to_json(record: ShardRecord) -> bytes:
    return _to_json(asdict(record))


def read_record(part_uri: str, name: str) -> ShardRecord:
    """The record of a finished shard; MissingFileError when it was not finished, ShardError when it is unreadable."""
    uri = record_uri(part_uri, name)
    try:
        values = parse_json_object(storage.read_bytes(uri))
        record = ShardRecord(**values | {"rejects": tuple(_typed(Reject(**r)) for r in values["rejects"])})
        return _typed(record)
    except (ValueError, TypeError, KeyError) as error:
        raise ShardError(f"{uri}: not a shard record ({error}); delete it and build again") from None


def read_manifest(set_uri: str, part: str) -> Manifest:
    """ShardError when the part is missing, unfinished or its manifest unreadable."""
    manifest = find_manifest(set_uri, part)
    if manifest is None:
        raise ShardError(
            f"{storage.join(set_uri, part)}: no {part} shards here, or their building did not end; make them with "
            f"`maskhand {subcommand_for(set_uri, part)}`"
        )
    return manifest


def find_manifest(set_uri: str, part: str) -> Manifest | None:
    """Like read_manifest, but None when there is no manifest yet."""
    uri = manifest_uri(storage.join(set_uri, part))
    try:
        values = parse_json_object(storage.read_bytes(uri))
        version, digest = values["format_version"], values.pop("digest")
        shards = tuple(_typed(ShardEntry(**entry)) for entry in values.pop("shards"))
        manifest = _typed(Manifest(**values | {"shards": shards, "notes": tuple(values["notes"])}))
    except storage.MissingFileError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ShardError(f"{uri}: not a manifest of this version ({error}); build the part again") from None
    if version != FORMAT_VERSION:
        raise ShardError(f"{uri}: written in format {version}, this version reads {FORMAT_VERSION}; use --rebuild")
    if manifest.digest != digest or manifest.count != sum(entry.count for entry in shards):
        raise ShardError(
            f"{uri}: its digest or its count does not fit its list of shards; it was edited or damaged, build the part "
            "again with --rebuild"
        )
    if manifest.planned > manifest.count + sum(manifest.rejects.values()):
        raise ShardError(
            f"{uri}: {manifest.planned} hands were planned, {manifest.count} are there and "
            f"{sum(manifest.rejects.values())} left out; some were lost, build the part again with --rebuild"
        )
    for name in (manifest.dataset, manifest.split, *(entry.name for entry in shards)):
        path_name(name, f"{uri}: name")
    return manifest


def _typed(record: R) -> R:
    """The same record; TypeError where a value is of another type than its field says."""
    for one in fields(record):
        kind, value = _KINDS.get(str(one.type).partition("[")[0]), getattr(record, one.name)
        if value is None and "None" in str(one.type):
            continue
        if kind is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise TypeError(f"{one.name} is {reprlib.repr(value)}, expected {kind.__name__}")
    if isinstance(record, Manifest):
        counts = all(isinstance(count, int) for count in record.rejects.values())
        named = all(isinstance(word, str) for word in (*record.inputs.values(), *record.notes))
        if not (counts and named):
            raise TypeError("rejects, inputs or notes hold other values than a manifest's")
    return record


_KINDS: dict[str, type] = {"str": str, "int": int, "dict": dict, "tuple": tuple}


def check_hand_model(set_uri: str, digest: str, user: str) -> None:
    """ShardError where the MANO sidecar of a set was made with another hand model than the one that `user` poses.

    digest: of that hand model; user: who asks, for the sentence, such as "the training".
    """
    manifest = find_manifest(set_uri, MANO)
    if manifest is None or manifest.annotator is None:
        return
    made_with = manifest.annotator.get("settings", {}).get("hand_model")
    if made_with not in (None, digest):
        raise ShardError(
            f"{storage.join(set_uri, MANO)}: its targets were made with the hand model {made_with}, and {user} has "
            f"{digest}; set MASKHAND_MANO_DIR to the folder of that hand (unset: the open one), or make them again "
            f"with `maskhand {subcommand_for(set_uri, MANO)} --rebuild`"
        )


def entries_and_rejects(records: list[ShardRecord]) -> tuple[tuple[ShardEntry, ...], dict[str, int]]:
    """What a manifest keeps of the records."""
    entries = tuple(ShardEntry(r.name, r.count, r.bytes, r.sha256) for r in records)
    reasons = Counter(reject.reason for record in records for reject in record.rejects)
    return entries, dict(sorted(reasons.items()))


def _to_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()
