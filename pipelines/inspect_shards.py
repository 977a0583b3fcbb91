"""The output of `maskhand inspect` as artifacts on the server: statistics and contact sheet of a shard set."""

from __future__ import annotations

from prefect.artifacts import create_image_artifact

from maskhand.pipelines.runtime import workspace_for
from maskhand.pipelines.step import progress_artifact, run_cached, slug, step, table
from maskhand.steps import inspection
from maskhand.workspace import Workspace

LIMIT = 10_000
"""Maximum number of samples that a flow reads of a set (shards are random samples); `maskhand inspect` reads all."""


@step("inspect")
def inspect(workspace: str, name: str) -> inspection.InspectionReceipt:
    with progress_artifact(f"inspect {name}", slug("progress-inspect", name)) as progress:
        return inspection.inspect(workspace_for(workspace), name, progress, limit=LIMIT)


def show(home: Workspace, name: str) -> inspection.InspectionReceipt:
    """Inspect a shard set with its current sidecars; called by the flows that make them."""
    receipt = run_cached(inspect, inspection.input_digests(home, name), str(home.root), name)
    rows = [{"what": what, "value": value} for what, value in inspection.table(receipt)]
    table(slug("statistics", name), rows, f"shard set {name}")
    url = inspection.sheet_as_data_url(receipt)
    create_image_artifact(url, key=slug("sheet", name), description=receipt.sheet)
    return receipt
