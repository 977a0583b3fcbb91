"""Flow `shard-datasets`: published files of a dataset -> shard sets with manifests, and their statistics."""

from __future__ import annotations

from prefect import flow

from maskhand.pipelines import inspect_shards
from maskhand.pipelines.runtime import workspace_for
from maskhand.pipelines.step import progress_artifact, run_cached, slug, step, table
from maskhand.steps import data, step_inputs


@step("shard")
def shard(workspace: str, dataset: str, split: str, raw: str, rebuild: bool) -> data.PartReceipt:
    with progress_artifact(f"shard {dataset}/{split}", slug("progress-shard", dataset, split)) as progress:
        return data.shard(workspace_for(workspace), dataset, split, raw, progress, rebuild)


@flow(name="shard-datasets")
def shard_datasets(
    datasets: list[str] = ["freihand_synth"],  # noqa: B006
    raw: str | None = None,
    rebuild: bool = False,
    workspace: str | None = None,
) -> list[data.PartReceipt]:
    """Shard datasets of the catalog: every split whose files are available.

    datasets: folders of datasets/; raw: folder of the published files (default: WORKSPACE/raw/NAME of each dataset);
    rebuild: replace shards made from another card, raw data or code; workspace: default `$MASKHAND_WORKSPACE`.
    """
    home = workspace_for(workspace)
    receipts = []
    for name in datasets:
        folder = data.raw_folder(home, name, raw)
        made_from = step_inputs.source_digests(name) | {"raw": step_inputs.raw_fingerprint(folder)}
        for split in data.splits(home, name, raw):
            # Rejected samples may be fixed by now, and images are not in the fingerprint. Finished shards are kept.
            again = step_inputs.has_rejects(home, f"{name}/{split}")
            task = shard.with_options(refresh_cache=True) if again else shard
            receipts.append(run_cached(task, made_from, str(home.root), name, split, folder, rebuild))
            inspect_shards.show(home, f"{name}/{split}")
    table("shard-sets", [{"manifest": r.uri, **r.facts} for r in receipts], "shard sets, their counts and digests")
    return receipts
