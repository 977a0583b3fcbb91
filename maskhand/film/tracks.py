"""From a film to tracked hands: detected and tracked, reconstructed in batches over frames, grouped by track."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskhand.annotate.detectors import Detections
from maskhand.annotate.registry import load_detector
from maskhand.arrays import Array
from maskhand.conventions import Side
from maskhand.film.following import HandFollower
from maskhand.film.records import Appearance, TrackedHand
from maskhand.film.smoothing import motion_of
from maskhand.film.video import Frame, read_frames
from maskhand.predict.camera import PhotoCamera
from maskhand.predict.detect import HAND_FINDER, DetectedHands
from maskhand.predict.hand_group import Reconstruction, SeenImage
from maskhand.predict.reconstruct import reconstruct_hands
from maskhand.predict.records import MIN_MEAN_CONFIDENCE, PredictedHand, PredictError
from maskhand.progress import Progress

MOMENT_S = 0.1
"""Tracks that were seen for less time are dropped as false detections."""


@dataclass(frozen=True)
class FilmRequest:
    """A film and the options with which it is processed."""

    path: Path
    camera: PhotoCamera
    """Of an upright frame."""
    reconstruction: Reconstruction
    assets: Path
    every: int = 1
    side: Side | None = None
    """Of every hand; None: by vote."""
    min_confidence: float = 0.0
    """Hands whose keypoints have a smaller mean confidence are ignored."""


@dataclass(frozen=True)
class FoundTracks:
    """The hands of a film, not smoothed."""

    tracks: list[TrackedHand]
    """Ordered by number."""
    times_s: dict[int, float]
    """Position of each processed frame -> its time."""
    reason: str | None
    """Why the film could not be read to its end."""


def tracked_hands(
    request: FilmRequest, follower: HandFollower, frames_expected: int, progress: Progress
) -> FoundTracks:
    """Detect, track and reconstruct the hands of a film.

    Images are not kept in memory. A few frames at the beginning of a track may be reconstructed with a side that the
    final vote overrules; these frames are decoded and reconstructed again.
    """
    times: dict[int, float] = {}
    found: list[Appearance] = []
    hands: dict[tuple[int, int], PredictedHand] = {}

    def seen(frames: Iterator[Frame]) -> Iterator[SeenImage]:
        for frame in frames:
            here = _found(request, follower, frame)
            times[frame.index] = frame.time_s
            found.extend(here)
            progress(len(times), max(frames_expected, len(times)), f"{len(found)} hands")
            yield _seen_image(request, frame.image_rgb, here)

    def keep(images: Iterator[SeenImage], appearances: list[Appearance]) -> None:
        done = 0
        for predicted in reconstruct_hands(images, request.reconstruction):
            for hand in predicted:
                hands[(appearances[done].track, appearances[done].frame)] = _without_vertices(hand)
                done += 1

    broken: list[PredictError] = []
    keep(seen(readable_frames(request.path, request.every, broken)), found)
    sides = {item.track: item.side for item in found}  # the last vote includes all frames
    wrong: dict[int, list[Appearance]] = defaultdict(list)
    for item in found:
        if item.side != sides[item.track]:
            wrong[item.frame].append(replace(item, side=sides[item.track]))
    if wrong:
        again = (frame for frame in readable_frames(request.path, request.every, []) if frame.index in wrong)
        keep(
            (_seen_image(request, frame.image_rgb, wrong[frame.index]) for frame in again),
            [item for frame in sorted(wrong) for item in wrong[frame]],
        )
    reason = str(broken[0]).removeprefix(f"{request.path}: ") if broken else None
    return FoundTracks(_by_track(found, hands, times), times, reason)


def readable_frames(path: Path, every: int, broken: list[PredictError]) -> Iterator[Frame]:
    """As `read_frames`, but an error after the first frame ends the iteration and is added to `broken`.

    Raises PredictError if no frame can be read.
    """
    frames, count = read_frames(path, every), 0
    while True:
        try:
            frame = next(frames)
        except StopIteration:
            return
        except PredictError as error:
            if not count:
                raise
            broken.append(error)
            return
        count += 1
        yield frame


def _found(request: FilmRequest, follower: HandFollower, frame: Frame) -> list[Appearance]:
    return [
        Appearance(frame.index, frame.time_s, track.number, hand, request.side or track.side)
        for track, hand in follower.hands(frame.image_rgb, frame.time_s)
        if float(hand.detection.confidence.mean()) >= request.min_confidence
    ]


def _seen_image(request: FilmRequest, image_rgb: Array, here: Sequence[Appearance]) -> SeenImage:
    boxes = np.array([item.found.box_xyxy_px for item in here], np.float32).reshape(-1, 4)
    sides = tuple(item.side for item in here)
    detections = Detections.stack([item.found.detection for item in here])
    if here and request.reconstruction.detector != HAND_FINDER:
        detector = load_detector(request.reconstruction.detector, request.assets)
        detections = detector.detect([image_rgb] * len(here), boxes, sides)
    known = tuple(request.side is not None or bool(row.mean() >= MIN_MEAN_CONFIDENCE) for row in detections.confidence)
    scores = tuple(item.found.score for item in here)
    return SeenImage(image_rgb, DetectedHands(boxes, scores, sides, known, detections), request.camera)


def _without_vertices(hand: PredictedHand) -> PredictedHand:
    """The hand without its mesh, 5 kB to keep; the mesh can be recomputed from its parameters."""
    return replace(hand, vertices_cam_m=hand.vertices_cam_m[:0].copy())


def _by_track(
    found: Sequence[Appearance], hands: dict[tuple[int, int], PredictedHand], times: dict[int, float]
) -> list[TrackedHand]:
    processed = np.array(list(times))
    step_s = float(np.median(np.diff(list(times.values())))) if len(times) > 1 else MOMENT_S
    enough = min(math.ceil(MOMENT_S / step_s - 0.01), len(times))
    by_track: dict[int, list[Appearance]] = defaultdict(list)
    for item in found:
        by_track[item.track].append(item)
    tracks = []
    for number, items in sorted(by_track.items()):
        if len(items) < enough:
            continue
        frames = processed[(processed >= items[0].frame) & (processed <= items[-1].frame)]
        predicted = tuple(hands.get((number, frame)) for frame in frames.tolist())
        motion = motion_of(predicted, np.array([times[frame] for frame in frames.tolist()]))
        tracks.append(TrackedHand(number, items[-1].side, frames, predicted, motion))
    return tracks
