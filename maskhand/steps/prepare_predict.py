"""The options of a prediction run, checked before torch is imported: a mistyped option is refused at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maskhand import storage
from maskhand.annotate.small_hands import SmallHandFinder
from maskhand.disk import check_writable
from maskhand.film.options import Smoothing, smoothing_facts
from maskhand.hand.pose_convention import BodyConvention
from maskhand.predict.inputs import Sources, find_sources
from maskhand.predict.options import PredictOptions, ReconstructionSettings
from maskhand.predict.photo import Box
from maskhand.predict.records import PredictError
from maskhand.predict.run_files import RunResult, finished_run, running
from maskhand.predict.saved import SAVED, Saved
from maskhand.steps.given_options import GivenOptions
from maskhand.workspace import Workspace

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
    given: GivenOptions,
    *,
    box_xyxy_px: Box | None = None,
    smooth: Smooth | None = None,
    save: str | None = None,
    small: bool = False,
    convention: Literal["mano", "smplx", "smplh"] = "mano",
    components: int | None = None,
) -> PreparedRun:
    """The run that finds the hands of pictures and films in folder `out` (see `predict_run`). Raises PredictError.

    smooth: how films are processed, `frames`: each frame as a picture of its own; None: tracked and smoothed as a
    whole, or as `frames` with hypotheses, a box or small hands. save: names of `SAVED` with commas between, or `none`;
    None: everything of a single picture, the overlays of several, nothing of films' frames. small: hands of few pixels
    are searched, too; convention, components: rows have the pose for a body model as well, see `BodyConvention`.
    """
    method = given.checked_method()
    if storage.is_remote(out):
        raise PredictError(f"--out {out}: results are written to a folder of this machine")
    if box_xyxy_px is not None:
        check_box(box_xyxy_px)
    if components is not None and convention == "mano":
        raise PredictError("--pca: components are for the hands of body models; add --convention smplx or smplh")
    body = None if convention == "mano" else BodyConvention(convention, components)
    if small and not (box_xyxy_px is None and given.boxes is None):
        raise PredictError("--small: boxes are given, so no hands are searched; leave one of them out")
    of_single_frames = {"--hypotheses": given.hypotheses > 0, "--box": box_xyxy_px is not None, "--small": small}
    alone = next((option for option, is_given in of_single_frames.items() if is_given), None)
    if alone and smooth not in (None, "frames"):
        raise PredictError(f"{alone}: of single frames only; leave out --smooth {smooth}, or give --smooth frames")
    smooth = smooth or ("frames" if alone else "whole")
    sources = find_sources(inputs, out)
    if box_xyxy_px is not None and len(sources.files) > 1:
        raise PredictError(
            f"--box: one box for {len(sources.files)} files; give a single picture, or --boxes FILE with boxes for each"
        )
    options = PredictOptions(
        box=box_xyxy_px,
        boxes=given.boxes_of(sources),
        side=given.side,
        camera=given.camera,
        min_confidence=given.min_confidence,
        every=given.every,
        saved=_saved(save, SAVED if len(sources.files) == 1 else ("overlay",)),
        saved_of_frames=_saved(save, ()),
        vertices=given.vertices,
        convention=body,
        finder=SmallHandFinder(str(workspace.assets)) if small else None,
    )
    check_writable(out)
    network = given.network(workspace, method)
    settings = given.settings(method, network)
    return PreparedRun(sources, options, settings, network, workspace.assets, out, smooth, given.again, given.note())


def check_box(box_xyxy_px: Box) -> None:
    """PredictError for a box that is in no picture."""
    x0, y0, x1, y1 = box_xyxy_px
    if not (all(map(math.isfinite, box_xyxy_px)) and x0 < x1 and y0 < y1 and x1 > 0 and y1 > 0):
        raise PredictError(
            f"--box {x0:g},{y0:g},{x1:g},{y1:g}: expected X0,Y0,X1,Y1 with X0 < X1 and Y0 < Y1, in pixels of the "
            "upright picture"
        )


def _saved(words: str | None, default: tuple[Saved, ...]) -> tuple[Saved, ...]:
    if words is None:
        return default
    named = [word.strip() for word in words.split(",")]
    if named == ["none"]:
        return ()
    if unknown := [word for word in named if word not in SAVED]:
        raise PredictError(f"--save {words}: {unknown[0]!r} is unknown; expected {', '.join(SAVED)}, or none")
    return tuple(kind for kind in SAVED if kind in named)
