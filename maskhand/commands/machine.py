"""Subcommands for this machine: available and missing files, and its readiness."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from maskhand.commands.options import WorkspaceOption, examples, workspace_at
from maskhand.workspace import Workspace

if TYPE_CHECKING:
    from maskhand.doctor import Finding

app = typer.Typer()


@app.command(epilog=examples("assets", "assets --fetch"))
def assets(
    fetch: Annotated[bool, typer.Option("--fetch", help="Download the freely available files, verified.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """List available and missing files: what each is for, its license and where to get it."""
    from maskhand.assets import list_assets
    from maskhand.fetched_models import hand_models
    from maskhand.progress import print_table

    folder = workspace_at(workspace).assets
    if fetch:
        hand_models(folder)
    rows = [
        ("ok" if a.present else "missing", a.name, a.purpose, a.license, a.where if a.present else a.how_to_get)
        for a in list_assets(folder)
    ]
    print_table("assets", ("", "asset", "what it is for", "license", "where / how to get it"), rows)


@app.command(epilog=examples("doctor", "doctor -w /data/maskhand"))
def doctor(workspace: WorkspaceOption = None) -> None:
    """Check whether this machine is ready, with advice for every finding; exit code 1 if something must be fixed."""
    from maskhand.doctor import examine
    from maskhand.progress import print_table

    findings = examine(workspace_at(workspace), check_prefect)
    print_table("doctor", ("", "what", "found", "what to do"), [(f.state, f.what, f.found, f.advice) for f in findings])
    if any(f.state == "fail" for f in findings):
        raise typer.Exit(1)


def check_prefect(workspace: Workspace) -> Iterator[Finding]:
    """What the start of a flow looks at: settings and profile, and the server's address or database."""
    from maskhand.doctor import Finding
    from maskhand.pipelines import runtime

    runtime.prepare(workspace)
    from maskhand.pipelines.embedded import check_server

    yield Finding("ok", "Prefect", check_server())
