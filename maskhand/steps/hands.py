"""Hands for people: of a photo, or of a text, by a trained model."""

from __future__ import annotations

import json
from pathlib import Path

from maskhand import storage
from maskhand.conventions import Side
from maskhand.device import accelerator
from maskhand.generate import generate_files
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.open_model import open_hand_digest
from maskhand.placement import CameraSource
from maskhand.predict import PredictError, predict_photo, read_photo
from maskhand.predict.records import Method
from maskhand.shipped_models import OPEN
from maskhand.steps.evaluate import model_folder
from maskhand.workspace import Workspace


def predict(
    workspace: Workspace,
    photo: Path,
    out: Path,
    model: str | None,
    box_xyxy_px: tuple[float, float, float, float] | None,
    side: Side | None,
    focal_px: float | None,
    camera: CameraSource,
    hypotheses: int = 0,
    method: Method | None = None,
    min_confidence: float = 0.0,
) -> list[Path]:
    """The hands of a photo as overlay, meshes and JSON in folder `out`; returns the files (see `predict_photo`).

    model: None is the open model; it is loaded only where it is needed. method: None is the default one, a fit where
    the open model does not know the hand model in use.
    """
    method = method or _default_method(model)
    needs_network = method != "fit" or camera == "model" or hypotheses > 0
    if model is not None and not needs_network:
        raise PredictError(f"--model {model}: a fit uses no network; add --method model or --method refine")
    # An image that cannot be read, or a folder that cannot be written, should not wait for the model.
    image = read_photo(photo)
    storage.check_writable(out)
    bundle = None
    if needs_network:
        bundle = ModelBundle.load(model_folder(workspace, model or OPEN), device=accelerator())
    return predict_photo(
        photo,
        bundle,
        out,
        box_xyxy_px,
        side,
        method=method,
        focal_px=focal_px,
        camera=camera,
        hypotheses=hypotheses,
        min_confidence=min_confidence,
        assets=workspace.assets,
        image_rgb=image,
    )


def _default_method(model: str | None) -> Method:
    """model: None is the open one."""
    other_hand = model is None and load_hand_model(default_hand_path("right")).digest != open_hand_digest()
    return "fit" if other_hand else "refine"


def generate(workspace: Workspace, text: str, out: Path, model: str, count: int, seed: int) -> list[Path]:
    """Hands that a text calls for, as meshes, image and JSON in folder `out` (see `generate_files`)."""
    storage.check_writable(out)
    folder = model_folder(workspace, model, "run train-maskhand -p recipe=tiny_text")
    bundle = ModelBundle.load(folder, device=accelerator())
    return generate_files(bundle, text, out, count, seed)


def findings(summary: Path) -> list[str]:
    """Sentences about the hands in the JSON that `predict` wrote."""
    facts = json.loads(summary.read_text())
    lines = []
    for k, hand in enumerate(facts["hands"]):
        found = "" if hand["detection_score"] is None else f", found with {hand['detection_score']:.2f}"
        seen = sum(hand["keypoints_confidence"]) / len(hand["keypoints_confidence"])
        lines.append(f"hand {k}: {hand['side'] or 'side unknown'}{found}, keypoints seen with {seen:.2f}")
        if hand["guess"]:
            lines.append(f"hand {k}: a guess, its keypoints were hardly seen")
        elif hand["joint_error_mm"] is not None:
            errors, within = hand["joint_error_mm"], hand["p_within_10mm"]
            lines.append(
                f"hand {k}: a joint is expected to be {sum(errors) / len(errors):.0f} mm off, "
                f"{100 * sum(within) / len(within):.0f} % of them within 10 mm"
            )
        if "hypotheses" in hand:
            spread = sum(hand["joint_spread_mm"][1:]) / (len(hand["joint_spread_mm"]) - 1)
            lines.append(f"hand {k}: {len(hand['hypotheses'])} different hypotheses, joints spread by {spread:.1f} mm")
    if facts["hands"][0]["camera"]["source"] == "assumed":
        lines.append("the focal length is assumed: sizes and places in the image hold, depth does not (--focal PX)")
    return lines
