"""The step that compares runs, writes what it found, and tells a new model's run how it stands to the champion."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from maskhand import storage
from maskhand.comparison.compare import compare
from maskhand.comparison.page import page
from maskhand.comparison.records import ComparedRun, Comparison, PairOfRuns
from maskhand.comparison.sheet import DrawnHand, changed_sheet, draw_changed
from maskhand.comparison.tables import to_json, to_markdown
from maskhand.disk import check_writable
from maskhand.errors import MaskhandError
from maskhand.hand.layer import ManoLayer
from maskhand.shards.layout import IMAGES, ShardError
from maskhand.shards.manifest import find_manifest
from maskhand.steps.compared_runs import compared_run, told_apart
from maskhand.steps.receipt import Receipt
from maskhand.tracking import Tracker
from maskhand.workspace import Workspace

RESULT = "comparison.json"
PAGE = "comparison.html"
KEPT = "comparison"
"""Folder of a tracked run's files that say how it stands to others."""


def compare_runs(workspace: Workspace, runs: Sequence[str], changed: int) -> Comparison:
    """Runs as a person names them, the first one the reference; of each pair the hands that changed most.

    Raises ComparisonError, and what `compared_run` raises.
    """
    return compare(told_apart([compared_run(workspace, run) for run in runs]), changed)


def write_comparison(workspace: Workspace, comparison: Comparison, out: str) -> tuple[Receipt, list[str]]:
    """The page, its tables, and the hands that changed as pictures where shards are here; into the folder `out`.

    The receipt names `comparison.json`, which is written last; the sentences say why hands were not drawn.
    """
    check_writable(out)
    drawn, notes = _drawn(workspace, comparison)
    for name, pair, hands in drawn:
        png = changed_sheet(name, pair, hands)
        storage.write_bytes_atomic(storage.join(out, _sheet_name(name, pair, comparison)), png)
    storage.write_bytes_atomic(storage.join(out, PAGE), page(comparison, drawn).encode())
    storage.write_bytes_atomic(uri := storage.join(out, RESULT), to_json(comparison))
    return Receipt.of(uri), notes


def keep_against(workspace: Workspace, run_id: str, reference: str, name: str) -> None:
    """Keep with a tracked run how its hands stand to a reference's: `comparison/NAME.md` and `.json`.

    Nothing is kept where they share no hands. One that cannot be compared any more costs a warning: a registration
    does not fail for what a former model left behind.
    """
    tracker = Tracker.of(workspace)
    try:
        comparison = compare_runs(workspace, [reference, run_id], changed=8)
    except (LookupError, MaskhandError) as error:
        logging.getLogger(__name__).warning(f"run {run_id} is not compared with {reference}: {error}")
        return
    if not any(one.pairs for one in comparison.sets):
        return
    with tempfile.TemporaryDirectory() as folder:
        for ending, data in ((".md", to_markdown(comparison).encode()), (".json", to_json(comparison))):
            path = Path(folder, name).with_suffix(ending)
            path.write_bytes(data)
            tracker.log_file(run_id, path, KEPT)


def _drawn(
    workspace: Workspace, comparison: Comparison
) -> tuple[list[tuple[str, PairOfRuns, Sequence[DrawnHand]]], list[str]]:
    runs = {run.label: run for run in comparison.runs}
    drawn: list[tuple[str, PairOfRuns, Sequence[DrawnHand]]] = []
    notes = []
    mano = ManoLayer.from_default()
    for one in comparison.sets:
        for pair in one.pairs:
            if not pair.changed:
                continue
            reference, other = runs[pair.reference], runs[pair.other]
            recipe = reference.recipe or other.recipe
            if recipe is None:
                notes.append(f"{one.name}: hands are not drawn, as neither run's recipe is known")
                continue
            joints = {
                run.label: placed for run in (reference, other) if (placed := run.sets[one.name].joints) is not None
            }
            try:
                uri = _shards(workspace, one.name, reference)
                drawn.append((one.name, pair, draw_changed(pair, uri, recipe, joints, mano)))
            except (ShardError, storage.StorageError) as error:
                notes.append(f"{one.name}: hands are not drawn ({error})")
    return drawn, notes


def _shards(workspace: Workspace, name: str, run: ComparedRun) -> str:
    """Where the shards of a measured set are: in the workspace, else where they were; ShardError for other data."""
    measured = run.sets[name]
    for uri in (workspace.shard_set(name), measured.set_uri):
        manifest = find_manifest(uri, IMAGES)
        if manifest is not None and manifest.digest == measured.data_digest:
            return uri
    raise ShardError(f"no shards of it with the data {measured.data_digest} in {workspace.shards_uri}")


def _sheet_name(name: str, pair: PairOfRuns, comparison: Comparison) -> str:
    """`changed-freihand_synth-evaluation-2.png`: the set, and the other run's place among the runs, from 1."""
    place = [run.label for run in comparison.runs].index(pair.other) + 1
    return f"changed-{name.replace('/', '-')}-{place}.png"
