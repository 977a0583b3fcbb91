"""Subcommands for flows, run here or on a Prefect server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from maskhand.commands.options import RecipeOption, SetOption, WorkspaceOption, examples, workspace_at

app = typer.Typer()

ROOM_MIB, ROOM_MIB_A_HAND = 250.0, 0.07
"""Disk space of a quickstart: checkpoints, model, databases, reports; and per hand: images and shards."""


@app.command(
    epilog=examples(
        "quickstart",
        "quickstart --hands 100 --evaluation-hands 50 --set training.optim.steps=100",
        "quickstart -w /tmp/w",
    )
)
def quickstart(
    hands: Annotated[int, typer.Option(help="Synthetic training hands.", min=8)] = 2000,
    evaluation_hands: Annotated[int, typer.Option(help="Synthetic evaluation hands.", min=8)] = 200,
    mocap_poses: Annotated[int, typer.Option(help="Poses without images, for the tokenizer.", min=1)] = 20000,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic data.")] = 0,
    recipe: RecipeOption = "quick",
    set_: SetOption = [],  # noqa: B006
    workspace: WorkspaceOption = None,
) -> None:
    """Run the whole pipeline on this machine, up to an evaluated, registered model. Repeating it continues a run."""
    from maskhand.disk import check_writable
    from maskhand.lock import held

    home = workspace_at(workspace)
    if not home.runs.exists():  # else most files exist already
        check_writable(home.root, ROOM_MIB + ROOM_MIB_A_HAND * (hands + evaluation_hands))
    _prepare(workspace)
    root = home.root
    with held(root, "quickstart", f"the quickstart in {root}"):  # before Prefect is imported, which takes seconds
        from maskhand.pipelines.embedded import embedded_server
        from maskhand.pipelines.quickstart import quickstart as flow

        with embedded_server():
            flow(hands, evaluation_hands, mocap_poses, seed, recipe, set_, str(root))


@app.command(epilog=examples("run train-maskhand --param recipe=tiny --watch", "run evaluate-maskhand"))
def run(
    flow: Annotated[str, typer.Argument(help="A deployment's name, such as train-maskhand.")],
    param: Annotated[
        list[str], typer.Option("--param", "-p", metavar="KEY=VALUE", help="A flow parameter; JSON or text.")
    ] = [],  # noqa: B006
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the end; exit code 0 only if it completed.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Schedule a run of a deployment on the Prefect server; a worker executes it (`maskhand serve`)."""
    _prepare(workspace)
    from maskhand.pipelines import deployments

    raise typer.Exit(deployments.run_deployment(workspace_at(workspace), flow, param, watch))


@app.command(epilog=examples("deploy"))
def deploy(workspace: WorkspaceOption = None) -> None:
    """Create the work pool if it is missing, and every deployment of prefect.yaml, on the Prefect server."""
    _prepare(workspace)
    from maskhand.pipelines import deployments

    raise typer.Exit(deployments.deploy(workspace_at(workspace)))


@app.command(epilog=examples("serve", "serve --port 4300"))
def serve(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 4200,
    workspace: WorkspaceOption = None,
) -> None:
    """Run a Prefect server on 127.0.0.1 with the workspace's runs, all deployments and a worker, until Ctrl-C."""
    from maskhand.lock import held

    _prepare(workspace)
    home = workspace_at(workspace)
    with held(home.root, "serve", f"the Prefect server of {home.root}"):  # another port would not help: one database
        from maskhand.pipelines.serve import serve as run_both

        raise typer.Exit(run_both(home, port))


@app.command(epilog=examples("worker", "worker -w /data"))
def worker(workspace: WorkspaceOption = None) -> None:
    """Execute runs of the Prefect server at $PREFECT_API_URL until Ctrl-C or SIGTERM, which end them first."""
    _prepare(workspace)
    from maskhand.pipelines.serve import work

    raise typer.Exit(work(workspace_at(workspace)))


def _prepare(workspace: Path | None) -> None:
    import warnings

    from maskhand.pipelines import runtime

    debug = bool(os.environ.get("MASKHAND_DEBUG"))
    if not debug:
        warnings.simplefilter("ignore")  # users can do nothing about other packages' deprecation warnings
    runtime.prepare(workspace_at(workspace), debug)
