"""Films in a prediction run: rows of tracked hands, and an overlay film."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from maskhand.annotate.hand_finder import HandFinder
from maskhand.film.options import Smoothing, smoothing_facts
from maskhand.film.tracked_film import TrackedFilm, tracked_film
from maskhand.film.tracks import FilmRequest
from maskhand.film.video import film_facts
from maskhand.models.bundle import ModelBundle
from maskhand.predict.camera import PhotoCamera, photo_camera
from maskhand.predict.files import no_hand_found
from maskhand.predict.hand_group import Reconstruction
from maskhand.predict.inputs import Source, find_sources
from maskhand.predict.pictures import GivenCamera, Picture, Place
from maskhand.predict.records import PredictError
from maskhand.predict.rows import Row, picture_rows
from maskhand.predict.run import FilmGroup, predict_run
from maskhand.predict.run_files import RunResult
from maskhand.predict.stream import PredictRequest
from maskhand.progress import Progress, silent
from maskhand.workspace import Workspace

FRAMES_AT_ONCE = 64
"""Number of frames whose rows are sealed together in the journal."""


@dataclass(frozen=True)
class TrackedFilms:
    """Processes the films of a run (`predict.run.FilmProcessor`)."""

    smoothing: Smoothing = "whole"

    def facts(self) -> Row:
        """Further settings that determine its results, beside those of the run's request."""
        return dict(smoothing_facts(self.smoothing))

    def groups(
        self, source: Source, place: Place, request: PredictRequest, out: Path, progress: Progress
    ) -> Iterator[FilmGroup]:
        """The rows of a film from `place` on, in groups; the last group has the files.

        A film that cannot be read, or breaks off, gives one row with the reason. A resumed run tracks the film again,
        because tracks depend on all frames.
        """
        following = Place(place.source + 1)
        try:
            facts = film_facts(source.path)
            given = request.camera
            camera = photo_camera(facts.size_px, focal_px=given.focal_px, intrinsics=given.intrinsics)
            film_request = FilmRequest(
                Path(source.path),
                camera,
                request.reconstruction,
                request.assets,
                request.every,
                request.side,
                request.min_confidence,
            )
            film = tracked_film(film_request, facts, self.smoothing, HandFinder(request.assets), progress=progress)
        except PredictError as error:
            reason = str(error).removeprefix(f"{source.path}: ")
            yield FilmGroup(_unreadable(source, place, reason, request), 1, [], following)
            return
        overlay = [f"{source.name}_overlay.mp4"] if "overlay" in request.saved and film.tracks else []
        for name in overlay:
            film.write_overlay(out / name, progress)
        rows, frames, last = [], 0, place
        for picture_place, new in _rows(film, source, place, camera, request):
            rows += new
            frames, last = frames + 1, picture_place
            if frames == FRAMES_AT_ONCE:
                yield FilmGroup(rows, frames, [], Place(last.source, last.frame + 1))
                rows, frames = [], 0
        if film.reason is not None:
            rows += _unreadable(source, last, film.reason, request)
            frames += 1
        yield FilmGroup(rows, frames, overlay, following)


def predict_film(
    path: str | Path,
    bundle: ModelBundle | None,
    out_dir: str | Path,
    *,
    reconstruction: Reconstruction | None = None,
    smoothing: Smoothing = "whole",
    every: int = 1,
    focal_px: float | None = None,
    overlay: bool = True,
    assets: str | Path | None = None,
    progress: Progress = silent,
) -> RunResult:
    """Write a run's folder for one film: NAME_overlay.mp4, hands.jsonl and hands.parquet with a row for each hand in
    each frame (`track`, `seen`), run.json.

    reconstruction: None is `refine` with the bundle, or `fit` without one. Other options as in `track_film`. Raises
    PredictError.
    """
    request = PredictRequest(
        reconstruction or Reconstruction(bundle, "fit" if bundle is None else "refine"),
        Workspace.at().assets if assets is None else Path(assets),
        camera=GivenCamera(focal_px),
        every=every,
        saved=("overlay",) if overlay else (),
    )
    sources = find_sources([path], out_dir)
    return predict_run(sources, request, Path(out_dir), progress=progress, films=TrackedFilms(smoothing))


def _rows(
    film: TrackedFilm, source: Source, start: Place, camera: PhotoCamera, request: PredictRequest
) -> Iterator[tuple[Place, list[Row]]]:
    """The rows of each frame from `start` on."""
    no_hand = no_hand_found(request.min_confidence)
    for index, time_s, hands in film.by_frame():
        if index < start.frame:
            continue
        picture = Picture(Place(start.source, index), source, index, time_s, film.facts.size_px, camera=camera)
        shown = [item.hand for item in hands]
        rows = picture_rows(picture, shown, request.reconstruction, no_hand, request.vertices, request.convention)
        for row, item in zip(rows, hands, strict=False):  # a frame without a hand has one row
            row |= {"track": item.track, "seen": item.seen}
        yield picture.place, rows


def _unreadable(source: Source, place: Place, reason: str, request: PredictRequest) -> list[Row]:
    picture = Picture(place, source, is_readable=False, reason=reason)
    return picture_rows(picture, [], request.reconstruction, no_hand_found(request.min_confidence))
