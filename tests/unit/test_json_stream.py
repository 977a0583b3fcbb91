"""Streaming reads what json.loads reads, wherever the pieces end, and knows a cut file from a whole one."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from maskhand.adapters.base import RawDataError
from maskhand.adapters.readers import json_stream
from maskhand.adapters.readers.json_stream import open_json

RECORDS: list[Any] = [
    {"id": 12345678901234, "file_name": 'Füße/\u6307 "quoted" \\ }]{[,:.jpg', "nested": {"a": [[1], [0]], "b": None}},
    -17.25e-3,
    123456789012345678901234567890,
    [],
    {},
    True,
    "",
    "\U0001f600 \u2028",
    [[[]], [{"x": []}]],
]
WHOLE = {"info": {"year": 2020}, "images": RECORDS, "empty": [], "nothing": {}, "frames": {"0": {"10": RECORDS[0]}}}


@pytest.fixture(params=[1, 2, 3, 7, 64, 1 << 20])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(json_stream, "_PIECE", request.param)
    return request.param


def _read(path: Path) -> tuple[dict[str, Any], str]:
    found: dict[str, Any] = {}
    with open_json(str(path)) as cursor:
        for key in cursor.members():
            if key in ("images", "empty"):
                found[key] = list(cursor.values())
            elif key == "frames":
                found[key] = {
                    outer: {inner: cursor.value() for inner in cursor.members()} for outer in cursor.members()
                }
            else:
                found[key] = cursor.value()
    return found, cursor.sha256


@pytest.mark.parametrize("form", [{}, {"indent": 4}, {"separators": (",", ":")}, {"ensure_ascii": False}])
def test_reads_what_the_standard_library_reads(tmp_path: Path, piece: int, form: dict) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(WHOLE, **form) + "\n", encoding="utf-8")
    assert _read(path) == (WHOLE, hashlib.sha256(path.read_bytes()).hexdigest())


def test_python_s_nan_is_read(tmp_path: Path, piece: int) -> None:
    path = tmp_path / "data.json"
    path.write_text('{"images": [NaN, -Infinity, 1.5]}')
    values = _read(path)[0]["images"]
    assert math.isnan(values[0]) and values[1:] == [-math.inf, 1.5]


def test_a_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    text = json.dumps(WHOLE)
    path = tmp_path / "data.json"
    for end in range(len(text)):
        path.write_text(text[:end])
        with pytest.raises(RawDataError, match=r"data.json: not valid JSON .* probably cut, copy it again"):
            _read(path)


@pytest.mark.parametrize("text", ['{"images": [1 2]}', '{"images": [{"a" 1}]}', '{"info": 1}}', "{1: 2}", '{"a": .}'])
def test_damage_in_the_middle_is_found_without_reading_on(tmp_path: Path, text: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(text + " " * 100)
    with pytest.raises(RawDataError, match="not valid JSON"):
        _read(path)


def test_another_structure_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text('{"images": {"a": 1}}')
    with pytest.raises(RawDataError, match=r"expected a list \[...\] where '\{' stands; is this the right file\?"):
        _read(path)


def test_wrong_bytes_are_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(b'{"info": "\xff\xfe"}')
    with pytest.raises(RawDataError, match=r"not valid JSON .*utf-8"):
        _read(path)
