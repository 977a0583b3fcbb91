"""The hands of many pictures as one run's folder; a run that was stopped goes on.

run.json         what was asked of which files, and how many hands there are
hands.jsonl      a line per hand, or per picture without one with its reason (`hand.schema.json`)
hands.parquet    the same as a table
NAME_...         files of each picture, as asked
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

from maskhand import lock, storage
from maskhand.predict.box_file import GivenBoxes
from maskhand.predict.files import no_hand_found, write_picture_files
from maskhand.predict.inputs import Source, Sources
from maskhand.predict.journal import Journal
from maskhand.predict.looking import Question, predict_pictures
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
from maskhand.predict.table import write_parquet
from maskhand.progress import Progress, silent
from maskhand.replacement import replacement


@dataclass(frozen=True)
class FilmGroup:
    """Rows of some frames of a film that belong together."""

    rows: list[Row]
    frames: int
    files: list[str]
    """That were written, relative to the run's folder."""
    then: Place
    """The next thing to look at."""


class LooksAtFilm(Protocol):
    """What looks at a film as a whole (`film.run.TrackedFilms`)."""

    def facts(self) -> Row:
        """What decides its results beside the question."""

    def groups(
        self, source: Source, place: Place, question: Question, out: Path, progress: Progress
    ) -> Iterator[FilmGroup]:
        """The rows of the film from `place` on; `then` of the last group is the next source."""


def predict_run(
    sources: Sources,
    question: Question,
    out: Path,
    again: bool = False,
    progress: Progress = silent,
    films: LooksAtFilm | None = None,
) -> RunResult:
    """Look at all files and write the run's folder `out`, or what a run that was stopped has left of it.

    A finished run of the same options is added to: only files that it has not looked at are. again: what is there is
    removed first. films: what looks at films; None: their frames are pictures like others.
    Raises PredictError where the results there are of another question, and LockedError while another process is at the
    same folder.
    """
    facts = running(sources, question.facts() | ({} if films is None else films.facts()))
    with lock.held(out, "predict", str(out)):
        if again:
            remove_run(out)
        elif (finished := finished_run(out, facts)) is not None:
            return finished
        facts = _begun(out, facts)
        files = [Source(**source) for source in facts["inputs"]]
        given = None if question.boxes is None else question.boxes.match([source.path for source in files])
        with Journal(out / JOURNAL) as journal:
            _look(files, given, question, out, journal, progress, films)
            done = _finish(out, journal, facts, sources)
        (out / JOURNAL).unlink(missing_ok=True)
    return result_of(out, done)


def _begun(out: Path, facts: Row) -> Row:
    """The facts of the run that is looked at: a new one, one that was stopped, or a finished one with more files."""
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


def _look(
    files: Sequence[Source],
    boxes: Sequence[GivenBoxes | None] | None,
    question: Question,
    out: Path,
    journal: Journal,
    progress: Progress,
    films: LooksAtFilm | None,
) -> None:
    """Look at what the journal does not have yet."""
    hands = sum(row["status"] == "hand" for row in journal.rows())
    shown = _Shown(count_pictures(files, question.every), journal.pictures, hands, progress)
    for as_film, part in groupby(range(len(files)), lambda k: films is not None and files[k].kind == "film"):
        positions = [position for position in part if position >= journal.place.source]
        if not as_film and positions:
            _look_at_pictures(files[: positions[-1] + 1], boxes, question, out, journal, shown)
        for position in positions if as_film else ():
            assert films is not None
            place = journal.place if position == journal.place.source else Place(position)
            for group in films.groups(files[position], place, question, out, shown.within):
                journal.append(group.rows, group.frames, group.files, group.then)
                shown.hands += sum(row["status"] == "hand" for row in group.rows)
                shown(journal.pictures)


def _look_at_pictures(
    files: Sequence[Source],
    boxes: Sequence[GivenBoxes | None] | None,
    question: Question,
    out: Path,
    journal: Journal,
    shown: _Shown,
) -> None:
    """Look at the pictures from the journal's place to the end of `files`."""
    stream = ahead(pictures(files, question.camera, question.every, journal.place))
    no_hand = no_hand_found(question.min_confidence)
    for group in predict_pictures(stream, question, boxes):
        rows: list[Row] = []
        written: list[str] = []
        for picture, found in group:
            rows += picture_rows(picture, found, question.how, no_hand, question.vertices, question.convention)
            written += _files(picture, found, question, out)
            shown.hands += len(found)
        journal.append(rows, len(group), written, _after(group[-1][0]))
        shown(journal.pictures)


@dataclass
class _Shown:
    """How far a run is, for people."""

    total: int
    before: int
    """Pictures that an earlier run had looked at."""
    hands: int
    progress: Progress

    def __post_init__(self) -> None:
        self.begun = time.monotonic()
        self.done = self.before
        self.phase_begun, self.phase_from, self.last = self.begun, 0.0, math.inf
        self.progress(self.before, self.total, _so_far(self.hands, 0.0, 0))

    def __call__(self, done: int) -> None:
        """So many pictures are done."""
        self.done = done
        left = max(self.total - done, 0)
        passed_s = time.monotonic() - self.begun
        self.progress(
            min(done, self.total), self.total,
            _so_far(self.hands, passed_s / max(done - self.before, 1) * left, left),
        )  # fmt: skip

    def within(self, done: float, total: float, text: str = "") -> None:
        """The progress within a film: its hands are followed first, and then it is drawn."""
        now = time.monotonic()
        if done <= self.last:
            self.phase_begun, self.phase_from = now, done
        self.last, since = done, done - self.phase_from
        left = _left((now - self.phase_begun) / since * (total - done)) if since > 0 and done < total else ""
        self.progress(min(self.done + done, self.total), self.total, text + (left and f"{left} of this film"))


def _files(picture: Picture, hands: Sequence[PredictedHand], question: Question, out: Path) -> list[str]:
    saved = question.saved if picture.frame is None else question.saved_of_frames
    if not hands or not saved:
        return []
    assert picture.image_rgb is not None
    written = write_picture_files(
        Path(picture.source.path).name,
        picture.image_rgb,
        hands,
        question.how,
        out,
        picture.name,
        saved,
        question.convention,
    )
    return [path.relative_to(out).as_posix() for path in written]


def _after(picture: Picture) -> Place:
    place = picture.place
    if picture.frame is None:  # a photo, or a film that cannot be read any further
        return Place(place.source + 1)
    return Place(place.source, place.frame + 1)


def _so_far(hands: int, left_s: float, left: int) -> str:
    return f"{hands} hands" + (_left(left_s) if left else "")


def _left(seconds: float) -> str:
    return f", {round(seconds) // 60}:{round(seconds) % 60:02d} left"


def _finish(out: Path, journal: Journal, facts: Row, sources: Sources) -> Row:
    """Write lines, table and facts of a run that has looked at everything; its facts."""
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
