"""What is asked of a run whose results are shards, as it travels to workers; without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from maskhand.conventions import Side
from maskhand.predict.box_file import BoxFile
from maskhand.predict.inputs import Source
from maskhand.predict.pictures import GivenCamera
from maskhand.predict.question import Wanted, Way
from maskhand.predict.records import Method
from maskhand.predict.run_files import another_question, difference, new_files, run_facts

if TYPE_CHECKING:
    from maskhand.placement import CameraSource


@dataclass(frozen=True)
class Asked:
    """A `Question` with the model by its folder."""

    model: tuple[str, Mapping[str, str]] | None
    """Exported folder, which every machine must see, and its `bundle_facts`; None for a fit, which needs no network."""
    method: Method
    assets: str
    """The driver's folder of the detector's files."""
    placed_by: CameraSource = "keypoints"
    hypotheses: int = 0
    boxes: str | None = None
    """`BoxFile.version` of given boxes, by which they are known; the boxes themselves travel with the units."""
    side: Side | None = None
    camera: GivenCamera = field(default_factory=GivenCamera)
    min_confidence: float = 0.0
    every: int = 1
    vertices: bool = False

    def wanted(self) -> Wanted:
        """What is asked of all pictures, whatever reconstructs their hands."""
        return Wanted(
            boxes=None if self.boxes is None else BoxFile(self.boxes, ()),
            side=self.side,
            camera=self.camera,
            min_confidence=self.min_confidence,
            every=self.every,
            vertices=self.vertices,
        )

    def facts_of(self, sources: Sequence[Source]) -> dict[str, Any]:
        """`run.json`: all that decides the results, as plain values."""
        way = Way(self.method, None if self.model is None else self.model[1], self.placed_by, self.hypotheses)
        asked = self.wanted().facts_by(way) | {"results": "shards"}
        return {"state": "shards", "asked": asked, "inputs": [asdict(source) for source in sources], "units": []}


def with_earlier(out: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of the run in a folder or `s3://` prefix when what is asked in `facts` is added to it.

    The files that it has, gone ones too, stay where they are in its list, and so does its cut into `units`: their
    shards are kept. Raises PredictError where the results there are of another question, or of files that have changed.
    """
    earlier = run_facts(out)
    if earlier is None:
        return facts
    new = new_files(earlier, facts) if earlier["asked"] == facts["asked"] else None
    if new is None:
        raise another_question(out, difference(earlier, facts))
    return facts | {"inputs": [*earlier["inputs"], *new], "units": earlier.get("units", [])}
