"""What subcommands share: their common options, and how they find the workspace, show progress and print receipts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from maskhand.progress import Progress
    from maskhand.steps.receipt import Receipt
    from maskhand.workspace import Workspace


WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        show_default=False,
        help="Folder of everything that is made [default: $MASKHAND_WORKSPACE, else ./workspace].",
    ),
]
RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="Name of a shipped recipe, or a YAML file.")]
SetOption = Annotated[
    list[str], typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a recipe's key; may be repeated.")
]
ModelOption = Annotated[str, typer.Option(help="An exported folder, models:/NAME@ALIAS, or `open`.")]
LabelOption = Annotated[str, typer.Option(help="Sets apart another training of the same settings and data.")]
RebuildOption = Annotated[bool, typer.Option("--rebuild", help="Replace what other settings or data have made there.")]
SetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="SET...", help="Shard sets such as freihand/training, or URIs of their folders."),
]


def examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  maskhand {line}" for line in lines)


def workspace_at(folder: Path | None) -> Workspace:
    """The workspace of the option `--workspace`."""
    from maskhand.workspace import Workspace

    return Workspace.at(folder)


def writable_workspace_at(folder: Path | None, *, sets: bool = False) -> Workspace:
    """The same, for a command that makes something in it; sets: where its shard sets are, and nothing else.

    Raises StorageError where nothing can be written, before anything is started.
    """
    from maskhand import storage

    home = workspace_at(folder)
    storage.check_writable(home.shards_uri if sets else home.root)
    return home


def shown_progress(title: str) -> AbstractContextManager[Progress]:
    from maskhand.progress import shown

    return shown(title)


def print_receipt(receipt: Receipt) -> None:
    """Print the receipt on a line, and its sentences on lines of their own."""
    sentences = {name: value for name, value in receipt.facts.items() if isinstance(value, str) and " " in value}
    facts = [f"{name}={value}" for name, value in receipt.facts.items() if name not in sentences]
    typer.echo("  ".join([receipt.uri, *facts]))
    for name, value in sentences.items():
        typer.echo(f"  {name.replace('_', ' ')}: {value}")
