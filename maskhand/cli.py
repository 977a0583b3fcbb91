"""The `maskhand` command: every step of the pipeline is one subcommand that calls one library function.

The subcommands stand in `maskhand/commands/`, by topic. Nothing heavy is imported before a subcommand needs it, so
that `--help` is instant. Errors are one sentence and exit code 1; `--debug`, anywhere on the line, shows the traceback.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from maskhand import __version__, signals
from maskhand import machine as machine_settings
from maskhand.commands import compare, data, evaluate, export, flows, machine, predict, score, tables, train, view
from maskhand.errors import MaskhandError, without_passwords
from maskhand.foreign_errors import explained

app = typer.Typer(
    help="MaskHand: 3D hand meshes from one image, from raw data to a registered model.",
    epilog="\b\nStart here:\n  maskhand quickstart         everything, small, on this machine\n"
    "  maskhand doctor             is this machine ready?\n  maskhand COMMAND --help     examples of a subcommand",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for topic in (flows, data, train, evaluate, predict, view, compare, export, score, tables, machine):
    app.add_typer(topic.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"maskhand {__version__}")
        raise typer.Exit


@app.callback()
def _options_of_the_program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options that stand before the subcommand."""


DEBUG = "--debug"


def main(arguments: list[str] | None = None) -> None:
    """Entry point: one sentence for an error, a traceback only with `--debug`."""
    words = sys.argv[1:] if arguments is None else arguments
    machine_settings.settle()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may hold what no terminal shows
    if DEBUG in words:
        os.environ["MASKHAND_DEBUG"] = "1"
    try:
        machine_settings.check_python()
        _refuse_empty(words)
        with signals.by_exceptions():
            _run([_at_home(word) for word in words if word != DEBUG])
    except Exception as error:
        if DEBUG in words:
            raise
        typer.echo(f"error: {sentence(error, _written_into(words))}", err=True)
        raise SystemExit(1) from None


def _run(words: list[str]) -> None:
    try:
        app(args=words, prog_name="maskhand")
    except SystemExit as end:
        # Click takes a file that ends early for Ctrl-D at a prompt.
        aborted = None if end.__context__ is None else end.__context__.__cause__
        if isinstance(aborted, EOFError):
            raise aborted from None
        raise


class EmptyArgumentError(MaskhandError, ValueError):
    """An argument without a letter in it, as a shell makes of a variable that is not set."""


_MAY_BE_EMPTY = ("--label",)


def _refuse_empty(words: Sequence[str]) -> None:
    """Raise EmptyArgumentError: an empty path would mean the current folder."""
    for before, word in itertools.pairwise(["", *words]):
        option = re.fullmatch("(--[a-z-]+)=", word)
        if (option or not word.strip()) and (name := option[1] if option else before) not in _MAY_BE_EMPTY:
            after = f" after {name}" if name else ""
            raise EmptyArgumentError(f"an argument{after} is empty, expected a text; is a variable of the shell unset?")


def _at_home(word: str) -> str:
    """An argument with ~ replaced by the home folder, as shells do not after `--out=`; one of `--set` stays."""
    option, place = re.fullmatch("(--[a-z-]+=)?(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
    return (option or "") + (os.path.expanduser(place) if place.startswith("~") else place)


def _written_into(words: Sequence[str]) -> list[Path]:
    """Folders that a command writes into, wherever it was when it failed."""
    given = [after for word, after in itertools.pairwise(words) if word in ("-w", "--workspace")]
    workspace = os.path.expanduser(given[-1] if given else os.environ.get("MASKHAND_WORKSPACE") or "workspace")
    return [Path(os.path.realpath(workspace)), Path(tempfile.gettempdir()), Path("/dev/shm")]


def sentence(error: BaseException, folders: Sequence[Path] = ()) -> str:
    """What to tell a person: our own errors and missing files speak for themselves; others name their type."""
    cause = getattr(error, "cause", None)  # Ray wraps what a worker raised
    if isinstance(cause, BaseException):
        return sentence(cause, folders)
    if not isinstance(error, MaskhandError) and (known := explained(error, folders)) is not None:
        return without_passwords(known)
    text = without_passwords(" ".join(str(error).split()))
    if text and (isinstance(error, MaskhandError | ValueError | OSError) or type(error) is LookupError):
        return text
    return f"{type(error).__name__}: {text}; run again with {DEBUG} for the traceback"


if __name__ == "__main__":
    main()
