"""The options of a run as plain values; does not import torch, so that a finished run is recognized at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from maskhand import __version__
from maskhand.annotate.detectors import HandDetector
from maskhand.conventions import Side
from maskhand.predict.box_file import BoxFile
from maskhand.predict.photo import Box
from maskhand.predict.pictures import GivenCamera
from maskhand.predict.records import Method
from maskhand.predict.rows import SCHEMA
from maskhand.predict.saved import Saved

if TYPE_CHECKING:
    from maskhand.hand.pose_convention import BodyConvention
    from maskhand.placement import PlacedBy


@dataclass(frozen=True)
class ReconstructionSettings:
    """The settings of a `Reconstruction` as plain values, without the loaded model."""

    method: Method
    model: Mapping[str, str] | None
    """`bundle_facts`; None without a network."""
    placed_by: PlacedBy
    hypotheses: int


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The options of a run that do not depend on the reconstruction."""

    box: Box | None = None
    """Of the only hand to predict in each picture; None: all hands are detected."""
    boxes: BoxFile | None = None
    """The hand boxes of all pictures, from a file; None: hands are detected."""
    finder: HandDetector | None = None
    """Hand detector that replaces the embedded one."""
    side: Side | None = None
    """Of every hand; None: as detected."""
    camera: GivenCamera = field(default_factory=GivenCamera)
    min_confidence: float = 0.0
    every: int = 1
    """Frames 0, `every`, 2 `every` ... of a film are processed."""
    saved: tuple[Saved, ...] = ()
    """Files to write for each photo."""
    saved_of_frames: tuple[Saved, ...] = ()
    """Files to write for each frame of a film."""
    vertices: bool = False
    """Whether rows contain the mesh vertices."""
    convention: BodyConvention | None = None
    """Pose convention of a body model; rows then have the hand's pose in it as well."""

    def facts_with(self, settings: ReconstructionSettings) -> dict[str, Any]:
        """Everything that determines the results, as plain values."""
        return {
            "version": __version__,
            "schema": SCHEMA,
            "method": settings.method,
            "model": None if settings.model is None else dict(settings.model),
            "camera_from": settings.placed_by,
            "hypotheses": settings.hypotheses,
            "box": None if self.box is None else list(self.box),
            "boxes": None if self.boxes is None else self.boxes.version,
            "finder": None if self.finder is None else getattr(self.finder, "name", type(self.finder).__name__),
            "side": self.side,
            "focal_px": self.camera.focal_px,
            "intrinsics": None if self.camera.intrinsics is None else list(self.camera.intrinsics),
            "min_confidence": self.min_confidence,
            "every": self.every,
            "save": list(self.saved),
            "save_of_frames": list(self.saved_of_frames),
            "vertices": self.vertices,
            "convention": None if self.convention is None else asdict(self.convention),
        }
