"""Flow `annotate-shards`: sidecar shards with 2D keypoints and MANO targets, keyed like the images, and statistics."""

from __future__ import annotations

from prefect import flow

from maskhand.pipelines import inspect_shards
from maskhand.pipelines.runtime import workspace_for
from maskhand.pipelines.step import progress_artifact, run_cached, slug, step, table
from maskhand.steps import annotation, step_inputs
from maskhand.steps.data import PartReceipt


@step("annotate-keypoints")
def keypoints(workspace: str, name: str, detector: str, rebuild: bool) -> PartReceipt:
    with progress_artifact(f"keypoints {name}", slug("progress-keypoints", name)) as progress:
        return annotation.annotate_keypoints(workspace_for(workspace), name, detector, progress, rebuild)


@step("annotate-mano")
def mano(workspace: str, name: str, rebuild: bool) -> PartReceipt:
    with progress_artifact(f"mano {name}", slug("progress-mano", name)) as progress:
        return annotation.annotate_mano(workspace_for(workspace), name, progress, rebuild)


@flow(name="annotate-shards")
def annotate_shards(
    sets: list[str] = ["freihand_synth/training", "freihand_synth/evaluation"],  # noqa: B006
    detector: str | None = "litert-hand",
    rebuild: bool = False,
    workspace: str | None = None,
) -> list[PartReceipt]:
    """Annotate shard sets.

    sets: shard sets such as freihand/training; detector: litert-hand or openpose-hand, null: no keypoints; rebuild:
    replace sidecars of another detector version or other data; workspace: default `$MASKHAND_WORKSPACE`.
    """
    home = workspace_for(workspace)
    root = str(home.root)
    receipts = []
    for name in sets:
        images = {"images": step_inputs.data_digest(home, name)}
        made_from = images | step_inputs.source_digests(name.partition("/")[0])
        if detector is not None:
            seen_by = images | {"detector": step_inputs.detector_version(home, detector)}
            receipts.append(run_cached(keypoints, seen_by, root, name, detector, rebuild))
        receipts.append(run_cached(mano, made_from, root, name, rebuild))
        inspect_shards.show(home, name)
    table("sidecar-sets", [{"manifest": r.uri, **r.facts} for r in receipts], "sidecar shards and their counts")
    return receipts
