"""Predictions as shards: every picture and frame exactly once, the same bytes however the work was shared or killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from maskhand.annotate.detectors import Detections, HandBox
from maskhand.cli import main
from maskhand.film.video import FilmFacts, FilmWriter, read_frames
from maskhand.geometry2d import tight_box
from maskhand.predict import detect, units
from maskhand.predict.hand_group import Reconstruction
from maskhand.predict.inputs import Source, find_sources
from maskhand.predict.options import PredictOptions, ReconstructionSettings
from maskhand.predict.pictures import GivenCamera, pictures
from maskhand.predict.records import PredictError
from maskhand.predict.run import predict_run
from maskhand.predict.run_files import RUN
from maskhand.predict.shard_request import ShardRequest
from maskhand.predict.shards import HANDS, predict_shards, predict_unit
from maskhand.predict.stream import PredictRequest
from maskhand.predict.table import flat
from maskhand.predict.units import LARGEST, SPANS, Unit, cut, unit_pictures
from maskhand.shards.manifest import read_manifest, read_record
from support.known_hands import known_hands

SHADES = 40
"""Gray levels between pictures with 0, 1, 2 ... hands."""
FIT = ReconstructionSettings("fit", None, "keypoints", 0)
REQUEST = ShardRequest(FIT, None, "unused")


def film(path: Path, shades: Sequence[int], size: int = 64) -> None:
    with FilmWriter(path, 25.0) as write:
        for k, shade in enumerate(shades):
            write.write(np.full((size, size, 3), shade, np.uint8), k / 25)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """19 photos, one of them broken, and a film of 21 frames; a gray level says how many hands there are."""
    truth = known_hands(2, seed=3)

    def seen(k: int) -> HandBox:
        meters_per_px = truth.joints_m[k, 0, 2] / truth.K_px[k, 0, 0]
        world = truth.joints_m[k] - truth.joints_m[k].mean(0)
        detection = Detections(
            truth.joints_px[k][None].astype(np.float32),
            np.full((1, 21), 0.9, np.float32),
            np.ones(1, np.float32),
            np.ones(1, np.float32),
            z_px=((world[:, 2] - world[0, 2]) / meters_per_px)[None].astype(np.float32),
            world_m=world[None].astype(np.float32),
        )
        return HandBox(tight_box(detection.keypoints_px[0]), "right", 0.9, detection)

    def find(image: np.ndarray, _assets: object) -> list[HandBox]:
        return [seen(k) for k in range(round(image.mean() / SHADES))]

    monkeypatch.setattr(detect, "find_hands", find)
    monkeypatch.setattr(units, "SMALLEST", 4)
    place = tmp_path / "in"
    place.mkdir()
    for k in range(19):
        cv2.imwrite(str(place / f"photo{k:02d}.png"), np.full((64, 64, 3), SHADES * (k % 3), np.uint8))
    (place / "photo05.png").write_bytes(b"no picture")
    film(place / "between.mp4", [SHADES * (k % 2) for k in range(21)])
    return place


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted((out / HANDS).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def backwards(fn: Callable[[Any], Any], items: Sequence[Any], *, on_done: Any = None) -> list[Any]:
    """A mapper whose workers end in another order."""
    return [fn(item) for item in reversed(items)][::-1]


def test_shards_are_the_rows_of_a_run_and_the_same_bytes_however_they_were_made(folder: Path, tmp_path: Path) -> None:
    sources = find_sources([folder])
    made: list[str] = []

    def killed(fn: Callable[[Any], Any], items: Sequence[Any], *, on_done: Any = None) -> list[Any]:
        for item in items[:3]:
            made.append(fn(item).name)
        raise KeyboardInterrupt

    def counting(fn: Callable[[Any], Any], items: Sequence[Any], *, on_done: Any = None) -> list[Any]:
        made.extend(item.name for item in items)
        return [fn(item) for item in items]

    whole, other, again = tmp_path / "whole", tmp_path / "other", tmp_path / "again"
    manifest = predict_shards(sources.files, REQUEST, str(whole))
    predict_shards(sources.files, REQUEST, str(other), mapper=backwards)
    with pytest.raises(KeyboardInterrupt):
        predict_shards(sources.files, REQUEST, str(again), mapper=killed)
    (again / HANDS / "000001.json").unlink()  # its shard is there, and may be half of one
    predict_shards(sources.files, REQUEST, str(again), mapper=counting)
    assert made.count("000000") == 1 and made.count("000001") == 2 and len(made) == len(manifest.shards) + 1
    assert contents(whole) == contents(other) == contents(again)
    before = (whole / HANDS / "manifest.json").stat().st_mtime_ns
    predict_shards(sources.files, REQUEST, str(whole), mapper=killed)
    assert (whole / HANDS / "manifest.json").stat().st_mtime_ns == before, "a finished run has nothing to do"

    request = PredictRequest(Reconstruction(None, "fit"), Path("unused"))
    serial = predict_run(sources, request, tmp_path / "serial")
    found, expected = rows(whole), [flat(row) for row in serial.rows()]
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        for name, value in mine.items():  # batches are cut elsewhere, and round otherwise
            same = value if value is None or isinstance(value, str) else pytest.approx(value, abs=2e-3)
            assert theirs.get(name) == same, name
    processed = [(row["name"], row["frame"]) for row in found if row["hand"] in (None, 0)]
    assert len(processed) == len(set(processed)) == 19 + 21
    kept = read_manifest(str(whole), HANDS)
    assert kept == manifest and kept.count == len(found) and kept.planned == 40
    assert kept.rejects == {"no_hand": 7 + 11, "unreadable": 1} and len(kept.shards) == 5 + 6
    first = read_record(str(whole / HANDS), "000000")
    assert (first.rejects[0].key, first.rejects[0].reason) == ("between_frame000000", "no_hand")


def test_files_that_a_folder_gains_become_further_shards(folder: Path, tmp_path: Path) -> None:
    out, made = tmp_path / "out", list[str]()

    def counting(fn: Callable[[Any], Any], items: Sequence[Any], *, on_done: Any = None) -> list[Any]:
        made.extend(item.name for item in items)
        return [fn(item) for item in items]

    predict_shards(find_sources([folder]).files, REQUEST, str(out), mapper=counting)
    before, count = contents(out / HANDS), len(made)
    (folder / "between.mp4").unlink()  # its frames stay, and how it was cut
    for k in range(6):
        cv2.imwrite(str(folder / f"a{k}.png"), np.full((64, 64, 3), SHADES * (k % 3), np.uint8))
    grown = find_sources([folder]).files
    manifest = predict_shards(grown, REQUEST, str(out), mapper=counting)
    assert len(made) == count + 2 and len(manifest.shards) == count + 2 and manifest.planned == 40 + 6
    after = contents(out / HANDS)
    assert {name: data for name, data in after.items() if name in before and name != "manifest.json"} == {
        name: data for name, data in before.items() if name != "manifest.json"
    }
    assert len({(row["name"], row["frame"]) for row in rows(out)}) == 40 + 6
    assert predict_shards(grown, REQUEST, str(out), mapper=counting) == manifest and len(made) == count + 2


def test_results_of_other_options_are_an_error_unless_made_again(folder: Path, tmp_path: Path) -> None:
    sources, out = find_sources([folder]), tmp_path / "out"
    predict_shards(sources.files, REQUEST, str(out))
    other = ShardRequest(FIT, None, "unused", PredictOptions(every=5))
    with pytest.raises(PredictError, match="with other options or files: every was 1 and is 5; choose another --out"):
        predict_shards(sources.files, other, str(out))
    with pytest.raises(PredictError, match="results was 'shards' and is not given"):
        predict_run(sources, PredictRequest(Reconstruction(None, "fit"), Path("unused")), out)
    (folder / "photo00.png").write_bytes((folder / "photo01.png").read_bytes())
    with pytest.raises(PredictError, match=r"changed: .*photo00.png"):
        predict_shards(find_sources([folder]).files, REQUEST, str(out))
    kept = predict_shards(sources.files, other, str(out), again=True)
    assert sum(row["frame"] is not None for row in rows(out)) == 5 and kept == read_manifest(str(out), HANDS)


def test_units_in_another_form_are_an_error_until_made_anew(folder: Path, tmp_path: Path) -> None:
    sources, out = find_sources([folder]).files, tmp_path / "out"
    made = predict_shards(sources, REQUEST, str(out))
    facts = json.loads((out / RUN).read_text())
    for units_there in ([[0, 1, 0, None, 1]], 3, [{"first": 0}]):
        (out / RUN).write_text(json.dumps(facts | {"units": units_there}))
        with pytest.raises(PredictError, match=r"run.json: units: expected a list of objects .*--again"):
            predict_shards(sources, REQUEST, str(out))
    assert predict_shards(sources, REQUEST, str(out), again=True) == made


@pytest.mark.parametrize(("frames", "every", "photos"), [(100_000, 1, 3), (700, 3, 0), (1, 10, 900), (0, 1, 1)])
def test_units_have_every_picture_once(frames: int, every: int, photos: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def source(name: str) -> Source:
        return Source(name, name, "film" if name.endswith("mp4") else "picture", "")

    monkeypatch.setattr(units, "film_facts", lambda path: FilmFacts((8, 8), frames, 30.0))
    listed = [source("a.png"), source("a.mp4"), *(source(f"b{k}.png") for k in range(photos)), source("z.mp4")]
    found = cut(listed, every)
    assert [s.path for unit in found for s in unit.sources if s.kind == "picture"] == [
        s.path for s in listed if s.kind == "picture"
    ]
    for name in ("a.mp4", "z.mp4"):
        spans = [unit for unit in found if unit.sources[0].path == name]
        assert len(spans) <= SPANS and spans[0].start == 0 and spans[-1].stop is None
        assert [one.stop for one in spans[:-1]] == [one.start for one in spans[1:]]
        assert all(one.start % every == 0 for one in spans)
        assert sum(one.planned for one in spans) == -(-frames // every)
    assert all(len(unit.sources) <= LARGEST for unit in found)


def test_spans_of_a_film_are_the_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film(tmp_path / "a.mp4", [10 * k for k in range(20)])
    (source,) = find_sources([tmp_path / "a.mp4"]).files
    every = 3
    whole = list(pictures([source], GivenCamera(), every))
    spans = [(0, 6), (6, 12), (12, 18), (18, 27), (27, None)]  # a container that promised more than there is

    def processed(reader: Any = read_frames) -> list[Any]:
        monkeypatch.setattr(units, "read_frames", reader)
        made = [Unit((source,), start=start, stop=stop) for start, stop in spans]
        return [picture for unit in made for picture in unit_pictures(unit, GivenCamera(), every)]

    found = processed()
    assert [(p.frame, p.time_s, p.name) for p in found] == [(p.frame, p.time_s, p.name) for p in whole]
    assert all(np.array_equal(a.image_rgb, b.image_rgb) for a, b in zip(found, whole, strict=True))

    def broken(path: str, step: int, start: int) -> Any:
        """A disk that fails after frame 13."""
        for frame in read_frames(path, step):
            if frame.index > 13:
                raise PredictError(f"{path}: the disk failed")
            if frame.index >= start:
                yield frame

    found = processed(broken)
    assert [p.frame for p in found] == [0, 3, 6, 9, 12, None]
    assert [p.reason for p in found if not p.is_readable] == ["the disk failed"], "said once, whoever meets it"


def test_a_worker_has_all_that_it_needs_in_its_task(folder: Path, tmp_path: Path) -> None:
    from ray import cloudpickle

    tasks: list[Any] = []

    def collecting(fn: Callable[[Any], Any], items: Sequence[Any], *, on_done: Any = None) -> list[Any]:
        tasks.extend(items)
        return [fn(item) for item in cloudpickle.loads(cloudpickle.dumps(items))]

    predict_shards(find_sources([folder]).files, REQUEST, str(tmp_path / "out"), mapper=collecting)
    assert max(len(cloudpickle.dumps(task)) for task in tasks) < 10_000
    assert predict_unit(tasks[0]) == read_record(str(tmp_path / "out" / HANDS), tasks[0].name)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--workers", "2", "--save", "overlay", "--small", "--out", "OUT"],
            "--save, --small are for runs without workers",
        ),
        (["--out", "s3://bucket/x"], "give a folder of this machine, or --workers N"),
        (["--workers", "2", "--focal", "9", "--intrinsics", "9,9,1,1", "--out", "OUT"], "both a focal length and"),
    ],
)
def test_the_command_says_what_does_not_go_together(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["predict", "a.png", *(word.replace("OUT", str(tmp_path / "out")) for word in words)])
    assert end.value.code == 1 and told in capsys.readouterr().err
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == "[]"
