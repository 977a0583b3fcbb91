"""The hands of a film file: tracked, smoothed, as a table and as a film with overlay."""

from __future__ import annotations

import copy
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from maskhand import storage
from maskhand.annotate.hand_finder import HandFinder
from maskhand.arrays import Array
from maskhand.conventions import MIRROR_AXIS_ANGLE, MIRROR_POINT, Side
from maskhand.film.drawing import draw_frame
from maskhand.film.following import SEARCH_EVERY, FrameFinder, HandFollower
from maskhand.film.records import FilmHand, TrackedHand
from maskhand.film.smoothing import Smoothing, hand_size_m, smooth
from maskhand.film.tracks import FilmLook, tracked_hands
from maskhand.film.video import FilmFacts, FilmWriter, film_facts, read_frames
from maskhand.geometry2d import tight_box
from maskhand.hand.camera import assumed_camera
from maskhand.hand.layer import ManoLayer
from maskhand.models.bundle import ModelBundle
from maskhand.predict.files import to_json
from maskhand.predict.hands import DEFAULT_METHOD
from maskhand.predict.reconstruct import Reconstruction
from maskhand.predict.records import Method, PredictedHand
from maskhand.progress import Progress, silent
from maskhand.workspace import Workspace

POSED_AT_ONCE = 64


@dataclass(frozen=True)
class TrackedFilm:
    """A film and its hands."""

    look: FilmLook
    facts: FilmFacts
    frames: tuple[int, ...]
    """Those that were looked at."""
    tracks: tuple[TrackedHand, ...]
    smoothing: Smoothing

    def hands(self) -> Iterator[FilmHand]:
        """All hands, by frame and then by track, with their meshes; made as they are asked for."""
        layer = _layer(self.look.how.bundle)
        of_tracks = [_posed_hands(track, layer, fill=self.smoothing == "whole") for track in self.tracks]
        yield from heapq.merge(*of_tracks, key=lambda item: (item.frame, item.track))

    def write_overlay(self, path: str | Path, progress: Progress = silent) -> None:
        """Write the frames that were looked at, with the hands drawn over them, as H.264 in an .mp4."""
        by_frame = groupby(self.hands(), key=lambda item: item.frame)
        frame_of_hands, hands = next(by_frame, (-1, iter(())))
        with FilmWriter(path, self.facts.frames_per_s / self.look.every) as film:
            for done, frame in enumerate(read_frames(self.look.path, self.look.every), 1):
                here: Sequence[FilmHand] = []
                if frame.index == frame_of_hands:
                    here = list(hands)
                    frame_of_hands, hands = next(by_frame, (-1, iter(())))
                film.write(draw_frame(frame.image_rgb, here), frame.time_s)
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
    search_every: int = SEARCH_EVERY,
    min_confidence: float = 0.0,
    assets: str | Path | None = None,
    finder: FrameFinder | None = None,
    progress: Progress = silent,
) -> TrackedFilm:
    """Find the hands of a film file, follow them from frame to frame, reconstruct and smooth them.

    bundle, method, min_confidence: see `predict_hands`; K_px (3, 3) or focal_px: the camera of an upright frame, else
    a long focal length is assumed and depth is relative. side: of every hand; None: each track's frames vote. every:
    looks at frames 0, `every`, 2 `every` ... search_every: see `HandFollower`. finder: finds hands in place of the
    default one. Memory does not grow with the film but for 5 kB a hand and frame. Raises PredictError for what is not
    a film.
    """
    how = Reconstruction(bundle, method)
    folder = Workspace.at().assets if assets is None else Path(assets)
    facts = film_facts(path)
    camera = assumed_camera(facts.size_px, focal_px) if K_px is None else np.asarray(K_px, np.float64)
    look = FilmLook(Path(path), camera, how, folder, every, side, min_confidence)
    follower = HandFollower(finder or HandFinder(folder), search_every)
    tracks, frames = tracked_hands(look, follower, -(-facts.frames // every), progress)
    smoothed = tuple(replace(track, motion=smooth(track.motion, smoothing)) for track in tracks)
    return TrackedFilm(look, facts, tuple(frames), smoothed, smoothing)


def predict_film(
    path: str | Path,
    bundle: ModelBundle | None,
    out_dir: str | Path,
    *,
    overlay: bool = True,
    progress: Progress = silent,
    **options: Any,
) -> list[Path]:
    """As `track_film`, written into a folder: NAME_overlay.mp4 (if wanted), NAME_hands.jsonl with a line for each hand
    in each frame, and NAME.json with the tracks. Returns the paths, the last one's last."""
    film = track_film(path, bundle, progress=progress, **options)
    out, stem = Path(out_dir), Path(path).stem
    out.mkdir(parents=True, exist_ok=True)
    drawn, table, summary = (out / f"{stem}{end}" for end in ("_overlay.mp4", "_hands.jsonl", ".json"))
    if overlay:
        film.write_overlay(drawn, progress)
    with storage.atomic_writer(table) as write:
        for item in film.hands():
            write((json.dumps(film_row(item)) + "\n").encode())
    storage.write_json_atomic(summary, film_summary(film))
    return [*([drawn] if overlay else []), table, summary]


def film_row(item: FilmHand) -> dict[str, Any]:
    """The table's row of a hand in a frame."""
    place = {"frame": item.frame, "time_s": round(item.time_s, 6), "track": item.track, "seen": item.seen}
    return place | to_json(item.hand)


def film_summary(film: TrackedFilm) -> dict[str, Any]:
    """What was asked, and the tracks with their frames."""
    bundle = film.look.how.bundle
    return {
        "film": film.look.path.name,
        "frame_size_px": list(film.facts.size_px),
        "frames_per_s": film.facts.frames_per_s,
        "frames": len(film.frames),
        "every": film.look.every,
        "smoothing": film.smoothing,
        "method": film.look.how.method,
        "model": None if bundle is None else {"digest": bundle.digest, "recipe": bundle.recipe.name},
        "K_px": film.look.K_px.tolist(),
        "tracks": [
            {
                "track": track.number,
                "side": track.side,
                "first_frame": int(track.frames[0]),
                "last_frame": int(track.frames[-1]),
                "frames_seen": int(track.seen.sum()),
                "frames_filled": int((~track.seen).sum()) if film.smoothing == "whole" else 0,
            }
            for track in film.tracks
        ],
    }


def _layer(bundle: ModelBundle | None) -> ManoLayer:
    return ManoLayer.from_default() if bundle is None else copy.deepcopy(bundle.model.mano).cpu()


def _posed_hands(track: TrackedHand, layer: ManoLayer, fill: bool) -> Iterator[FilmHand]:
    """The hands of one track in the order of its frames; with `fill` also where it was not seen."""
    rows = np.arange(len(track.frames)) if fill else np.flatnonzero(track.seen)
    before: PredictedHand | None = None
    for first in range(0, len(rows), POSED_AT_ONCE):
        chunk = rows[first : first + POSED_AT_ONCE]
        for row, posed in zip(chunk.tolist(), _posed(track, chunk, layer), strict=True):
            original = track.predicted[row]
            before = original or before
            assert before is not None  # the first row of a track was seen
            hand = replace(before, **posed)
            yield FilmHand(
                int(track.frames[row]),
                float(track.motion.times_s[row]),
                track.number,
                original is not None,
                hand if original is not None else _not_seen(hand),
            )


def _posed(track: TrackedHand, rows: Array, layer: ManoLayer) -> list[dict[str, Array]]:
    """The fields of `PlacedHand` that pose and place decide, of some rows of a track."""
    motion, left = track.motion, track.side == "left"
    with torch.no_grad():
        mesh = layer(torch.from_numpy(motion.rotmats[rows]).float(), torch.from_numpy(motion.betas[rows]).float())
    vertices, joints = mesh.vertices_m.double().numpy(), mesh.joints_m.double().numpy()
    depth = np.exp(motion.distance[rows]) * hand_size_m(joints)
    middle = depth[:, None] * np.concatenate([motion.direction[rows], np.ones((len(rows), 1))], axis=1)
    signs = MIRROR_POINT if left else np.ones(3)
    # the middle of the joints is what was smoothed: the hand hangs on it
    translation = (middle - joints.mean(1)) * signs
    vertices, joints = vertices * signs + translation[:, None], joints * signs + translation[:, None]
    pose = Rotation.from_matrix(motion.rotmats[rows].reshape(-1, 3, 3)).as_rotvec().reshape(len(rows), -1, 3)
    K_px = next(hand.K_px for hand in track.predicted if hand is not None)
    projected = joints @ K_px.T
    fields = {
        "pose_aa": pose * (MIRROR_AXIS_ANGLE if left else 1.0),
        "betas": motion.betas[rows],
        "transl_cam_m": translation,
        "vertices_cam_m": vertices,
        "joints_cam_m": joints,
        "joints_px": projected[..., :2] / projected[..., 2:],
    }
    return [{name: values[k] for name, values in fields.items()} for k in range(len(rows))]


def _not_seen(hand: PredictedHand) -> PredictedHand:
    """A hand of the frames around it: nothing was detected, and nobody knows its error."""
    return replace(
        hand,
        box_xyxy_px=tight_box(hand.joints_px),
        detection_score=None,
        keypoints_px=hand.joints_px,
        keypoints_confidence=np.zeros_like(hand.keypoints_confidence),
        p_within_10mm=np.full_like(hand.p_within_10mm, np.nan),
        joint_error_mm=np.full_like(hand.joint_error_mm, np.nan),
    )
