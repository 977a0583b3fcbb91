"""The options of a run that writes shards, in the form that is sent to workers; does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from maskhand.conventions import Side
from maskhand.predict.box_file import BoxFile
from maskhand.predict.inputs import Source
from maskhand.predict.options import PredictOptions, ReconstructionSettings
from maskhand.predict.pictures import GivenCamera
from maskhand.predict.records import Method
from maskhand.predict.run_files import difference, new_files, other_options_error, run_facts

if TYPE_CHECKING:
    from maskhand.placement import PlacedBy


@dataclass(frozen=True)
class ShardRunOptions:
    """The options of a `PredictRequest`, with the model named by its folder; picklable."""

    model: tuple[str, Mapping[str, str]] | None
    """Exported folder, which every machine must see, and its `bundle_facts`; None for `fit`, which needs no network."""
    method: Method
    assets: str
    """The folder of the detector's files on the driver."""
    placed_by: PlacedBy = "keypoints"
    hypotheses: int = 0
    boxes: str | None = None
    """`BoxFile.version` of the given boxes, which identifies them; the boxes themselves are sent with the units."""
    side: Side | None = None
    camera: GivenCamera = field(default_factory=GivenCamera)
    min_confidence: float = 0.0
    every: int = 1
    vertices: bool = False

    def predict_options(self) -> PredictOptions:
        """The options that do not depend on the reconstruction."""
        return PredictOptions(
            boxes=None if self.boxes is None else BoxFile(self.boxes, ()),
            side=self.side,
            camera=self.camera,
            min_confidence=self.min_confidence,
            every=self.every,
            vertices=self.vertices,
        )

    def facts_of(self, sources: Sequence[Source]) -> dict[str, Any]:
        """`run.json`: everything that determines the results, as plain values."""
        model = None if self.model is None else self.model[1]
        settings = ReconstructionSettings(self.method, model, self.placed_by, self.hypotheses)
        options = self.predict_options().facts_with(settings) | {"results": "shards"}
        return {"state": "shards", "asked": options, "inputs": [asdict(source) for source in sources], "units": []}


def with_earlier(out: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The `facts` of a run, merged with those of the run that is already in the folder or `s3://` prefix.

    Its input files, also deleted ones, keep their positions in the list, and its `units` stay the same, so their
    shards are kept. Raises PredictError if the results there were made with other options, or from files that changed.
    """
    earlier = run_facts(out)
    if earlier is None:
        return facts
    new = new_files(earlier, facts) if earlier["asked"] == facts["asked"] else None
    if new is None:
        raise other_options_error(out, difference(earlier, facts))
    return facts | {"inputs": [*earlier["inputs"], *new], "units": earlier.get("units", [])}
