"""Progress without a terminal: few lines, never silence at the end, nothing folded."""

from __future__ import annotations

import io

from maskhand.progress import both, plain_lines, print_facts, print_table, shown


def test_plain_lines_are_few_and_the_end_is_told_once() -> None:
    stream, now_s = io.StringIO(), [0.0]
    progress = plain_lines("shards", stream, every_s=10, clock=lambda: now_s[0])
    for done in range(1, 41):
        now_s[0] = float(done)
        progress(done, 40, "x")
    progress(40, 40, "x")
    lines = [line.split(":")[1].split()[0] for line in stream.getvalue().splitlines()]
    assert lines == ["10/40", "20/40", "30/40", "40/40"]


def test_an_unknown_total_never_ends() -> None:
    stream, now_s = io.StringIO(), [0.0]
    progress = plain_lines("shards", stream, every_s=10, clock=lambda: now_s[0])
    progress(1, 0, "1 shards")
    now_s[0] = 11.0
    progress(2, 0, "2 shards")
    assert stream.getvalue() == "  shards: 2 shards\n"


def test_shown_is_plain_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    with shown("train", stream) as progress:
        progress(3, 3, "loss 1")
    assert stream.getvalue() == "  train: 3/3 100 % loss 1\n"


def test_shown_on_a_terminal_draws_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with shown("train", stream) as progress:
        progress(1, 4, "loss 1")
    assert "train" in stream.getvalue() and "25%" in stream.getvalue()


def test_both_tell_the_same() -> None:
    told: list[tuple] = []
    both(lambda *a: told.append(("a", *a)), lambda *a: told.append(("b", *a)))(1, 2, "x")
    assert told == [("a", 1, 2, "x"), ("b", 1, 2, "x")]


def test_facts_are_never_folded_and_tables_hold_their_cells() -> None:
    stream, path = io.StringIO(), "/a/" + "very/" * 60 + "long/path"
    print_facts("where", [("sheet", path), ("numbers", "x")], stream)
    assert stream.getvalue().splitlines() == ["where", f"  sheet    {path}", "  numbers  x"]
    table = io.StringIO()
    print_table("stages", ("stage", "seconds"), [("shards", 1.5), ("train", 20)], table)
    assert all(word in table.getvalue() for word in ("stages", "seconds", "shards", "1.5", "20"))
