"""The options that prediction runs with and without workers share, as the user gave them; does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from maskhand.conventions import Side
from maskhand.image_header import LONGEST_SIDE_PX
from maskhand.models.bundle_records import bundle_facts
from maskhand.predict.box_file import BoxFile
from maskhand.predict.camera import check_given
from maskhand.predict.default_method import default_method
from maskhand.predict.inputs import Sources
from maskhand.predict.options import ReconstructionSettings
from maskhand.predict.pictures import GivenCamera
from maskhand.predict.records import Method, PredictError
from maskhand.shipped_models import OPEN
from maskhand.steps.models import model_folder
from maskhand.workspace import Workspace

if TYPE_CHECKING:
    from maskhand.placement import PlacedBy

LARGEST_PX = (LONGEST_SIDE_PX, LONGEST_SIDE_PX)
"""A size that has room for the principal point of any picture, before one is read."""


@dataclass(frozen=True, kw_only=True)
class GivenOptions:
    """Options of a run, not checked yet; the methods check them before a picture is read."""

    model: str | None = None
    """A name, folder or `models:/` address; None: the open model."""
    method: Method | None = None
    """None: the default one, a fit alone where the open model does not know the hand model in use."""
    placed_by: PlacedBy = "keypoints"
    hypotheses: int = 0
    boxes: Path | None = None
    """File with the hand boxes of all pictures; None: hands are detected."""
    side: Side | None = None
    """Of every hand; None: as detected."""
    camera: GivenCamera = field(default_factory=GivenCamera)
    min_confidence: float = 0.0
    every: int = 1
    """Frames 0, `every`, 2 `every` ... of a film are processed."""
    vertices: bool = False
    """Whether rows contain the mesh vertices."""
    again: bool = False
    """Whether the results of an earlier run are removed."""

    def checked_method(self) -> Method:
        """PredictError for a model that would not be used, and for values that no camera has."""
        check_given(LARGEST_PX, self.camera.focal_px, self.camera.intrinsics)
        method = self.method or default_method(self.model)
        if self.model is not None and not self._needs_network(method):
            raise PredictError(f"--model {self.model}: a fit uses no network; add --method model or --method refine")
        return method

    def note(self) -> str | None:
        """A sentence where the default is a fit alone, as another hand model is in use than the open model knows."""
        if self.method is not None or default_method(self.model) != "fit":
            return None
        return (
            "method fit: the open model was trained with the open hand, and MASKHAND_MANO_DIR has another one; "
            "--method refine --model DIR takes a model that was trained with that"
        )

    def network(self, workspace: Workspace, method: Method) -> str | None:
        """Exported folder of the network, fetched if it is a registered one; None where none is needed."""
        return model_folder(workspace, self.model or OPEN) if self._needs_network(method) else None

    def settings(self, method: Method, network: str | None) -> ReconstructionSettings:
        """network: as `network` returned it."""
        facts = None if network is None else bundle_facts(network)
        return ReconstructionSettings(method, facts, self.placed_by, self.hypotheses)

    def boxes_of(self, sources: Sources) -> BoxFile | None:
        """PredictError where a source is a film, and where the file is unreadable or of other pictures."""
        if self.boxes is None:
            return None
        if films := [source.path for source in sources.files if source.kind == "film"]:
            raise PredictError(f"--boxes: {films[0]} is a film, and boxes are of pictures; save its frames as pictures")
        given = BoxFile.read(self.boxes)
        given.match([source.path for source in sources.files])
        return given

    def _needs_network(self, method: Method) -> bool:
        return method != "fit" or self.placed_by == "model" or self.hypotheses > 0
