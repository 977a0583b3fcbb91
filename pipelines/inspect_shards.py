"""What `maskhand inspect` shows, kept on the server: the statistics of a shard set and its contact sheet."""

from __future__ import annotations

from prefect.artifacts import create_image_artifact

from maskhand.pipelines.runtime import workspace_for
from maskhand.pipelines.step import progress_artifact, run_cached, slug, step, table
from maskhand.steps import inspection
from maskhand.workspace import Workspace

LIMIT = 10_000
"""Samples that a flow reads of a set. Shards are random samples of it; `maskhand inspect` reads all of them."""


@step("inspect")
def inspect(workspace: str, name: str) -> inspection.InspectionReceipt:
    with progress_artifact(f"inspect {name}", slug("progress-inspect", name)) as progress:
        return inspection.inspect(workspace_for(workspace), name, progress, limit=LIMIT)


def show(home: Workspace, name: str) -> inspection.InspectionReceipt:
    """Look at a shard set as it is now, with the sidecars it has; called by the flows that make them."""
    receipt = run_cached(inspect, inspection.input_digests(home, name), str(home.root), name)
    rows = [{"what": what, "value": value} for what, value in inspection.table(receipt)]
    table(slug("statistics", name), rows, f"shard set {name}")
    url = inspection.sheet_as_data_url(receipt)
    create_image_artifact(url, key=slug("sheet", name), description=receipt.sheet)
    return receipt
