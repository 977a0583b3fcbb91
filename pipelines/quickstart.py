"""Flow `quickstart`: the whole pipeline at small scale on this machine, up to an evaluated, registered model.

It calls the other flows with small numbers. Finished stages are reused, so running it again continues an earlier run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect import flow

from maskhand.cluster.session import ray_session
from maskhand.pipelines.annotate_shards import annotate_shards
from maskhand.pipelines.runtime import HOST, PORT, workspace_for
from maskhand.pipelines.shard_datasets import shard_datasets
from maskhand.pipelines.step import progress_artifact, run_cached, step, table
from maskhand.pipelines.train_maskhand import TrainedModel, train_maskhand
from maskhand.pipelines.train_vq_mano import train_vq_mano
from maskhand.progress import print_facts, print_table
from maskhand.recipe_files import load_recipe
from maskhand.steps import evaluate, registration, step_inputs, synthetic, train, training_checks
from maskhand.steps.synthetic import SyntheticReceipt
from maskhand.tracking import pages, server_version
from maskhand.workspace import Workspace


@step("synthesize")
def synthesize(workspace: str, hands: int, evaluation_hands: int, mocap_poses: int, seed: int) -> SyntheticReceipt:
    with progress_artifact("render hands", "progress-synthesize") as progress:
        home = workspace_for(workspace)
        return synthetic.synthesize(home, hands, evaluation_hands, mocap_poses, seed, progress, rebuild=True)


@flow(name="quickstart")
def quickstart(
    hands: int = 2000,
    evaluation_hands: int = 200,
    mocap_poses: int = 20000,
    seed: int = 0,
    recipe: str = "quick",
    overrides: list[str] = [],  # noqa: B006
    workspace: str | None = None,
) -> TrainedModel:
    """Render hands, shard, annotate, train, evaluate, register, and print the results.

    hands, evaluation_hands, mocap_poses, seed: size and seed of the synthetic data; recipe, overrides: of the two
    trainings; workspace: default `$MASKHAND_WORKSPACE`, else ./workspace.
    """
    home = workspace_for(workspace)
    root = str(home.root)
    wanted = load_recipe(recipe, overrides)  # a mistyped override must not cost the minutes before training
    overrides = synthetic.with_hands_to_validate_on(wanted, overrides, hands)
    clock = _Stages()
    # One Ray session for all stages: each start and stop would cost seconds.
    with ray_session():
        server_version(home.mlflow_uri)
        if wanted.tokenizer_training.checkpoint is None:
            training_checks.check_settings("tokenizer", wanted, home.assets)
        training_checks.check_settings("transformer", wanted, home.assets)
        with clock.stage("synthetic images"):
            made_from = step_inputs.source_digests(synthetic.SYNTHETIC)
            run_cached(synthesize, made_from, root, hands, evaluation_hands, mocap_poses, seed)
        with clock.stage("shards"):
            # Another size or seed is other data under the same name, which replaces the earlier data.
            shard_datasets([synthetic.SYNTHETIC], rebuild=True, workspace=root)
        with clock.stage("keypoints and MANO targets"):
            training, evaluation = (f"{synthetic.SYNTHETIC}/{split}" for split in ("training", "evaluation"))
            keypoints = wanted.data.keypoints
            annotate_shards([training], keypoints.detector if keypoints.trains_on_detections else None, True, root)
            annotate_shards([evaluation], keypoints.detector, True, root)
        tokenizer = wanted.tokenizer_training.checkpoint
        if tokenizer is None:
            with clock.stage("train VQ-MANO"):
                train.check_before_tokenizer(home, recipe, overrides)
                tokenizer = train_vq_mano(recipe, overrides, workspace=root).folder
        with clock.stage("train, measure and register the masked transformer"):
            trained = train_maskhand(recipe, overrides, tokenizer, workspace=root)
    table("quickstart-stages", [{"stage": name, "seconds": round(s, 1)} for name, s in clock.seconds], "stages")
    _show(home, clock, trained)
    return trained


class _Stages:
    def __init__(self) -> None:
        self.seconds: list[tuple[str, float]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started_s = time.monotonic()
        print(f"[{len(self.seconds) + 1}] {name}", flush=True)
        yield
        self.seconds.append((name, time.monotonic() - started_s))


def _show(home: Workspace, clock: _Stages, trained: TrainedModel) -> None:
    total_s = sum(seconds for _, seconds in clock.seconds)
    print_table(
        "stages", ("stage", "seconds"), [(n, f"{s:.1f}") for n, s in clock.seconds] + [("total", f"{total_s:.1f}")]
    )
    print_table("held-out hands", *evaluate.table(trained.evaluation))
    registered, commands = trained.registered, Path(sys.executable).parent
    sheets = evaluate.sheets(trained.evaluation)
    print_facts(
        "where to look",
        [
            ("report (open it in a browser)", evaluate.page_uri(trained.evaluation)),
            *((f"contact sheet of {name}", uri) for name, uri in sheets.items()),
            ("metrics", trained.evaluation.uri),
            ("registered model", f"{registration.standing(home, registered)}. {registered.reason}"),
            ("predict from a photo", f"{commands}/maskhand predict PHOTO --out out -w {home.root}"),
            *pages(home.mlflow_uri, f"{commands}/mlflow", HOST),
            ("Prefect pages", f"{commands}/maskhand serve -w {home.root}"),
            ("", f"then http://{HOST}:{PORT}"),
        ],
    )
