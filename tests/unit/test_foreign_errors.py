"""What systems and libraries say to programmers is said to people."""

from __future__ import annotations

import errno
import sqlite3

import cv2
import numpy as np
import pytest
import sqlalchemy.exc

from maskhand.cli import sentence
from maskhand.foreign_errors import explained


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


def opencv() -> Exception:
    with pytest.raises(cv2.error) as error:
        cv2.resize(np.zeros((1, 3000), np.uint8), None, fx=0.01, fy=0.01)
    return error.value


def sql(text: str) -> Exception:
    return sqlalchemy.exc.OperationalError("INSERT INTO runs VALUES (?, ?)", ("a", "b"), sqlite3.OperationalError(text))


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
        (MemoryError(), "out of memory; end other programs, or take a smaller batch"),
        (opencv(), "OpenCV could not work on an image ("),
    ],
)
def test_a_sentence_for_people(error: Exception, said: str) -> None:
    found = sentence(error)
    assert found.startswith(said) and "INSERT" not in found and "Errno" not in found and "\n" not in found


def test_others_speak_for_themselves() -> None:
    assert explained(ValueError("x is 3")) is None and sentence(ValueError("x is 3")) == "x is 3"
