"""Prediction of many pictures into a run folder; an interrupted run is resumed.

run.json         options, input files, and counts of pictures and hands
hands.jsonl      a line per hand, or per picture without hands with the reason (`hand.schema.json`)
hands.parquet    the same as a table
NAME_...         the requested files of each picture
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

from maskhand import lock, storage
from maskhand.predict.box_formats import GivenBoxes
from maskhand.predict.files import no_hand_found, write_picture_files
from maskhand.predict.inputs import Source, Sources
from maskhand.predict.journal import Journal
from maskhand.predict.pictures import Picture, Place, ahead, count_pictures, pictures
from maskhand.predict.records import PredictedHand
from maskhand.predict.rows import Row, picture_rows
from maskhand.predict.run_files import (
    JOURNAL,
    LINES,
    RUN,
    TABLE,
    RunResult,
    added,
    finished_run,
    remove_run,
    result_of,
    run_facts,
    running,
)
from maskhand.predict.run_progress import RunProgress
from maskhand.predict.stream import PredictRequest, predict_pictures
from maskhand.predict.table import write_parquet
from maskhand.progress import Progress, silent
from maskhand.replacement import replacement


@dataclass(frozen=True)
class FilmGroup:
    """The rows of a group of frames of a film."""

    rows: list[Row]
    frames: int
    files: list[str]
    """Written files, relative to the run's folder."""
    then: Place
    """The next frame or source to process."""


class FilmProcessor(Protocol):
    """Processes a film as a whole (`film.run.TrackedFilms`)."""

    def facts(self) -> Row:
        """Further settings that determine its results, beside those of the request."""

    def groups(
        self, source: Source, place: Place, request: PredictRequest, out: Path, progress: Progress
    ) -> Iterator[FilmGroup]:
        """The rows of the film from `place` on; `then` of the last group is the next source."""


def predict_run(
    sources: Sources,
    request: PredictRequest,
    out: Path,
    again: bool = False,
    progress: Progress = silent,
    films: FilmProcessor | None = None,
) -> RunResult:
    """Process all files and write the run's folder `out`, or resume an interrupted run there.

    New files are added to a finished run with the same options; its other files are not processed again. again: delete
    the existing results first. films: processes films as a whole; None: their frames are treated like photos.
    Raises PredictError if the results there were made with other options, and LockedError while another process uses
    the same folder.
    """
    facts = running(sources, request.facts() | ({} if films is None else films.facts()))
    with lock.held(out, "predict", str(out)):
        if again:
            remove_run(out)
        elif (finished := finished_run(out, facts)) is not None:
            return finished
        facts = _begun(out, facts)
        files = [Source(**source) for source in facts["inputs"]]
        given = None if request.boxes is None else request.boxes.match([source.path for source in files])
        with Journal(out / JOURNAL) as journal:
            _process(files, given, request, out, journal, progress, films)
            done = _finish(out, journal, facts, sources)
        (out / JOURNAL).unlink(missing_ok=True)
    return result_of(out, done)


def _begun(out: Path, facts: Row) -> Row:
    """The facts of the run to do: a new one, an interrupted one, or a finished one with further files."""
    earlier = run_facts(out)
    if earlier is not None and earlier["state"] == "running":
        return earlier
    (out / JOURNAL).unlink(missing_ok=True)
    if earlier is not None and (new := added(out, earlier, facts)) is not None:
        kept = len(earlier["inputs"])
        more = {"inputs": [*earlier["inputs"], *new], "kept": kept, "passed_over": earlier["passed_over"]}
        facts = facts | more
        with Journal(out / JOURNAL) as journal:
            journal.take_over(out / LINES, earlier["counts"]["pictures"], earlier["files"], Place(kept))
    storage.write_json_atomic(out / RUN, facts)
    return facts


def _process(
    files: Sequence[Source],
    boxes: Sequence[GivenBoxes | None] | None,
    request: PredictRequest,
    out: Path,
    journal: Journal,
    progress: Progress,
    films: FilmProcessor | None,
) -> None:
    """Process the pictures that are not in the journal yet."""
    hands = sum(row["status"] == "hand" for row in journal.rows())
    shown = RunProgress(count_pictures(files, request.every), journal.pictures, hands, progress)
    for as_film, part in groupby(range(len(files)), lambda k: films is not None and files[k].kind == "film"):
        positions = [position for position in part if position >= journal.place.source]
        if not as_film and positions:
            _process_pictures(files[: positions[-1] + 1], boxes, request, out, journal, shown)
        for position in positions if as_film else ():
            assert films is not None
            place = journal.place if position == journal.place.source else Place(position)
            for group in films.groups(files[position], place, request, out, shown.within):
                journal.append(group.rows, group.frames, group.files, group.then)
                shown.hands += sum(row["status"] == "hand" for row in group.rows)
                shown(journal.pictures)


def _process_pictures(
    files: Sequence[Source],
    boxes: Sequence[GivenBoxes | None] | None,
    request: PredictRequest,
    out: Path,
    journal: Journal,
    shown: RunProgress,
) -> None:
    """Process the pictures from the journal's place to the end of `files`."""
    stream = ahead(pictures(files, request.camera, request.every, journal.place))
    no_hand = no_hand_found(request.min_confidence)
    for group in predict_pictures(stream, request, boxes):
        rows: list[Row] = []
        written: list[str] = []
        for picture, found in group:
            rows += picture_rows(picture, found, request.reconstruction, no_hand, request.vertices, request.convention)
            written += _files(picture, found, request, out)
            shown.hands += len(found)
        journal.append(rows, len(group), written, _after(group[-1][0]))
        shown(journal.pictures)


def _files(picture: Picture, hands: Sequence[PredictedHand], request: PredictRequest, out: Path) -> list[str]:
    saved = request.saved if picture.frame is None else request.saved_of_frames
    if not hands or not saved:
        return []
    assert picture.image_rgb is not None
    written = write_picture_files(
        Path(picture.source.path).name,
        picture.image_rgb,
        hands,
        request.reconstruction,
        out,
        picture.name,
        saved,
        request.convention,
    )
    return [path.relative_to(out).as_posix() for path in written]


def _after(picture: Picture) -> Place:
    place = picture.place
    if picture.frame is None:  # a photo, or a film that cannot be read any further
        return Place(place.source + 1)
    return Place(place.source, place.frame + 1)


def _finish(out: Path, journal: Journal, facts: Row, sources: Sources) -> Row:
    """Write `hands.jsonl`, the table and `run.json` of a complete run; returns its facts."""
    with storage.atomic_writer(out / LINES) as write:
        for line in journal.lines():
            write(line)
    with replacement(out / TABLE) as file:
        write_parquet(journal.rows(), file)
    counts: Counter[str] = Counter()
    for row in journal.rows():
        counts["hands"] += row["status"] == "hand"
        if row.get("hand", 0) == 0:
            counts[row["status"]] += 1
            counts["pictures"] += 1
    finished = facts | {
        "state": "finished",
        "counts": {name: counts[name] for name in ("pictures", "hand", "no hand", "unreadable", "hands")},
        "passed_over": facts.get("passed_over", {}) | dict(sources.passed_over),
        "files": journal.files,
    }
    storage.write_json_atomic(out / RUN, finished)
    return finished
