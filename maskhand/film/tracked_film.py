"""The hands of a film file, tracked and smoothed, and the overlay film."""

from __future__ import annotations

import copy
import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from maskhand.annotate.hand_finder import HandFinder
from maskhand.arrays import Array
from maskhand.conventions import Side
from maskhand.film.drawing import draw_frame
from maskhand.film.following import SEARCH_S, FrameFinder, HandFollower
from maskhand.film.options import Smoothing
from maskhand.film.posing import posed_hands
from maskhand.film.records import FilmHand, TrackedHand
from maskhand.film.smoothing import smooth
from maskhand.film.tracks import FilmRequest, readable_frames, tracked_hands
from maskhand.film.video import FilmFacts, FilmWriter, film_facts
from maskhand.hand.layer import ManoLayer
from maskhand.models.bundle import ModelBundle
from maskhand.predict.camera import checked_camera, photo_camera
from maskhand.predict.hand_group import Reconstruction
from maskhand.predict.hands import DEFAULT_METHOD
from maskhand.predict.records import Method
from maskhand.progress import Progress, silent
from maskhand.workspace import Workspace


@dataclass(frozen=True)
class TrackedFilm:
    """A film and its hands."""

    request: FilmRequest
    facts: FilmFacts
    frames: tuple[int, ...]
    """Positions of the processed frames."""
    times_s: tuple[float, ...]
    """Times of these frames."""
    tracks: tuple[TrackedHand, ...]
    smoothing: Smoothing
    reason: str | None = None
    """Why the film could not be read to its end."""

    def hands(self) -> Iterator[FilmHand]:
        """All hands, ordered by frame and then by track, with their meshes; computed lazily."""
        bundle = self.request.reconstruction.bundle
        layer = ManoLayer.from_default() if bundle is None else copy.deepcopy(bundle.model.mano).cpu()
        of_tracks = [posed_hands(track, layer, fill=self.smoothing == "whole") for track in self.tracks]
        yield from heapq.merge(*of_tracks, key=lambda item: (item.frame, item.track))

    def by_frame(self) -> Iterator[tuple[int, float, list[FilmHand]]]:
        """Every processed frame, its time, and its hands."""
        groups = groupby(self.hands(), key=lambda item: item.frame)
        frame, hands = next(groups, (-1, iter(())))
        for index, time_s in zip(self.frames, self.times_s, strict=True):
            here: list[FilmHand] = []
            if index == frame:
                here = list(hands)
                frame, hands = next(groups, (-1, iter(())))
            yield index, time_s, here

    def write_overlay(self, path: str | Path, progress: Progress = silent) -> None:
        """Write the processed frames with the hands drawn over them as an .mp4 (H.264 if available)."""
        frames = readable_frames(self.request.path, self.request.every, [])
        with FilmWriter(path, self.facts.frames_per_s / self.request.every) as film:
            for done, (frame, (_, time_s, hands)) in enumerate(zip(frames, self.by_frame(), strict=True), 1):
                film.write(draw_frame(frame.image_rgb, hands), time_s)
                progress(done, len(self.frames), "overlay")


def track_film(
    path: str | Path,
    bundle: ModelBundle | None,
    *,
    method: Method = DEFAULT_METHOD,
    focal_px: float | None = None,
    K_px: Array | None = None,
    side: Side | None = None,
    smoothing: Smoothing = "whole",
    every: int = 1,
    search_s: float = SEARCH_S,
    min_confidence: float = 0.0,
    assets: str | Path | None = None,
    finder: FrameFinder | None = None,
    progress: Progress = silent,
) -> TrackedFilm:
    """Detect the hands of a film file, track them from frame to frame, reconstruct and smooth them.

    bundle, method, min_confidence: see `predict_hands`; K_px (3, 3) or focal_px: the camera of an upright frame; by
    default a long focal length is assumed and depth is relative. side: of every hand; None: by a vote over each track's
    frames. every: process frames 0, `every`, 2 `every` ... search_s: see `HandFollower`. finder: replaces the default
    hand finder. Memory grows by only 5 kB per hand and frame. Raises PredictError if the file is not a film.
    """
    facts = film_facts(path)
    camera = checked_camera(facts.size_px, K_px) if K_px is not None else photo_camera(facts.size_px, focal_px=focal_px)
    folder = Workspace.at().assets if assets is None else Path(assets)
    request = FilmRequest(Path(path), camera, Reconstruction(bundle, method), folder, every, side, min_confidence)
    return tracked_film(request, facts, smoothing, finder or HandFinder(folder), search_s, progress)


def tracked_film(
    request: FilmRequest,
    facts: FilmFacts,
    smoothing: Smoothing,
    finder: FrameFinder,
    search_s: float = SEARCH_S,
    progress: Progress = silent,
) -> TrackedFilm:
    """As `track_film`, with its options as a `FilmRequest`."""
    found = tracked_hands(request, HandFollower(finder, search_s), -(-facts.frames // request.every), progress)
    tracks = tuple(replace(track, motion=smooth(track.motion, smoothing)) for track in found.tracks)
    return TrackedFilm(
        request, facts, tuple(found.times_s), tuple(found.times_s.values()), tracks, smoothing, found.reason
    )
