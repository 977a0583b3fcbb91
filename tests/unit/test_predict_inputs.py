"""The inputs of a run: which files, in which order, and the names of their results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maskhand.predict import PredictError
from maskhand.predict.inputs import Source, find_sources

TREE = (
    "one/b.jpg", "one/a.HEIC", "one/a.png", "one/sub/b.jpg", "one/.hidden.jpg", "one/.cache/c.jpg", "one/notes.txt",
    "one/film.mp4", "one/film.jpg", "one/results/b_overlay.png", "two/b.jpg", "two/run.jpg", "two/x_hand0.png", "plain",
)  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in TREE:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*inputs: str | Path, results: str = "one/results") -> list[str]:
    return [source.path for source in find_sources(inputs, results).files]


IN_ONE = ["one/a.HEIC", "one/a.png", "one/b.jpg", "one/film.jpg", "one/film.mp4", "one/sub/b.jpg"]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["one"], IN_ONE),
        (["one/"], IN_ONE),
        (["two/b.jpg", "one", "two/b.jpg", "two"], ["two/b.jpg", *IN_ONE, "two/run.jpg", "two/x_hand0.png"]),
        (["plain"], ["plain"]),
        (["one/notes.txt"], ["one/notes.txt"]),
        (["*/b.*"], ["one/b.jpg", "two/b.jpg"]),
        (["one/**/*.jpg"], ["one/b.jpg", "one/film.jpg", "one/sub/b.jpg"]),
        (["**/b*.[jp][pn]g"], ["one/b.jpg", "one/sub/b.jpg", "two/b.jpg"]),
        (["t[wv]o"], ["two/b.jpg", "two/run.jpg", "two/x_hand0.png"]),
        (["./two/b.jpg", "two/../two/b.jpg"], ["./two/b.jpg"]),
    ],
)
def test_files_folders_and_patterns(tree, inputs, expected) -> None:
    """Sorted within a folder, in the order given, each once; the run's own folder is no input."""
    assert [os.path.normpath(path) for path in found(*inputs)] == [os.path.normpath(path) for path in expected]


def test_a_file_may_be_called_like_a_pattern(tree) -> None:
    (tree / "odd[1].jpg").touch()
    assert found("odd[1].jpg") == ["odd[1].jpg"]


def test_files_of_other_kinds_are_counted(tree) -> None:
    sources = find_sources(["one"], "one/results")
    assert sources.passed_over == {".txt": 1} and [s.kind for s in sources.files].count("film") == 1


def test_names_of_results_do_not_collide(tree) -> None:
    """Without suffix where that tells them apart; the names of the run's own files are taken."""
    sources = find_sources(["one", "two"], "one/results").files
    names = {source.path: source.name for source in sources}
    assert names == {
        "one/a.HEIC": "a.HEIC", "one/a.png": "a.png", "one/b.jpg": "one/b.jpg", "one/film.jpg": "film.jpg",
        "one/film.mp4": "film.mp4", "one/sub/b.jpg": "sub/b", "two/b.jpg": "two/b.jpg", "two/run.jpg": "run.jpg",
        "two/x_hand0.png": "x_hand0.png",
    }  # fmt: skip
    long = tree / ("h" * 250 + ".jpg")
    other = tree / ("h" * 249 + "i.jpg")
    long.touch()
    other.touch()
    a, b = (source.name for source in find_sources([long, other]).files)
    assert a != b and len((a + "_hand10_hypotheses.glb").encode()) < 255


def test_equal_paths_below_folders_of_equal_names(tmp_path) -> None:
    for place in ("x/day", "y/day"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "p.jpg").touch()
    assert [s.name for s in find_sources([tmp_path / "x/day", tmp_path / "y/day"]).files] == [
        "day/p.jpg",
        "day/p.jpg-2",
    ]


def test_a_changed_file_is_another_source(tree) -> None:
    def source() -> Source:
        return find_sources(["two/b.jpg"]).files[0]

    before = source()
    assert source() == before
    os.utime("two/b.jpg", ns=(0, 1))
    assert source() != before


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("nowhere.jpg", r"nowhere\.jpg: there is no such file or folder"),
        ("one/*.gif", r"one/\*\.gif: no file matches this pattern"),
        ("https://example.org/a.jpg", r"https://example\.org/a\.jpg: addresses \(https\) are not read.*curl -O"),
        ("one/.cache/../results/none", "there is no such file or folder"),
        ("one/results/", r"one/results/: the results would go among the pictures"),
        ("empty", r"empty: no picture or film there \(1 files of other kinds\)"),
    ],
)
def test_what_leads_nowhere_is_said(tree, given, sentence) -> None:
    (tree / "empty").mkdir()
    (tree / "empty" / "readme.md").touch()
    with pytest.raises(PredictError, match=sentence):
        found("two", given) if given != "empty" else found(given)
