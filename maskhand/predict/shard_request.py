"""The request of a run that writes shards, in the form that is sent to workers; does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from maskhand.predict.inputs import Source
from maskhand.predict.options import PredictOptions, ReconstructionSettings
from maskhand.predict.run_files import difference, new_files, other_options_error, run_facts


@dataclass(frozen=True)
class ShardRequest:
    """A `PredictRequest` with the model named by its folder; picklable."""

    settings: ReconstructionSettings
    network: str | None
    """Exported folder, which every machine must see; None for `fit`, which needs no network."""
    assets: str
    """The folder of the detector's files on the driver."""
    options: PredictOptions = field(default_factory=PredictOptions)
    """`boxes` identifies the given ones and has none itself: they are sent with the units."""

    def facts_of(self, sources: Sequence[Source]) -> dict[str, Any]:
        """`run.json`: everything that determines the results, as plain values."""
        options = self.options.facts_with(self.settings) | {"results": "shards"}
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
