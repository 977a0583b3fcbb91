"""Rows of a JSON list read piece by piece are those that the whole file holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from maskhand.adapters import RawDataError
from maskhand.adapters.readers import json_stream
from maskhand.adapters.readers.json_rows import read_json_rows

ROWS = [[[1.5, -2e-07, 3.0], [0.0, 1e3, 5.25]], [[7, 8, 9]], [], [[float("nan"), float("inf"), -1.0]], 4.0]


@pytest.mark.parametrize("piece", [1, 2, 7, 40, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_any_size_of_piece_gives_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_stream, "_PIECE", piece)
    path = tmp_path / "rows.json"
    path.write_text("\n " + json.dumps(ROWS, indent=indent) + "\n")
    found = read_json_rows(str(path))
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(found.rows) == len(ROWS)
    for row, expected in zip(found.rows, ROWS, strict=True):
        assert row.dtype == np.float32
        np.testing.assert_array_equal(row, np.array(expected, np.float32))


def test_a_row_that_is_no_table_stays_as_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[[1, 2], ["x"], [[1], [2, 3]], null]')
    rows = read_json_rows(str(path)).rows
    assert rows[1:3] == [["x"], [[1], [2, 3]]]


@pytest.mark.parametrize("piece", [3, 1 << 20])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it ends too early"),
        ("   ", "it ends too early"),
        ("[[1, 2], [3", r"rows.json: not valid JSON .*probably cut, copy it again"),
        ("[[1, 2],", "probably cut, copy it again"),
        ("[", "it ends too early"),
        ('{"a": 1}', r"expected a list \[...\] where '\{' stands"),
    ],
)
def test_a_file_that_is_cut_or_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str, piece: int
) -> None:
    monkeypatch.setattr(json_stream, "_PIECE", piece)
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(RawDataError, match=message):
        read_json_rows(str(path))


def test_nonsense_in_the_middle_is_noticed_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.json"
    path.write_text("[[1, 2], [3, oops" + " " * 100 + "], " + "[5, 6], " * 100 + "[7, 8]]")
    with pytest.raises(RawDataError, match=r"Expecting value, near byte 1[0-9]\).*copy it again"):
        read_json_rows(str(path))
