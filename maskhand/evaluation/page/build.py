"""Put the page together: tables, charts, images and meshes of an evaluation in one HTML file."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from jinja2 import Environment, StrictUndefined

from maskhand.arrays import Array
from maskhand.evaluation.page.findings import Figure, Group, figures, groups
from maskhand.evaluation.report import ShownHand, confidence_line, error_lines
from maskhand.evaluation.result import MAIN_COLUMNS, EvaluationResult
from maskhand.metrics.titles import METRICS
from maskhand.render import jpeg_url

_MESH_UNIT_M = 1e-5
"""Vertices are kept as whole hundredths of a millimeter."""
_IN_IMAGE = ("absolute_mpjpe_mm", "epe_px", "pck_005", "pck_010")
"""The metrics that need the image's camera."""
_FACTS = {"product": "sampler of the model's own estimator"}
"""Names of recorded facts on the page, where the record's own would not be understood."""


@dataclass(frozen=True)
class Measurement:
    """One set of an evaluation and the hands to show of it."""

    result: EvaluationResult
    hands: Sequence[ShownHand]


@dataclass(frozen=True)
class _Hand:
    group: str
    key: str
    error: str
    side: str
    confidence: str
    images: list[tuple[str, str]]
    mesh: str
    truth: str


@dataclass(frozen=True)
class _Section:
    name: str
    sentences: list[str]
    columns: list[str]
    rows: list[tuple[str, list[str]]]
    figures: list[Figure]
    groups: list[Group]
    hands: list[_Hand]
    facts: list[tuple[str, str]]


def page(model: str, model_digest: str, measured: Sequence[Measurement], faces: Array) -> str:
    """The HTML text. faces (1538, 3) of the right hand; nothing is fetched when the page is opened."""
    files = resources.files("maskhand.evaluation.page")
    style, script, text = (files.joinpath(f"page.{end}").read_text("utf-8") for end in ("css", "js", "html"))
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(text)
    return template.render(
        model=model,
        model_digest=model_digest,
        style=style,
        script=script,
        faces=_base64(faces.astype("<u2")),
        sections=[_section(one) for one in measured],
    )


def _section(measured: Measurement) -> _Section:
    result = measured.result
    columns = dict(MAIN_COLUMNS) | {
        name: METRICS[name].column
        for name in _IN_IMAGE
        if any(row.metrics.get(name, np.nan) == row.metrics.get(name, np.nan) for row in result.rows)
    }
    return _Section(
        name=result.set_name,
        sentences=_sentences(result),
        columns=list(columns.values()),
        rows=[(row.name, [METRICS[name].cell(row.metrics[name]) for name in columns]) for row in result.rows],
        figures=figures(result),
        groups=groups(result),
        hands=[_hand(hand) for hand in measured.hands],
        facts=[(_FACTS.get(name, name.replace("_", " ")), _fact(value)) for name, value in result.facts.items()],
    )


def _sentences(result: EvaluationResult) -> list[str]:
    found = [f"{result.count:,} hands; {result.with_joints:,} with 3D joints, {result.with_mesh:,} with a mesh."]
    found += [*result.estimator_sentences(), *result.gain_sentences()]
    failed = {row.name: row.failed for row in result.rows if row.failed}
    found.append(
        "Failed and scored as a point: " + ", ".join(f"{name} {count:,}" for name, count in failed.items()) + "."
        if failed
        else "No sample failed."
    )
    found += _camera_sentences(result)
    if without := result.facts.get("without_2d_pose"):
        images = "one image" if without == 1 else f"{without:,} images"
        detected = result.facts.get("keypoints") == "detected"
        found.append(
            f"In {images} the detector saw no hand; the model had the image alone."
            if detected
            else f"For {images} no 2D pose was given."
        )
    return found


def _camera_sentences(result: EvaluationResult) -> list[str]:
    """What the network's own camera reaches, beside the table, whose hands stand where their 2D keypoints say."""
    own = [(METRICS[name], result.estimator_row.metrics[f"model_camera_{name}"]) for name in _IN_IMAGE]
    known = [f"{metric.column} {metric.cell(value)}" for metric, value in own if value == value]
    if not known:
        return []
    return [
        "In the table hands stand where the given 2D pose says. Where the network's own camera says, "
        f"{result.estimator} has " + ", ".join(known) + "."
    ]


def _hand(hand: ShownHand) -> _Hand:
    titles = ("image", "given 2D pose", "prediction", "ground truth")
    chosen = [(t, p) for t, p in zip(titles, hand.images, strict=True) if t != "ground truth" or hand.has_truth]
    return _Hand(
        group=hand.group,
        key=hand.key,
        error=", ".join(error_lines(hand.errors)),
        side=str(hand.errors["side"]),
        confidence=confidence_line(hand),
        images=[(title, jpeg_url(image)) for title, image in chosen],
        mesh=_vertices(hand.vertices_m),
        truth="" if hand.truth_m is None else _vertices(hand.truth_m),
    )


def _vertices(vertices_m: Array) -> str:
    if not np.isfinite(vertices_m).all():
        return ""
    return _base64(np.clip(np.round(vertices_m / _MESH_UNIT_M), -32767, 32767).astype("<i2"))


def _base64(values: Array) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _fact(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
