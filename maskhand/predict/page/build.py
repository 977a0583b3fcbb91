"""Put the page together: photos, overlays, meshes, hypotheses and decoding steps of hands in one HTML file."""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import cv2
import numpy as np
import torch
from jinja2 import Environment, StrictUndefined

from maskhand.arrays import Array
from maskhand.conventions import OPENPOSE_21
from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.predict.drawing import draw_hands, hand_name
from maskhand.predict.records import Hypothesis, PlacedHand, PredictedHand
from maskhand.progress import Progress, silent
from maskhand.render import MESH_RGB, error_rgb, jpeg_url, overlay_mesh
from maskhand.render.scale import ERROR_MM

MOST_HYPOTHESES = 60
"""Hypotheses of a hand in the page: the medoids of all modes, and others evenly by rank."""
_PHOTO_PX, _STILL_PX = 1280, 260
_MESH_UNIT_M = 1e-5
"""Vertices are kept as whole hundredths of a millimeter, relative to their mesh's middle."""
_NEAREST_JOINTS = 3


@dataclass(frozen=True)
class ViewedPicture:
    """A picture and its predicted hands."""

    name: str
    image_rgb: Array | None
    """(H, W, 3) uint8; None where the picture is not at hand any more."""
    hands: Sequence[PredictedHand]
    note: str = ""
    """A sentence about it, e.g. why the picture is missing."""


def page(pictures: Sequence[ViewedPicture], made_by: str, progress: Progress = silent) -> str:
    """The HTML text. made_by: method and model, for the line below the title."""
    files = resources.files("maskhand.predict.page")
    style, script, text = (files.joinpath(f"page.{end}").read_text("utf-8") for end in ("css", "js", "html"))
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(text)
    shown = []
    for k, one in enumerate(pictures):
        progress(k, len(pictures), one.name)
        shown.append(_picture(one))
    scale = error_rgb(np.linspace(0, ERROR_MM, 16)).tolist()
    return template.render(
        title=pictures[0].name if len(pictures) == 1 else f"{len(pictures)} pictures",
        made_by=made_by,
        style=style,
        script=script,
        error_mm=ERROR_MM,
        scale=", ".join(f"rgb({r} {g} {b})" for r, g, b in scale),
        pictures=shown,
    )


def _picture(viewed: ViewedPicture) -> dict[str, Any]:
    image = viewed.image_rgb
    return {
        "name": viewed.name,
        "note": viewed.note,
        "photo": None if image is None else jpeg_url(_reduced(image)),
        "overlay": None if image is None else jpeg_url(_reduced(draw_hands(image, viewed.hands))),
        "hands": [_hand(k, hand) for k, hand in enumerate(viewed.hands)],
    }


def _hand(number: int, hand: PredictedHand) -> dict[str, Any]:
    shown = _shown_hypotheses(hand)
    mode_of = {member: k for k, mode in enumerate(hand.modes) for member in mode.members}
    draws = sum(h.drawn for h in hand.hypotheses)
    colors = {"plain": np.array(MESH_RGB), "error": error_rgb(vertex_error_mm(hand.joint_error_mm))}
    if hand.hypotheses:
        colors["spread"] = error_rgb(1e3 * hand.vertex_spread_m)
    return {
        "name": hand_name(number, hand),
        "facts": _facts(hand),
        "faces": _base64(np.ascontiguousarray(hand.faces, "<u2")),
        "colors": {name: _base64(np.broadcast_to(rgb, (778, 3)).astype(np.uint8)) for name, rgb in colors.items()},
        "mesh": _mesh(hand, hand),
        "stills": [jpeg_url(still) for still in _stills(hand)],
        "joints": [
            {"name": name, "error": _number(error, 1), "within": _number(100 * p, 0)}
            for name, error, p in zip(OPENPOSE_21, hand.joint_error_mm, hand.p_within_10mm, strict=True)
        ],
        "modes": [
            {
                "share": f"{100 * mode.share:.0f} %",
                "medoid": shown.index(mode.medoid),
                "apart": _apart(hand, mode.medoid),
            }
            for mode in hand.modes
        ],
        "hypotheses": [
            {
                "mesh": _mesh(hand.hypotheses[k], hand),
                "text": _hypothesis_text(hand.hypotheses[k], k, mode_of.get(k), draws),
            }
            for k in shown
        ],
        "steps": [
            {
                "mesh": _mesh(step, hand),
                "fixed": step.fixed.astype(int).tolist(),
                "codes": [int(code) if fixed else None for code, fixed in zip(step.tokens, step.fixed, strict=True)],
                "confidence": np.round(step.token_confidence.astype(float), 3).tolist(),
            }
            for step in hand.fill_in
        ],
    }


def vertex_error_mm(joint_error_mm: Array) -> Array:
    """(778,) expected errors of the vertices, from those of the joints (21,) that are nearest on the flat hand."""
    nearest, weights = _nearest_joints(str(default_hand_path("right")))
    return (joint_error_mm[nearest] * weights).sum(1)


@functools.lru_cache(maxsize=1)
def _nearest_joints(path: str) -> tuple[Array, Array]:
    """For each vertex of the flat hand its nearest joints (778, 3) and their weights, by inverse squared distance."""
    flat = ManoLayer(load_hand_model(path)).from_axis_angle(torch.zeros(1, 48), torch.zeros(1, 10))
    vertices, joints = flat.vertices_m[0].double().numpy(), flat.joints_m[0].double().numpy()
    distance = np.linalg.norm(vertices[:, None] - joints[None], axis=-1)
    nearest = np.argsort(distance, axis=1)[:, :_NEAREST_JOINTS]
    weights = 1 / np.maximum(np.take_along_axis(distance, nearest, 1), 1e-4) ** 2
    return nearest, weights / weights.sum(1, keepdims=True)


def _shown_hypotheses(hand: PredictedHand) -> list[int]:
    """Indices of hypotheses, in their order."""
    count = len(hand.hypotheses)
    medoids = [mode.medoid for mode in hand.modes[:MOST_HYPOTHESES]]
    even = np.linspace(0, count - 1, min(count, MOST_HYPOTHESES)).round().astype(int).tolist() if count else []
    return sorted({*medoids, *even})


def _facts(hand: PredictedHand) -> list[str]:
    facts: list[str] = [hand.side if hand.side_known else "side unknown"]
    if hand.detection_score is not None:
        facts.append(f"found with {hand.detection_score:.2f}")
    facts.append(f"keypoints seen with {hand.keypoints_confidence.mean():.2f}")
    if np.isfinite(hand.joint_error_mm).all():
        facts.append(f"a joint is expected to be {hand.joint_error_mm.mean():.0f} mm off")
    if np.isfinite(hand.p_within_10mm).all():
        facts.append(f"{100 * hand.p_within_10mm.mean():.0f} % of the joints within 10 mm")
    return facts


def _hypothesis_text(hypothesis: Hypothesis, rank: int, mode: int | None, draws: int) -> str:
    parts = [f"hypothesis {rank + 1}: {-hypothesis.score:.1f} mm from the mean of {draws} draws"]
    parts += [] if mode is None else [f"mode {mode + 1}"]
    return ", ".join([*parts, f"mean token probability {np.exp(hypothesis.log_probability):.2f}"])


def _apart(hand: PredictedHand, rank: int) -> str:
    """How far a hypothesis is from the prediction, wrists together."""
    other = hand.hypotheses[rank]
    offset = (other.joints_cam_m - other.joints_cam_m[0]) - (hand.joints_cam_m - hand.joints_cam_m[0])
    return f"{1e3 * np.linalg.norm(offset, axis=1).mean():.0f} mm"


def _mesh(placed: PlacedHand, hand: PredictedHand) -> dict[str, Any]:
    """A mesh in camera axes, its wrist at that of the reported hand: its middle in meters, and the vertices about it.

    With an assumed focal length other hands that project alike stand decimeters before or behind it.
    """
    vertices = placed.vertices_cam_m + (hand.joints_cam_m[0] - placed.joints_cam_m[0])
    middle = (vertices.min(0) + vertices.max(0)) / 2
    units = np.clip(np.round((vertices - middle) / _MESH_UNIT_M), -32767, 32767)
    return {"middle": np.round(middle.astype(float), 6).tolist(), "vertices": _base64(units.astype("<i2"))}


def _stills(hand: PredictedHand) -> list[Array]:
    """The hand as the camera sees it and from its side, for browsers that draw no meshes."""
    centered = hand.vertices_cam_m - (hand.vertices_cam_m.min(0) + hand.vertices_cam_m.max(0)) / 2
    aside = centered @ np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
    distance_m = 1.0
    focal = 0.42 * _STILL_PX * distance_m / max(float(np.linalg.norm(centered, axis=1).max()), 1e-3)
    K_px = np.array([[focal, 0, _STILL_PX / 2], [0, focal, _STILL_PX / 2], [0, 0, 1]])
    paper = np.full((_STILL_PX, _STILL_PX, 3), 255, np.uint8)
    color = error_rgb(vertex_error_mm(hand.joint_error_mm))
    before = np.array([0, 0, distance_m])
    return [overlay_mesh(paper, view + before, hand.faces, K_px, color, 1.0, 1.0) for view in (centered, aside)]


def _reduced(image_rgb: Array) -> Array:
    scale = _PHOTO_PX / max(image_rgb.shape[:2])
    if scale >= 1:
        return image_rgb
    return cv2.resize(image_rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _base64(values: Array) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"
