"""Flow `annotate-shards`: sidecar shards with 2D keypoints and MANO targets, keyed like the images, and a look."""

from __future__ import annotations

from prefect import flow

from maskhand.steps import annotation, step_inputs
from maskhand.steps.receipt import Receipt
from pipelines import inspect_shards
from pipelines.runtime import workspace_for
from pipelines.step import done, slug, step, table, told


@step("annotate-keypoints")
def keypoints(workspace: str, name: str, digests: dict[str, str], detector: str, rebuild: bool) -> Receipt:
    with told(f"keypoints {name}", slug("progress-keypoints", name)) as progress:
        return annotation.annotate_keypoints(workspace_for(workspace), name, detector, progress, rebuild)


@step("annotate-mano")
def mano(workspace: str, name: str, digests: dict[str, str], rebuild: bool) -> Receipt:
    with told(f"mano {name}", slug("progress-mano", name)) as progress:
        return annotation.annotate_mano(workspace_for(workspace), name, progress, rebuild)


@flow(name="annotate-shards")
def annotate_shards(
    sets: list[str] = ["freihand_synth/training", "freihand_synth/evaluation"],  # noqa: B006
    detector: str = "litert-hand",
    rebuild: bool = False,
    workspace: str | None = None,
) -> list[Receipt]:
    """Annotate shard sets.

    sets: shard sets such as freihand/training; detector: litert-hand or openpose-hand; rebuild: replace
    what another detector version or other data has made; workspace: else `$MASKHAND_WORKSPACE`.
    """
    home = workspace_for(workspace)
    root = str(home.root)
    receipts = []
    for name in sets:
        images = {"images": step_inputs.data_digest(home, name)}
        seen_by = images | {"detector": step_inputs.detector_version(home, detector)}
        targets_from = images | step_inputs.source_digests(name.partition("/")[0])
        receipts.append(done(keypoints, root, name, seen_by, detector, rebuild))
        receipts.append(done(mano, root, name, targets_from, rebuild))
        inspect_shards.show(home, name)
    table("sidecar-sets", [{"manifest": r.uri, **r.numbers} for r in receipts], "sidecar shards and their counts")
    return receipts
