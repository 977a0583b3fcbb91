"""The options of a prediction run, checked before torch is imported: a mistyped option is refused at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from maskhand import storage
from maskhand.annotate.small_hands import SmallHandFinder
from maskhand.conventions import Side
from maskhand.disk import check_writable
from maskhand.film.options import Smoothing, smoothing_facts
from maskhand.hand.pose_convention import BodyConvention
from maskhand.image_header import LONGEST_SIDE_PX
from maskhand.models.bundle_records import bundle_facts
from maskhand.predict.box_file import BoxFile
from maskhand.predict.camera import Intrinsics, photo_camera
from maskhand.predict.default_method import default_method
from maskhand.predict.inputs import Sources, find_sources
from maskhand.predict.options import PredictOptions, ReconstructionSettings
from maskhand.predict.photo import Box
from maskhand.predict.pictures import GivenCamera
from maskhand.predict.records import Method, PredictError
from maskhand.predict.run_files import RunResult, finished_run, running
from maskhand.predict.saved import SAVED, Saved
from maskhand.shipped_models import OPEN
from maskhand.steps.models import model_folder
from maskhand.workspace import Workspace

if TYPE_CHECKING:
    from maskhand.placement import PlacedBy

LARGEST_PX = (LONGEST_SIDE_PX, LONGEST_SIDE_PX)
"""A size that has room for the principal point of any picture, before one is read."""

Smooth = Smoothing | Literal["frames"]
"""How films are processed: tracked and smoothed, or each frame as a picture of its own."""


@dataclass(frozen=True)
class PreparedRun:
    """A run whose options are checked, ready for `steps.hands.predict`."""

    sources: Sources
    options: PredictOptions
    settings: ReconstructionSettings
    model: str | None
    """Exported folder of the network; None where none is needed."""
    assets: Path
    """Where the detector's files are, or are fetched to."""
    out: Path
    smooth: Smooth
    again: bool
    """Whether an earlier run is removed."""
    note: str | None
    """Tells the user that the default method is a fit alone, and why."""

    def finished(self) -> RunResult | None:
        """The same run, if it is finished already. Raises PredictError where another one's results are there."""
        if self.again:
            return None
        of_films = {} if self.smooth == "frames" else smoothing_facts(self.smooth)
        return finished_run(self.out, running(self.sources, self.options.facts_with(self.settings) | of_films))


def prepare_run(
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
    placed_by: PlacedBy = "keypoints",
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
) -> PreparedRun:
    """The run that finds the hands of pictures and films in folder `out` (see `predict_run`). Raises PredictError.

    smooth: how films are processed, `frames`: each frame as a picture of its own; None: tracked and smoothed as a
    whole, or as `frames` with hypotheses, a box or small hands.
    model: None is the open model; it is loaded once, and only where it is needed. method: None is the default one, a
    fit where the open model does not know the hand model in use. save: names of `SAVED` with commas between, or `none`;
    None: everything of a single picture, the overlays of several, nothing of films' frames. small: hands of few pixels
    are searched, too; convention, components: rows have the pose for a body model as well, see `BodyConvention`.
    """
    note = fallback_note(model, method)
    method, needs_network = checked_method(model, method, placed_by, hypotheses)
    if storage.is_remote(out):
        raise PredictError(f"--out {out}: results are written to a folder of this machine")
    check_camera(focal_px, intrinsics)
    if box_xyxy_px is not None:
        check_box(box_xyxy_px)
    if components is not None and convention == "mano":
        raise PredictError("--pca: components are for the hands of body models; add --convention smplx or smplh")
    body = None if convention == "mano" else BodyConvention(convention, components)
    if small and not (box_xyxy_px is None and boxes is None):
        raise PredictError("--small: boxes are given, so no hands are searched; leave one of them out")
    of_single_frames = {"--hypotheses": hypotheses > 0, "--box": box_xyxy_px is not None, "--small": small}
    alone = next((option for option, is_given in of_single_frames.items() if is_given), None)
    if alone and smooth not in (None, "frames"):
        raise PredictError(f"{alone}: of single frames only; leave out --smooth {smooth}, or give --smooth frames")
    smooth = smooth or ("frames" if alone else "whole")
    sources = find_sources(inputs, out)
    if box_xyxy_px is not None and len(sources.files) > 1:
        raise PredictError(
            f"--box: one box for {len(sources.files)} files; give a single picture, or --boxes FILE with boxes for each"
        )
    given = None if boxes is None else given_boxes(boxes, sources)
    options = PredictOptions(
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
    check_writable(out)
    folder = model_folder(workspace, model or OPEN) if needs_network else None
    settings = ReconstructionSettings(method, None if folder is None else bundle_facts(folder), placed_by, hypotheses)
    return PreparedRun(sources, options, settings, folder, workspace.assets, out, smooth, again, note)


def checked_method(
    model: str | None, method: Method | None, placed_by: PlacedBy, hypotheses: int
) -> tuple[Method, bool]:
    """The method, and whether it takes a network. Raises PredictError for a model that would not be used."""
    method = method or default_method(model)
    needs_network = method != "fit" or placed_by == "model" or hypotheses > 0
    if model is not None and not needs_network:
        raise PredictError(f"--model {model}: a fit uses no network; add --method model or --method refine")
    return method, needs_network


def fallback_note(model: str | None, method: Method | None) -> str | None:
    """A sentence where the default is a fit alone, as another hand model is in use than the open model knows."""
    if method is not None or default_method(model) != "fit":
        return None
    return (
        "method fit: the open model was trained with the open hand, and MASKHAND_MANO_DIR has another one; "
        "--method refine --model DIR takes a model that was trained with that"
    )


def check_camera(focal_px: float | None, intrinsics: Intrinsics | None) -> None:
    """PredictError for values that no camera has, before a picture is read."""
    photo_camera(LARGEST_PX, focal_px=focal_px, intrinsics=intrinsics)


def check_box(box_xyxy_px: Box) -> None:
    """PredictError for a box that is in no picture."""
    x0, y0, x1, y1 = box_xyxy_px
    if not (all(map(math.isfinite, box_xyxy_px)) and x0 < x1 and y0 < y1 and x1 > 0 and y1 > 0):
        raise PredictError(
            f"--box {x0:g},{y0:g},{x1:g},{y1:g}: expected X0,Y0,X1,Y1 with X0 < X1 and Y0 < Y1, in pixels of the "
            "upright picture"
        )


def given_boxes(boxes: Path, sources: Sources) -> BoxFile:
    """The boxes of these pictures. PredictError where one is a film, and where the file is unreadable or of others."""
    if films := [source.path for source in sources.files if source.kind == "film"]:
        raise PredictError(f"--boxes: {films[0]} is a film, and boxes are of pictures; save its frames as pictures")
    given = BoxFile.read(boxes)
    given.match([source.path for source in sources.files])
    return given


def _saved(words: str | None, default: tuple[Saved, ...]) -> tuple[Saved, ...]:
    if words is None:
        return default
    named = [word.strip() for word in words.split(",")]
    if named == ["none"]:
        return ()
    if unknown := [word for word in named if word not in SAVED]:
        raise PredictError(f"--save {words}: {unknown[0]!r} is unknown; expected {', '.join(SAVED)}, or none")
    return tuple(kind for kind in SAVED if kind in named)
