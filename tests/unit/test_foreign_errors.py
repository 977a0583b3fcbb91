"""What systems and libraries say to programmers is said to people."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import httpx
import numpy as np
import pydantic
import pytest
import sqlalchemy.exc

from maskhand.cli import main, sentence
from maskhand.foreign_errors import explained


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


def opencv() -> Exception:
    with pytest.raises(cv2.error) as error:
        cv2.resize(np.zeros((1, 3000), np.uint8), None, fx=0.01, fy=0.01)
    return error.value


def wrong_setting() -> Exception:
    model = pydantic.create_model("APISettings", timeout=(int, 1))
    with pytest.raises(pydantic.ValidationError) as error:
        model(timeout="abc")
    return error.value


def sql(text: str) -> Exception:
    return sqlalchemy.exc.OperationalError("INSERT INTO runs VALUES (?, ?)", ("a", "b"), sqlite3.OperationalError(text))


ASKED = httpx.ConnectError("All attempts failed", request=httpx.Request("GET", "http://me:secret@127.0.0.1:9/api/x"))
FULL = OSError(errno.ENOSPC, "No space left on device", "/data/ws/x.tar")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FULL, "/data/ws/x.tar: the disk is full; free some space"),
        (caused(RuntimeError("a page\nof State(...)"), FULL), "/data/ws/x.tar: the disk is full"),
        (sql("database or disk is full"), "the disk is full; free some space"),
        (sql("attempt to write a readonly database"), "it is on a disk that can only be read; choose another"),
        (sql("no such table: runs"), "the database of runs cannot be used (no such table: runs); is another program"),
        (PermissionError(errno.EACCES, "Permission denied", "/ws"), "/ws: permission denied; choose another folder"),
        (caused(ASKED, ConnectionRefusedError(errno.ECONNREFUSED, "")), "http://127.0.0.1:9: nobody answers at that"),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "/a/b"),
            "/a/b: the path is too long; choose another folder",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/a/b"), "/a/b: no such file or directory"),
        (RuntimeError("Could not determine home directory."), "a path begins with ~ and the name of no user"),
        (MemoryError(), "out of memory; end other programs, or take a smaller batch"),
        (opencv(), "OpenCV could not work on an image ("),
        (
            DeprecationWarning("`x` is deprecated"),
            "a warning of another package counts as an error here (`x` is deprecated)",
        ),
        (
            wrong_setting(),
            "a setting of Prefect is wrong (timeout='abc': input should be a valid integer, unable to parse string as "
            "an integer); correct the PREFECT_ variable",
        ),
    ],
)
def test_a_sentence_for_people(error: Exception, said: str) -> None:
    found = sentence(error)
    assert found.startswith(said) and "INSERT" not in found and "Errno" not in found and "\n" not in found


def test_others_speak_for_themselves() -> None:
    assert explained(ValueError("x is 3")) is None and sentence(ValueError("x is 3")) == "x is 3"


@pytest.mark.parametrize(("workspace", "said"), [("~nobody-of-this-name/x", "begins with ~"), ("loop", "leads back")])
def test_an_error_is_told_whatever_the_workspace_and_the_streams_are(
    workspace: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    monkeypatch.setattr(sys, "stdout", None)  # as after >&-
    for words in (["assets", "-w", "."], ["assets", "-w", workspace]):
        with pytest.raises(SystemExit) as end:
            main(words)
    assert end.value.code == 1 and said in capsys.readouterr().err


def test_a_full_disk_is_named_where_the_error_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    free = {tmp_path: 4096, other: 1 << 30}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[folder]))
    bare = OSError(errno.ENOSPC, "No space left on device")
    for error in (bare, sql("database or disk is full")):
        assert sentence(error, [other, tmp_path]).startswith(f"{tmp_path}: the disk is full; free some space")
    assert sentence(FULL, [tmp_path]).startswith("/data/ws/x.tar: the disk is full")


@pytest.mark.parametrize(
    "command",
    ["synth", "find .", "annotate keypoints a/b", "annotate mano a/b", "alphabet", "mask a/b",
     "inspect a/b", "train tokenizer", "train transformer", "evaluate", "reproduce-table 1"],
)  # fmt: skip
def test_a_workspace_that_cannot_be_written_is_said_before_anything_starts(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("maskhand.cluster.session.ensure_ray", lambda: pytest.fail("Ray was started"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(SystemExit, match="1"):
        main([*command.split(), "-w", str(tmp_path / "file" / "ws")])
    said = capsys.readouterr().err
    assert "nothing can be written here (not a directory)" in said and str(tmp_path / "file" / "ws") in said, said


@pytest.mark.parametrize(
    ("raised", "code", "said"), [(EOFError, 1, "error: EOFError"), (KeyboardInterrupt, 130, "interrupted")]
)
def test_a_file_that_ends_early_is_no_interruption(
    raised: type[BaseException],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_folder: object) -> None:
        raise raised("no data left")

    monkeypatch.setattr("maskhand.commands.compare.workspace_at", fail)
    with pytest.raises(SystemExit, match=str(code)):
        main(["compare", "a", "b"])
    found = capsys.readouterr().err
    assert said in found and ("error:" in found) == ("error:" in said)
