"""The hands of a film file, tracked and smoothed, and a film that shows them."""

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
from maskhand.film.posing import posed_hands
from maskhand.film.records import FilmHand, TrackedHand
from maskhand.film.smoothing import smooth
from maskhand.film.tracks import FilmLook, readable_frames, tracked_hands
from maskhand.film.video import FilmFacts, FilmWriter, film_facts
from maskhand.film.words import Smoothing
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

    look: FilmLook
    facts: FilmFacts
    frames: tuple[int, ...]
    """Those that were looked at."""
    times_s: tuple[float, ...]
    """Of these frames."""
    tracks: tuple[TrackedHand, ...]
    smoothing: Smoothing
    reason: str | None = None
    """Why the film could not be read to its end."""

    def hands(self) -> Iterator[FilmHand]:
        """All hands, by frame and then by track, with their meshes; made as they are asked for."""
        bundle = self.look.how.bundle
        layer = ManoLayer.from_default() if bundle is None else copy.deepcopy(bundle.model.mano).cpu()
        of_tracks = [posed_hands(track, layer, fill=self.smoothing == "whole") for track in self.tracks]
        yield from heapq.merge(*of_tracks, key=lambda item: (item.frame, item.track))

    def by_frame(self) -> Iterator[tuple[int, float, list[FilmHand]]]:
        """Every frame that was looked at, its time, and its hands."""
        groups = groupby(self.hands(), key=lambda item: item.frame)
        frame, hands = next(groups, (-1, iter(())))
        for index, time_s in zip(self.frames, self.times_s, strict=True):
            here: list[FilmHand] = []
            if index == frame:
                here = list(hands)
                frame, hands = next(groups, (-1, iter(())))
            yield index, time_s, here

    def write_overlay(self, path: str | Path, progress: Progress = silent) -> None:
        """Write the frames that were looked at, with the hands drawn over them, as H.264 in an .mp4."""
        frames = readable_frames(self.look.path, self.look.every, [])
        with FilmWriter(path, self.facts.frames_per_s / self.look.every) as film:
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
    """Find the hands of a film file, follow them from frame to frame, reconstruct and smooth them.

    bundle, method, min_confidence: see `predict_hands`; K_px (3, 3) or focal_px: the camera of an upright frame, else
    a long focal length is assumed and depth is relative. side: of every hand; None: each track's frames vote. every:
    looks at frames 0, `every`, 2 `every` ... search_s: see `HandFollower`. finder: finds hands in place of the
    default one. Memory does not grow with the film but for 5 kB a hand and frame. Raises PredictError for what is not
    a film.
    """
    facts = film_facts(path)
    camera = checked_camera(facts.size_px, K_px) if K_px is not None else photo_camera(facts.size_px, focal_px=focal_px)
    folder = Workspace.at().assets if assets is None else Path(assets)
    look = FilmLook(Path(path), camera, Reconstruction(bundle, method), folder, every, side, min_confidence)
    return tracked_film(look, facts, smoothing, finder or HandFinder(folder), search_s, progress)


def tracked_film(
    look: FilmLook,
    facts: FilmFacts,
    smoothing: Smoothing,
    finder: FrameFinder,
    search_s: float = SEARCH_S,
    progress: Progress = silent,
) -> TrackedFilm:
    """As `track_film`."""
    found = tracked_hands(look, HandFollower(finder, search_s), -(-facts.frames // look.every), progress)
    tracks = tuple(replace(track, motion=smooth(track.motion, smoothing)) for track in found.tracks)
    return TrackedFilm(
        look, facts, tuple(found.times_s), tuple(found.times_s.values()), tracks, smoothing, found.reason
    )
