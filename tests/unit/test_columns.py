"""Columns give back what was put in, row by row, and keep what does not fit for the reader to refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maskhand.adapters.readers.columns import (
    BoolColumn,
    DictionaryColumn,
    FloatColumn,
    LazySequence,
    PathColumn,
    rows_of_ids,
)

MISFITS: dict[int, Any] = {
    3: None,
    700: [[1.0, 2.0]],
    1024: "values",
    1500: {"a": 1},
    2047: [[1, 2], [3]],
    2100: [[None] * 2] * 2,
}


def test_float_rows_are_exact_and_misfits_stay_as_given() -> None:
    rng = np.random.default_rng(0)
    given: list[Any] = rng.normal(size=(2200, 2, 2)).tolist()
    for place, value in MISFITS.items():
        given[place] = value
    column = FloatColumn((2, 2))
    for value in given:
        column.append(value)
    assert len(column) == len(given)
    for place, value in enumerate(given):
        if place in MISFITS:
            assert column[place] == value
        else:
            np.testing.assert_array_equal(column[place], value)


def test_bools_are_bits_and_other_numbers_survive() -> None:
    rng = np.random.default_rng(1)
    given: list[Any] = rng.integers(0, 2, (1500, 42, 1)).tolist()
    given[5][7] = [0.5]
    given[900] = [[1]] * 41
    given[1000][0] = [float("nan")]
    flags = BoolColumn((42, 1))
    for value in given:
        flags.append(value)
    for place, value in enumerate(given):
        np.testing.assert_array_equal(flags[place], value)


def test_a_dictionary_column_keeps_types_apart() -> None:
    values = DictionaryColumn()
    given = [1, True, 1.0, "1", 1, (512, 334), "1"]
    for value in given:
        values.append(value)
    assert [(type(values[k]), values[k]) for k in range(len(given))] == [(type(v), v) for v in given]
    assert len(values.values) == 5 and values.codes().tolist() == [0, 1, 2, 3, 0, 4, 3]


def test_paths_come_back() -> None:
    paths = PathColumn()
    given = ["a/b/image1.jpg", "image2.jpg", "a/b/é 3.jpg", "/abs/x", "folder/"]
    for path in given:
        paths.append(path)
    assert [paths[k] for k in range(len(paths))] == given


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_ids_is_a_dictionary(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(-5, 30, rng.integers(0, 25)).tolist()
    wanted = rng.integers(-8, 40, 50).tolist()
    rows = {value: row for row, value in enumerate(ids)}
    assert rows_of_ids(ids, wanted).tolist() == [rows.get(value, -1) for value in wanted]


def test_a_lazy_sequence_behaves_like_a_list() -> None:
    squares = LazySequence(10, lambda k: k * k)
    plain = [k * k for k in range(10)]
    assert list(squares) == plain and len(squares) == 10
    assert (squares[3], squares[-1], squares[np.int64(4)], squares[2:5]) == (9, 81, 16, [4, 9, 16])
    with pytest.raises(IndexError):
        squares[10]
