"""Files of an evaluation: table, numbers, a row per sample, and a contact sheet of its best, median and worst hands."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskhand import storage
from maskhand.arrays import Array
from maskhand.config import Recipe
from maskhand.conventions import OPENPOSE_21
from maskhand.evaluation.result import EvaluationResult
from maskhand.evaluation.truth import ground_truth
from maskhand.evaluation.views import HandView, read_samples
from maskhand.loading.loader import eval_rows, eval_set
from maskhand.metrics.titles import METRICS
from maskhand.models.bundle import ModelBundle
from maskhand.placement import image_camera
from maskhand.render import FINGER_RGB, bar_tile, contact_sheet
from maskhand.shards.npz import encode_arrays

JOINTS = "joints.npz"
"""Where the estimator put each hand's joints: `index` (N,) int64 and `joints_px` (N, 21, 2) float32, stored image."""
_COLUMNS = ("image", "given 2D pose", "prediction", "ground truth", "P(within 10 mm)")
_GRAY = (140, 146, 154)
_IN_SPACE = ("pa_mpjpe_mm", "pa_mpvpe_mm")


def write_report(result: EvaluationResult, folder_uri: str, sheet_png: bytes | None = None) -> dict[str, str]:
    """Write table.md, samples.parquet, joints.npz, sheet.png and, last, result.json; returns URIs by file name."""
    parquet = io.BytesIO()
    result.per_sample.to_parquet(parquet, index=False)
    files = {
        "table.md": result.to_markdown().encode(),
        "samples.parquet": parquet.getvalue(),
        JOINTS: encode_arrays({"index": result.predictions.index, "joints_px": result.predictions.joints_px}),
    }
    if sheet_png is not None:
        files["sheet.png"] = sheet_png
    files["result.json"] = result.summary().to_json()
    uris = {name: storage.join(folder_uri, name) for name in files}
    for name, data in files.items():
        storage.write_bytes_atomic(uris[name], data)
    return uris


@dataclass(frozen=True)
class ShownHand:
    """One of the best, median or worst hands, drawn; images and meshes as the hand is in the image, left hands left."""

    group: str
    """`best`, `median` or `worst`."""
    key: str
    errors: Mapping[str, float]
    """Its row of the table per sample."""
    images: tuple[Array, ...]
    """Image, given 2D pose, prediction, ground truth; (tile_px, tile_px, 3) uint8."""
    has_truth: bool
    keypoint_confidence: float
    """Mean over the given 2D pose."""
    p_within_10mm: Array
    """(21,) NaN for a hand without a calibrated confidence."""
    joint_error_mm: Array
    """(21,) expected error, alike."""
    vertices_m: Array
    """(778, 3) predicted, relative to the wrist; NaN for a failed sample."""
    truth_m: Array | None
    """(778, 3), alike."""


def shown_hands(
    bundle: ModelBundle, result: EvaluationResult, recipe: Recipe | None = None, each: int = 3, tile_px: int = 224
) -> list[ShownHand]:
    """The `each` best, median and worst hands by PA-MPJPE (else PA-MPVPE, else the error in the image).

    The predictions are those that were measured; nothing is predicted again.
    """
    settings = recipe or bundle.recipe
    table = result.per_sample[result.per_sample.predictor == result.estimator]
    metric = next((m for m in _IN_SPACE if table[m].notna().any()), "epe_px")
    table = table[table[metric].notna()].sort_values([metric, "index"])
    places = _places(len(table), each)
    chosen = table.iloc[[place for _, place in places]]
    rows = eval_rows(settings, read_samples(eval_set(settings, result.set_uri), chosen["index"].tolist()))
    hands, mano = rows.hands, bundle.model.mano
    truths = ground_truth(hands, rows.samples, mano)
    found, position = result.predictions, {int(index): at for at, index in enumerate(result.predictions.index)}
    shown = []
    for k, (row, (group, _), errors) in enumerate(zip(rows.samples, places, chosen.to_dict("records"), strict=True)):
        at = position[row.index]
        view = HandView(row, hands.crop_from_image[k].numpy(), settings.data.crop_px, tile_px, bool(rows.unreadable[k]))
        truth = view.truth(mano, hands, k)
        tiles = (
            view.image,
            view.keypoints(hands.keypoints_2d[k].numpy()),
            view.mesh(found.vertices_cam_m[at], image_camera(row.sample), mano),
            view.image if truth is None else truth,
        )
        shown.append(
            ShownHand(
                group=group,
                key=row.sample.key,
                errors=errors,
                images=tuple(view.shown(tile) for tile in tiles),
                has_truth=truth is not None,
                keypoint_confidence=float(hands.keypoints_2d[k, :, 2].mean()),
                p_within_10mm=_of_joints(errors, "p_within_10mm"),
                joint_error_mm=_of_joints(errors, "joint_error_mm"),
                vertices_m=found.vertices_cam_m[at] - found.joints_cam_m[at, 0],
                truth_m=truths.vertices_m[k].numpy() * view.mirror if truths.has_mesh[k] else None,
            )
        )
    return shown


def evaluation_sheet(result: EvaluationResult, shown: Sequence[ShownHand], tile_px: int = 224) -> bytes:
    """A PNG of the hands, a row each."""
    images = [[*hand.images, _confidence_tile(hand.p_within_10mm, tile_px)] for hand in shown]
    captions = [
        [
            f"{hand.group}\n{hand.key}",
            f"mean confidence {hand.keypoint_confidence:.2f}",
            "\n".join(error_lines(hand.errors)),
            "" if hand.has_truth else "no mesh with a camera",
            confidence_line(hand),
        ]
        for hand in shown
    ]
    return contact_sheet(images, captions, _COLUMNS, f"{result.set_name}, {result.estimator}", tile_px)


def error_lines(errors: Mapping[str, float]) -> list[str]:
    """The errors of one hand: in space where the set has joints or a mesh, else in the image."""
    known = [metric for metric in _IN_SPACE if errors[metric] == errors[metric]] or ["epe_px"]
    return [f"{METRICS[metric].title} {errors[metric]:.1f} {METRICS[metric].unit}" for metric in known]


def confidence_line(hand: ShownHand) -> str:
    """How sure the model is of the hand."""
    if np.isnan(hand.p_within_10mm).all():
        return "not calibrated"
    return f"mean {hand.p_within_10mm.mean():.2f}, expected error {hand.joint_error_mm.mean():.1f} mm"


def _of_joints(row: Mapping[str, float], what: str) -> Array:
    return np.array([row[f"{what}.{joint}"] for joint in OPENPOSE_21])


def _places(count: int, each: int) -> list[tuple[str, int]]:
    """Positions in a table sorted by error, with the name of their group; no position twice."""
    middle = max(0, count // 2 - each // 2)
    groups = {"best": range(each), "median": range(middle, middle + each), "worst": range(count - each, count)}
    places: dict[int, str] = {}
    for name, positions in groups.items():
        for position in positions:
            if 0 <= position < count:
                places.setdefault(position, name)
    return [(name, position) for position, name in sorted(places.items())]


def _confidence_tile(p_within_10mm: Array, tile_px: int) -> Array:
    colors = [_GRAY, *(FINGER_RGB[k // 4] for k in range(20))]
    return bar_tile(p_within_10mm, [name.replace("_", " ") for name in OPENPOSE_21], colors, tile_px)
