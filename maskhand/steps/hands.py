"""Hands for people: of pictures and films, or of a text, by a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from maskhand import storage
from maskhand.annotate.small_hands import SmallHandFinder
from maskhand.conventions import Side
from maskhand.device import accelerator
from maskhand.film.run import TrackedFilms
from maskhand.film.smoothing import Smoothing
from maskhand.generate import generate_files
from maskhand.hand.pose_convention import BodyConvention
from maskhand.image_header import LONGEST_SIDE_PX
from maskhand.models.bundle import ModelBundle
from maskhand.placement import CameraSource
from maskhand.predict.box_file import BoxFile
from maskhand.predict.camera import Intrinsics, photo_camera
from maskhand.predict.files import SAVED, Saved
from maskhand.predict.inputs import find_sources
from maskhand.predict.looking import Question
from maskhand.predict.photo import Box
from maskhand.predict.pictures import GivenCamera
from maskhand.predict.predictor import default_method
from maskhand.predict.reconstruct import Reconstruction
from maskhand.predict.records import Method, PredictError
from maskhand.predict.rows import Row
from maskhand.predict.run import LINES, RunResult, predict_run
from maskhand.progress import Progress, silent
from maskhand.shipped_models import OPEN
from maskhand.steps.evaluate import model_folder
from maskhand.workspace import Workspace

LARGEST_PX = (LONGEST_SIDE_PX, LONGEST_SIDE_PX)
"""A size that has room for the principal point of any picture, before one is read."""

Smooth = Smoothing | Literal["frames"]
"""How films are looked at: tracked and smoothed, or each frame as a picture of its own."""

SHOWN_REASONS = 10
"""Pictures that could not be read, of which the command says why."""


def predict(
    workspace: Workspace,
    inputs: Sequence[str | Path],
    out: Path,
    *,
    model: str | None = None,
    box_xyxy_px: Box | None = None,
    boxes: Path | None = None,
    side: Side | None = None,
    focal_px: float | None = None,
    intrinsics: tuple[float, float, float, float] | None = None,
    placed_by: CameraSource = "keypoints",
    method: Method | None = None,
    hypotheses: int = 0,
    min_confidence: float = 0.0,
    every: int = 1,
    smooth: Smooth | None = None,
    save: str | None = None,
    vertices: bool = False,
    small: bool = False,
    convention: Literal["mano", "smplx", "smplh"] = "mano",
    components: int | None = None,
    again: bool = False,
    progress: Progress = silent,
) -> RunResult:
    """The hands of pictures and films in folder `out` (see `predict_run`).

    smooth: how films are looked at, `frames`: each frame as a picture of its own; None: tracked and smoothed as a
    whole, or as `frames` where hypotheses, a box or small hands are asked for.
    model: None is the open model; it is loaded once, and only where it is needed. method: None is the default one, a
    fit where the open model does not know the hand model in use. save: names of `SAVED` with commas between, or `none`;
    None: everything of a single picture, the overlays of several, nothing of films' frames. small: hands of few pixels
    are searched, too; convention, components: rows have the pose for a body model as well, see `BodyConvention`.
    """
    method, needs_network = asked_method(model, method, placed_by, hypotheses)
    # What cannot be looked at, or written, should not wait for the model.
    if storage.is_remote(out):
        raise PredictError(f"--out {out}: results are written to a folder of this machine")
    check_camera(focal_px, intrinsics)
    if components is not None and convention == "mano":
        raise PredictError("--pca: components are for the hands of body models; add --convention smplx or smplh")
    body = None if convention == "mano" else BodyConvention(convention, components)
    if small and not (box_xyxy_px is None and boxes is None):
        raise PredictError("--small: boxes are given, so no hands are searched; leave one of them out")
    asked = {"--hypotheses": hypotheses > 0, "--box": box_xyxy_px is not None, "--small": small}
    alone = next((option for option, is_asked in asked.items() if is_asked), None)
    if alone and smooth not in (None, "frames"):
        raise PredictError(f"{alone}: of single frames only; leave out --smooth {smooth}, or give --smooth frames")
    smooth = smooth or ("frames" if alone else "whole")
    sources = find_sources(inputs, out)
    if box_xyxy_px is not None and len(sources.files) > 1:
        raise PredictError(
            f"--box: one box for {len(sources.files)} files; give a single picture, or --boxes FILE with boxes for each"
        )
    if boxes is not None and (films := [source.path for source in sources.files if source.kind == "film"]):
        raise PredictError(f"--boxes: {films[0]} is a film, and boxes are of pictures; save its frames as pictures")
    given = None if boxes is None else BoxFile.read(boxes)
    storage.check_writable(out)
    bundle = None
    if needs_network:
        bundle = ModelBundle.load(model_folder(workspace, model or OPEN), device=accelerator())
    question = Question(
        Reconstruction(bundle, method, placed_by, hypotheses),
        workspace.assets,
        box=box_xyxy_px,
        boxes=given,
        side=side,
        camera=GivenCamera(focal_px, intrinsics),
        min_confidence=min_confidence,
        every=every,
        saved=_saved(save, SAVED if len(sources.files) == 1 else ("overlay",)),
        saved_of_frames=_saved(save, ()),
        vertices=vertices,
        convention=body,
        finder=SmallHandFinder(str(workspace.assets)) if small else None,
    )
    tracked = None if smooth == "frames" else TrackedFilms(smooth)
    return predict_run(sources, question, out, again, progress, tracked)


def asked_method(
    model: str | None, method: Method | None, placed_by: CameraSource, hypotheses: int
) -> tuple[Method, bool]:
    """The method, and whether it takes a network. Raises PredictError for a model that would not be used."""
    method = method or default_method(model)
    needs_network = method != "fit" or placed_by == "model" or hypotheses > 0
    if model is not None and not needs_network:
        raise PredictError(f"--model {model}: a fit uses no network; add --method model or --method refine")
    return method, needs_network


def check_camera(focal_px: float | None, intrinsics: Intrinsics | None) -> None:
    """PredictError for values that no camera has, before a picture is read."""
    photo_camera(LARGEST_PX, focal_px=focal_px, intrinsics=intrinsics)


def _saved(words: str | None, default: tuple[Saved, ...]) -> tuple[Saved, ...]:
    if words is None:
        return default
    named = [word.strip() for word in words.split(",")]
    if named == ["none"]:
        return ()
    if unknown := [word for word in named if word not in SAVED]:
        raise PredictError(f"--save {words}: {unknown[0]!r} is unknown; expected {', '.join(SAVED)}, or none")
    return tuple(kind for kind in SAVED if kind in named)


def generate(workspace: Workspace, text: str, out: Path, model: str, count: int, seed: int) -> list[Path]:
    """Hands that a text calls for, as meshes, image and JSON in folder `out` (see `generate_files`)."""
    storage.check_writable(out)
    folder = model_folder(workspace, model, "run train-maskhand -p recipe=tiny_text")
    bundle = ModelBundle.load(folder, device=accelerator())
    return generate_files(bundle, text, out, count, seed)


def report(result: RunResult) -> list[str]:
    """Sentences about a run: each hand of a single picture, or how many there are; and where the files are."""
    counts = result.counts
    lines = [str(path) for path in result.files] if counts["pictures"] == 1 else []
    lines.append(str(result.folder / LINES))
    if counts["pictures"] == 1:
        return [*lines, *findings(list(result.rows()))]
    lines.append(
        f"{counts['pictures']} pictures: {counts['hands']} hands in {counts['hand']} of them, no hand in "
        f"{counts['no hand']}, {counts['unreadable']} could not be read"
    )
    unreadable = (row for row in result.rows() if row["status"] == "unreadable")
    lines += [f"{row['picture']}: {row['reason']}" for row in islice(unreadable, SHOWN_REASONS)]
    if counts["unreadable"] > SHOWN_REASONS:
        lines.append(f"and {counts['unreadable'] - SHOWN_REASONS} more, each with its reason in {LINES}")
    return lines


def findings(rows: Sequence[Row]) -> list[str]:
    """Sentences about the rows of one picture."""
    if rows[0]["status"] != "hand":
        again = "; give its box with --box X0,Y0,X1,Y1" if rows[0]["status"] == "no hand" else ""
        return [f"{rows[0]['picture']}: {rows[0]['reason']}{again}"]
    lines = []
    for k, hand in enumerate(rows):
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
            shares = ", ".join(f"{100 * mode['share']:.0f} %" for mode in hand["modes"][:6])
            lines.append(f"hand {k}: {len(hand['modes'])} distinct mode{'s' * (len(hand['modes']) > 1)}: {shares}")
    source = rows[0]["camera"]["source"]
    if source == "assumed":
        lines.append("the focal length is assumed: sizes and places in the image hold, depth does not (--focal PX)")
    elif source == "exif":
        lines.append(f"the focal length is EXIF's, {rows[0]['camera']['K_px'][0][0]:.0f} px")
    return lines
