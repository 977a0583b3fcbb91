"""Flow `predict-photos`: predict the hands in folders, film files or an s3:// prefix, as shards, on Ray workers."""

from __future__ import annotations

from prefect import flow

from maskhand.pipelines.runtime import workspace_for
from maskhand.pipelines.step import progress_artifact, run_cached, step, table
from maskhand.predict.records import Method
from maskhand.steps import predict_shards
from maskhand.steps.given_options import GivenOptions
from maskhand.steps.predict_shards import HandsReceipt
from maskhand.steps.prepare_predict_shards import default_place, input_digests, prepare_shard_run


@step("predict-photos")
def hands(
    workspace: str,
    inputs: list[str],
    out: str,
    model: str | None,
    method: Method | None,
    every: int,
    min_confidence: float,
    workers: int | None,
) -> HandsReceipt:
    with progress_artifact("predict photos", "progress-predict-photos") as progress:
        given = GivenOptions(model=model, method=method, every=every, min_confidence=min_confidence)
        run = prepare_shard_run(workspace_for(workspace), inputs, out, given)
        return predict_shards.predict_by_workers(run, progress, workers=workers)


@flow(name="predict-photos")
def predict_photos(
    inputs: list[str] = [],  # noqa: B006
    out: str | None = None,
    model: str | None = None,
    method: Method | None = None,
    every: int = 1,
    min_confidence: float = 0.0,
    workers: int | None = None,
    workspace: str | None = None,
) -> HandsReceipt:
    """Predict the hands of pictures and films; an interrupted run is resumed.

    inputs: files, folders, patterns or s3:// prefixes that every worker can access; out: folder or s3:// prefix of the
    shards, default WORKSPACE/predictions/DIGEST (of inputs and options); model: an exported folder or
    models:/NAME@ALIAS, default the open model; method: fit, model or refine; every: process every n-th frame of films;
    workers: tasks at a time, default as many as fit; workspace: default `$MASKHAND_WORKSPACE`.
    """
    home = workspace_for(workspace)
    place = out or default_place(home, inputs, model, method, every, min_confidence)
    decides = input_digests(home, inputs, place, model)
    receipt = run_cached(hands, decides, str(home.root), inputs, place, model, method, every, min_confidence, workers)
    table("predict-photos", [{"manifest": receipt.uri, **receipt.facts}], "hands of pictures and films")
    return receipt
