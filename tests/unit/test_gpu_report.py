"""The report of a GPU: rows out of what its parts print, a row for one that fails, and the others go on."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from gpu_report import LIMIT_S, TRIED_LIMIT_S, Part, parts, run, table  # noqa: E402

OWN = r"^row: (.+?): (.+)$"


@pytest.mark.parametrize(
    ("program", "rows", "fine"),
    [
        ("print('row: a, b: 1 s: fast')", [("a, b", "1 s: fast")], True),
        ("print('row: a: 1'); raise SystemExit('no more')", [("a", "1"), ("failed", "exit status 1: no more")], False),
        ("print('nothing')", [("failed", "exit status 0: nothing")], False),
        ("pass", [("failed", "exit status 0: no output")], False),
        ("print('row: a: 1', flush=True); import time; time.sleep(60)", [("a", "1"), ("failed", "not fin")], False),
    ],
    ids=["rows", "error", "no-rows", "silent", "hangs"],
)
def test_a_part_is_rows_and_a_fault_is_one_of_them(program: str, rows: list[tuple[str, str]], fine: bool) -> None:
    started = time.monotonic()
    found, well = run(Part([sys.executable, "-S", "-c", program], OWN, 9), dict(os.environ), 9)
    assert well == fine and [what for what, _ in found] == [what for what, _ in rows]
    assert all(re.match(expected, figure) for (_, figure), (_, expected) in zip(found, rows, strict=True))
    assert time.monotonic() - started < 30
    assert table([("zero", *row) for row in found]).count("\n") == 1 + len(rows)


@pytest.mark.parametrize(
    ("part", "line", "row"),
    [
        ("tests", "12 passed, 14 deselected in 41.2s", ("", "12 passed, 14 deselected in 41.2s")),
        (
            "step",
            "base, batch 48, bf16: with gradient checkpointing: 400.1 images/s, 120 ms a step; NVIDIA H200, torch 2.13",
            ("base, batch 48, bf16: with gradient checkpointing", "400.1 images/s, 120 ms a step"),
        ),
        (
            "sampling",
            "T=5: 21.0 ms (1.2 of T=1), 95 % within 22",
            ("T=5", "21.0 ms (1.2 of T=1), 95 % within 22"),
        ),
        ("sampling", "encode: 17.0 ms (0.9 of T=1)", ("encode", "17.0 ms (0.9 of T=1)")),
    ],
)
def test_lines_of_the_benchmarks_become_rows(part: str, line: str, row: tuple[str, str]) -> None:
    assert re.findall(parts(small=False, peak_tflops=989)[part].shown, f"before\n{line}\nafter", re.MULTILINE) == [row]


@pytest.mark.parametrize(("small", "limit_s"), [(False, LIMIT_S), (True, TRIED_LIMIT_S)])
def test_the_parts_share_eight_minutes_and_ten_where_they_are_tried(small: bool, limit_s: int) -> None:
    known = parts(small, peak_tflops=None)
    assert list(known) == ["tests", "zero", "step", "small", "sampling", "feeding"]
    assert sum(part.limit_s for part in known.values()) <= limit_s == (600 if small else 480)
    assert all(Path(word).exists() for part in known.values() for word in part.command if word.endswith(".py"))
