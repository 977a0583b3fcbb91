"""The hands of many pictures as shards: Parquet files and a manifest, made by any number of workers.

run.json               options, input files, and how these are divided into units
hands/000000.parquet   the rows of a unit, with the columns of `hands.parquet`
hands/000000.json      its record, written after the Parquet file is complete
hands/manifest.json    written last; lists the files with their rows and checksums
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from maskhand import storage
from maskhand.carried import here
from maskhand.device import one_thread
from maskhand.digest import short_digest
from maskhand.models.bundle import worker_bundle
from maskhand.predict.box_file import BoxFile
from maskhand.predict.files import no_hand_found
from maskhand.predict.hand_group import Reconstruction
from maskhand.predict.inputs import Source
from maskhand.predict.rows import Row, picture_rows
from maskhand.predict.run_files import RUN
from maskhand.predict.shard_request import ShardRequest, with_earlier
from maskhand.predict.stream import PredictRequest, predict_pictures
from maskhand.predict.table import write_parquet
from maskhand.predict.units import Unit, UnitPlace, unit_pictures, unit_places
from maskhand.shards.layout import record_uri, shard_name, shard_uri
from maskhand.shards.manifest import Manifest, Reject, ShardRecord, record_to_json
from maskhand.shards.part import Mapper, OnShard, build_part, clear_part, serial_map

HANDS = "hands"
"""Name of the part."""
PARQUET = "parquet"
NO_HAND, UNREADABLE = "no_hand", "unreadable"
"""Reject reasons of pictures without a hand; each such picture also has a row."""


@dataclass(frozen=True)
class UnitTask:
    """A shard to be made by a worker; picklable."""

    part_uri: str
    name: str
    plan_digest: str
    request: ShardRequest
    unit: Unit


def predict_shards(
    sources: Sequence[Source],
    request: ShardRequest,
    out: str,
    *,
    boxes: BoxFile | None = None,
    mapper: Mapper = serial_map,
    again: bool = False,
    on_shard: OnShard | None = None,
) -> Manifest:
    """Predict the hands of all files and write them as shards below `out`, a folder or `s3://` prefix. Finished shards
    of a run with the same options are kept, and new files become further shards.

    mapper: distributes the units among workers; the files are identical bytes for any number of them. again: replace
    existing results of other options; without it they raise PredictError. Raises LockedError while another process
    uses the same folder.
    """
    facts = request.facts_of(sources)
    part_uri = storage.join(out, HANDS)
    if again:
        clear_part(part_uri)
    else:
        facts = with_earlier(out, facts)
    files = [Source(**source) for source in facts["inputs"]]
    given = None if boxes is None else boxes.match([source.path for source in files])
    kept = UnitPlace.read(facts["units"], f"{storage.join(out, RUN)}: units")
    places = unit_places(files, request.options.every, kept)
    units = [place.unit(files, given) for place in places]
    facts["units"] = [asdict(place) for place in places]
    storage.write_json_atomic(storage.join(out, RUN), facts)
    plan_digest = short_digest(json.dumps(facts["asked"], sort_keys=True))  # of the files `run.json` only ever has more
    about = Manifest(
        part=HANDS,
        dataset="predictions",
        split="pictures",
        plan_digest=plan_digest,
        planned=sum(unit.planned for unit in units),
        annotator={"name": "maskhand predict", "version": facts["asked"]["version"], "settings": facts["asked"]},
    )
    return build_part(
        out,
        about,
        [shard_name(k) for k in range(len(units))],
        lambda k: UnitTask(part_uri, shard_name(k), plan_digest, request, units[k]),
        predict_unit,
        mapper=mapper,
        rebuild=False,
        on_shard=on_shard,
        ending=PARQUET,
    )


def load_request(request: ShardRequest) -> PredictRequest:
    """The request with the loaded model, one per process. Raises BundleError, PredictError."""
    settings, network = request.settings, request.network
    bundle = None if network is None or settings.model is None else worker_bundle(network, settings.model["digest"])
    reconstruction = Reconstruction(bundle, settings.method, settings.placed_by, settings.hypotheses)
    return PredictRequest(reconstruction, here(request.assets), **vars(request.options))


def predict_unit(task: UnitTask) -> ShardRecord:
    """Process a unit and write its shard and then its record (runs in a worker)."""
    rejects: list[Reject] = []
    with one_thread():
        rows = list(_rows(task, rejects))
    parquet = io.BytesIO()
    write_parquet(rows, parquet)
    data = parquet.getvalue()
    storage.write_bytes_atomic(shard_uri(task.part_uri, task.name, PARQUET), data)
    pictures = len({(row["name"]) for row in rows})
    record = ShardRecord(
        task.name, task.plan_digest, pictures, len(rows), len(data), hashlib.sha256(data).hexdigest(), tuple(rejects)
    )
    storage.write_bytes_atomic(record_uri(task.part_uri, task.name), record_to_json(record))
    return record


def _rows(task: UnitTask, rejects: list[Reject]) -> Iterator[Row]:
    request, unit = load_request(task.request), task.unit
    no_hand = no_hand_found(request.min_confidence)
    stream = unit_pictures(unit, request.camera, request.every)
    for group in predict_pictures(stream, request, unit.boxes):
        for picture, hands in group:
            rows = picture_rows(picture, hands, request.reconstruction, no_hand, request.vertices)
            if not hands:
                reason = NO_HAND if picture.is_readable else UNREADABLE
                rejects.append(Reject(rows[0]["name"], reason, rows[0]["reason"]))
            yield from rows
