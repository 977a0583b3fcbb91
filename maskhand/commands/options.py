"""Common code of subcommands: shared options, the workspace, progress display and printing of receipts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        help="Folder for all data and results [default: $MASKHAND_WORKSPACE, else ./workspace].",
    ),
]
RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="Name of a shipped recipe, or a YAML file.")]
SetOption = Annotated[
    list[str], typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a recipe's key; may be repeated.")
]
ModelOption = Annotated[str, typer.Option(help="An exported folder, models:/NAME@ALIAS, or `open`.")]
LabelOption = Annotated[str, typer.Option(help="Distinguishes another training with the same settings and data.")]
RebuildOption = Annotated[bool, typer.Option("--rebuild", help="Replace results of other settings or data.")]
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
    """As `workspace_at`, for a command that writes to it; sets: only to its shard sets.

    Raises StorageError if it is not writable, before anything is started.
    """
    from maskhand.disk import check_writable

    home = workspace_at(folder)
    check_writable(home.shards_uri if sets else home.root)
    return home


def output_file(given: str, *inputs: Path) -> str:
    """The place of a result that an option names. Raises StorageError where no file can be written, or where an input
    is, before anything is started."""
    from maskhand import storage
    from maskhand.disk import check_writable

    uri = storage.absolute(given)
    if storage.is_remote(uri):
        return uri
    path = Path(uri)
    if path.exists() and not path.is_file():
        raise storage.NotAFileError(f"{given}: this is {'a folder' if path.is_dir() else 'a device'}, expected a file")
    if any(path.exists() and one.exists() and path.samefile(one) for one in inputs):
        raise storage.StorageError(f"{given}: this file is read, so nothing is written over it; choose another name")
    check_writable(path.parent)
    return uri


def each_set(sets: Sequence[str], title: str, step: Callable[[str, Progress], Receipt]) -> None:
    """Run a step on each set in one Ray session (alone, each would start its own), and print its receipt."""
    from maskhand.cluster.session import ray_session

    with ray_session():
        for name in sets:
            with shown_progress(f"{title} {name}") as progress:
                receipt = step(name, progress)
            print_receipt(receipt)


def shown_progress(title: str) -> AbstractContextManager[Progress]:
    from maskhand.progress import shown

    return shown(title)


def print_receipt(receipt: Receipt) -> None:
    """Print the receipt on one line, and facts that are sentences on separate lines."""
    sentences = {name: value for name, value in receipt.facts.items() if isinstance(value, str) and " " in value}
    facts = [f"{name}={value}" for name, value in receipt.facts.items() if name not in sentences]
    typer.echo("  ".join([receipt.uri, *facts]))
    for name, value in sentences.items():
        typer.echo(f"  {name.replace('_', ' ')}: {value}")
