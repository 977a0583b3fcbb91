"""The command line is an interface: its words do not change by accident, and asking for help costs nothing."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from maskhand.cli import app, main, sentence
from maskhand.errors import MaskhandError

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("cli_surface.txt")
HEAVY = ("torch", "ray", "mlflow", "prefect", "deepspeed", "cv2", "pandas", "scipy", "numpy", "webdataset", "yaml")


def _commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _commands(inner, (*words, name))
    else:
        yield words, command


COMMANDS = dict(_commands(typer.main.get_command(app)))


def surface() -> str:
    """One line per command: its arguments in order, then its options."""
    lines = []
    for words, command in sorted(COMMANDS.items()):
        arguments = [p.name.upper() for p in command.params if p.param_type_name == "argument"]
        options = sorted("/".join(p.opts) for p in command.params if p.param_type_name == "option")
        lines.append(" ".join([*words, *arguments, *options]))
    return "\n".join(lines) + "\n"


def test_the_words_are_the_agreed_ones() -> None:
    assert surface() == GOLDEN.read_text(), f"a deliberate change? then write it into {GOLDEN.name} and the README"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_help_shows_examples_that_parse(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    examples = [shlex.split(line)[1:] for line in (command.epilog or "").splitlines() if line.startswith("  maskhand ")]
    assert examples, f"maskhand {' '.join(words)} has no example"
    for example in examples:
        assert tuple(example[: len(words)]) == words
        command.make_context(" ".join(words), example[len(words) :])


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, time\nfrom maskhand.cli import main\n"
        f"for words in {[(), *COMMANDS]}:\n"
        "    try:\n        main([*words, '--help'])\n    except SystemExit as end:\n        assert end.code == 0\n"
        "    if not words:\n        print('SECONDS', time.process_time())\n"
        "print('LOADED', *sorted({m.split('.')[0] for m in sys.modules}))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    loaded = set(re.findall(r"LOADED (.*)", said)[0].split())
    assert loaded & set(HEAVY) == set()
    assert float(re.findall(r"SECONDS (.*)", said)[0]) < 0.6


def test_an_error_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "maskhand.cli", "train", "tokenizer", "-r", "tinny", "-w", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("error: recipe 'tinny' not found; did you mean 'tiny'? known recipes: base, open, ")
    assert run.stderr.count("\n") == 1
    assert "Traceback" in subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False).stderr


def test_sentences() -> None:
    assert sentence(ValueError("recipe 'x' not found;\nknown: tiny")) == "recipe 'x' not found; known: tiny"
    assert sentence(MaskhandError("no hand in the photo")) == "no hand in the photo"
    assert sentence(KeyError("x")) == "KeyError: 'x'; run again with --debug for the traceback"
    wrapped = RuntimeError("long traceback of a worker")
    wrapped.cause = FileNotFoundError("no such file: a.json")  # type: ignore[attr-defined]
    assert sentence(wrapped) == "no such file: a.json"


def test_the_workspace_is_an_argument_that_leaves_the_environment_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MASKHAND_WORKSPACE", "/elsewhere")
    with pytest.raises(SystemExit):
        main(["verify", "no/such", "-w", str(tmp_path)])
    assert f"no such shard set in {tmp_path / 'shards'}" in capsys.readouterr().err
    assert os.environ["MASKHAND_WORKSPACE"] == "/elsewhere"


@pytest.mark.parametrize("words", [["nonsense"], ["evaluate", "--nonsense"], ["run"]])
def test_wrong_words_exit_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2


def test_documents_name_only_commands_that_exist() -> None:
    known = {words[0] for words in COMMANDS}
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = {
        (document.name, word)
        for document in documents
        if document.is_file()
        for word in re.findall(r"(?:`|^\s*(?:\$ )?|/)maskhand ([a-z-]+)\b", document.read_text(), flags=re.MULTILINE)
    }
    assert named, "no document mentions a command"
    assert {(document, word) for document, word in named if word not in known} == set()
