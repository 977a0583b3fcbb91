"""Shard sets: reproducible bytes, resumption, verification, reading exactly once, the training order."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from published_layouts import WRITERS, Fixture

from maskhand import storage
from maskhand.adapters import open_adapter
from maskhand.catalog import DatasetSpec, load_spec
from maskhand.sample import HandSample, SampleError
from maskhand.shards.build import build_shards
from maskhand.shards.codec import decode_sample, encode_sample
from maskhand.shards.layout import ShardError
from maskhand.shards.manifest import Manifest, read_manifest
from maskhand.shards.mixture import TrainingStream
from maskhand.shards.npz import decode_all, decode_arrays, encode_arrays
from maskhand.shards.plan import make_plan
from maskhand.shards.read_ahead import in_order
from maskhand.shards.reader import ShardSample, ShardSet, iterate_samples
from maskhand.shards.sidecar import Annotator, build_sidecar
from maskhand.shards.tar import in_blocks, sample_pieces
from maskhand.shards.untar import decode_tar, plain_tar, webdataset_tar
from maskhand.shards.verify import verify

SPEC = load_spec("freihand_synth").model_copy(update={"shard_size": 5, "mano": None, "images_per_annotation": {}})
COUNT = 23


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Fixture:
    """23 hands; the picture of hand 7 is cut and that of hand 11 is missing."""
    fixture = WRITERS["freihand"](tmp_path_factory.mktemp("raw"), SPEC, "training", COUNT)
    paths = [truth.image_path for truth in fixture.truths.values()]
    paths[7].write_bytes(paths[7].read_bytes()[:-500])
    paths[11].unlink()
    return fixture


def _build(raw: Fixture, folder: Path, spec: DatasetSpec = SPEC, **how: Any) -> Manifest:
    return build_shards(spec, str(raw.raw_dir), "training", str(folder), **how)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def two_workers(fn: Callable, items: Sequence, *, on_done: Callable | None = None) -> list:
    """Last item first, two at a time. Processes take part in tests/integration/test_ray_map.py."""
    with ThreadPoolExecutor(2) as pool:
        coming = {
            position: pool.submit(fn, pickle.loads(pickle.dumps(items[position]))) for position in _backwards(items)
        }
        for done in as_completed(coming.values()):
            if on_done:
                on_done(done.result())
        return [coming[position].result() for position in range(len(items))]


def _backwards(items: Sequence) -> range:
    return range(len(items) - 1, -1, -1)


def annotate(samples: list[ShardSample]) -> list[dict[str, np.ndarray] | SampleError]:
    """Mean joint of every sample; hands with an odd official index have none."""
    return [
        SampleError("odd", "an odd index")
        if s.sample.origin["index"] % 2
        else {"mean_cam_m": s.sample.joints_cam_m.mean(0)}  # type: ignore[union-attr]
        for s in samples
    ]


def test_a_sample_survives_the_tar_exactly(raw: Fixture) -> None:
    adapter = open_adapter(
        SPEC.model_copy(update={"mano": load_spec("freihand_synth").mano}), str(raw.raw_dir), "training"
    )
    sample = adapter.read(adapter.plan().item(0))
    bare = replace(sample, camera=None, joints_2d_px=None, joints_2d_conf=None, joints_cam_m=None, joints_3d_valid=None)
    for original in (sample, replace(bare, mano=None)):
        again = decode_sample(original.key, encode_sample(original))
        assert _plain(again) == _plain(original)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.tolist())
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value


def test_bytes_do_not_depend_on_workers_or_place(raw: Fixture, tmp_path: Path) -> None:
    done: list[str] = []
    one = _build(raw, tmp_path / "one")
    two = _build(raw, tmp_path / "two", mapper=two_workers, on_shard=lambda record: done.append(record.name))
    assert one == two
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")
    assert sorted(done) == [entry.name for entry in one.shards]
    assert _build(raw, tmp_path / "three", seed=1).digest != one.digest


@pytest.mark.parametrize(("readers", "piece"), [(1, 1), (3, 2), (8, 100)])
def test_bytes_do_not_depend_on_the_reading_threads(
    raw: Fixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readers: int, piece: int
) -> None:
    _build(raw, tmp_path / "usual")
    monkeypatch.setattr("maskhand.shards.build._READERS", readers)
    monkeypatch.setattr("maskhand.shards.build._PIECE", piece)
    _build(raw, tmp_path / "other")
    assert _bytes(tmp_path / "usual") == _bytes(tmp_path / "other")


def test_tars_are_those_of_webdataset(tmp_path: Path) -> None:
    """Names of every length and alphabet, members that fill their block and that do not, ends in and after a record."""
    rng, keys = np.random.default_rng(0), ["a", "b-_" * 15, "é", "k" * 94] * 10
    for count in (0, 1, 5, 9, 40):
        samples = {
            key * (1 + k % 3) + str(k): {"npz": rng.bytes(size), "json": b"", "jpg": rng.bytes(512)}
            for k, (key, size) in enumerate(zip(keys[:count], range(1, 9000, 220), strict=False))
        }
        expected = io.BytesIO()
        with webdataset.TarWriter(expected, user="", group="", mode=0o444, mtime=0, encoder=False) as writer:
            for key, members in samples.items():
                writer.write({"__key__": key, **members})
        for block in (1, 5000, 1 << 30):
            found = b"".join(in_blocks((sample_pieces(*sample) for sample in samples.items()), block))
            assert found == expected.getvalue()


def test_work_ahead_comes_in_order_and_stays_bounded() -> None:
    begun: list[int] = []

    def square(x: int) -> int:
        begun.append(x)
        if x == 30:
            raise SampleError("odd", "thirty")
        return x * x

    with ThreadPoolExecutor(3) as pool:
        assert list(in_order(pool, square, range(20), 4)) == [x * x for x in range(20)]
        begun.clear()
        results = in_order(pool, square, range(1000), 4)
        for taken in range(1, 31):
            next(results)
            assert len(begun) <= taken + 4
        with pytest.raises(SampleError, match="thirty"):
            next(results)
    assert len(begun) < 40, "what was not begun is not begun any more"


def test_rejects_are_counted_by_reason_and_neighbours_stay(raw: Fixture, tmp_path: Path) -> None:
    manifest = _build(raw, tmp_path)
    assert (manifest.planned, manifest.count) == (COUNT, COUNT - 2)
    assert manifest.rejects == {"cut_image": 1, "missing_image": 1}
    keys = {s.sample.key for s in iterate_samples(str(tmp_path))}
    assert keys == set(raw.truths) - {"training-00000007", "training-00000011"}
    records = [json.loads(p.read_text()) for p in (tmp_path / "images").glob("0*.json")]
    rejected = {r["key"]: r["reason"] for record in records for r in record["rejects"]}
    assert rejected == {"training-00000007": "cut_image", "training-00000011": "missing_image"}


def test_label_files_that_list_less_than_the_makers_state_are_noted(raw: Fixture, tmp_path: Path) -> None:
    for stated, note in (
        (COUNT + 1, ("the label files of training list 23, its makers state 24; is the download complete?",)),
        (COUNT - 1, ("the label files of training list 23, its makers state 22",)),
        (COUNT, ()),
    ):
        spec = SPEC.model_copy(update={"splits": {"training": stated}})
        assert _build(raw, tmp_path / str(stated), spec).notes[-1:] == note


def test_pictures_are_counted_and_not_their_hands(tmp_path: Path) -> None:
    for name, split, pictures in (("rhd", "training", 3), ("h2o3d", "train", 3), ("interhand26m", "val", 4)):
        spec = load_spec(name)
        fixture = WRITERS[spec.layout](tmp_path / name, spec, split, 3)
        plan = open_adapter(spec, str(fixture.raw_dir), split).plan()
        assert plan.listed == pictures < len(plan.keys)


def test_plain_webdataset_reads_the_tars(raw: Fixture, tmp_path: Path) -> None:
    manifest = _build(raw, tmp_path)
    urls = [str(tmp_path / "images" / f"{entry.name}.tar") for entry in manifest.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [s["__key__"] for s in samples] == [s.sample.key for s in iterate_samples(str(tmp_path))]
    assert all(s["jpg"] == raw.truths[s["__key__"]].image_path.read_bytes() for s in samples)


def test_resumption_gives_the_same_bytes(raw: Fixture, tmp_path: Path) -> None:
    _build(raw, tmp_path)
    whole = _bytes(tmp_path)
    for victims in (
        ["manifest.json"],
        ["manifest.json", "000001.json"],
        ["000003.tar"],
        ["manifest.json", "000000.tar"],
    ):
        for name in victims:
            (tmp_path / "images" / name).unlink()
        (tmp_path / "images" / ".000001.tar.dead.partial").write_bytes(b"a killed write")
        written: list[str] = []
        _build(raw, tmp_path, on_shard=lambda record, seen=written: seen.append(record.name))
        rewritten = [v.split(".")[0] for v in victims if not v.startswith("manifest")]
        assert written[len(written) - len(rewritten) :] == rewritten, "kept shards are reported first"
        assert len(written) == 5
        assert _bytes(tmp_path) == whole
    untouched = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.tar")}
    _build(raw, tmp_path)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.tar")} == untouched, "a finished build writes nothing"


def test_files_that_were_mended_later_enter_the_shards(tmp_path: Path) -> None:
    """Hands 6, 9 and 18 are not among the pictures that the plan looks at, and lie in different shards."""
    broken = WRITERS["freihand"](tmp_path / "raw", SPEC, "training", COUNT)
    paths = [truth.image_path for truth in broken.truths.values()]
    whole = [path.read_bytes() for path in paths]
    paths[6].unlink()
    paths[9].write_bytes(whole[9][:-500])
    paths[18].unlink()
    assert _build(broken, tmp_path / "set").rejects == {"cut_image": 1, "missing_image": 2}
    for mended, rejects in (([6, 9], {"missing_image": 1}), ([18], {})):
        for hand in mended:
            paths[hand].write_bytes(whole[hand])
        assert _build(broken, tmp_path / "set").rejects == rejects
        assert _bytes(tmp_path / "set") == _bytes_of_a_new_build(broken, tmp_path / f"new{len(rejects)}")
    paths[6].unlink()
    assert _build(broken, tmp_path / "set").count == COUNT, "what was read once stays"


def test_a_label_file_that_was_mended_later_enters_the_shards(tmp_path: Path) -> None:
    spec = load_spec("hint").model_copy(update={"shard_size": 5})
    fixture = WRITERS["hint"](tmp_path / "raw", spec, "TEST_newdays_img", COUNT)
    build = partial(build_shards, spec, str(fixture.raw_dir), "TEST_newdays_img", str(tmp_path / "set"))
    labels = sorted(fixture.joints_file.parent.glob("*.json"))
    # The plan knows the sizes of all label files and the content of 16.
    label = labels[min(set(range(len(labels))) - set(np.linspace(0, len(labels) - 1, 16).astype(int)))]
    whole = label.read_bytes()
    label.write_bytes(whole[:-1] + b"?")
    assert build().rejects == {"bad_label": 1}
    label.write_bytes(whole)
    assert build().rejects == {}


def _bytes_of_a_new_build(raw: Fixture, folder: Path) -> dict[str, bytes]:
    _build(raw, folder)
    return _bytes(folder)


def test_shards_of_another_plan_are_never_mixed(raw: Fixture, tmp_path: Path) -> None:
    _build(raw, tmp_path)
    for changed in ({"seed": 5}, {"spec": SPEC.model_copy(update={"units": "cm"})}):
        with pytest.raises(ShardError, match=r"holds shards of another plan .* Build with --rebuild"):
            _build(raw, tmp_path, **changed)
    (tmp_path / "images" / "manifest.json").unlink()
    with pytest.raises(ShardError, match="another plan"):
        _build(raw, tmp_path, seed=5)
    rebuilt = _build(raw, tmp_path, SPEC.model_copy(update={"shard_size": 12}), rebuild=True)
    assert len(rebuilt.shards) == 2 and verify(str(tmp_path)) == []


def test_rebuild_replaces_what_does_not_fit_and_nothing_else(raw: Fixture, tmp_path: Path) -> None:
    images = tmp_path / "images"
    _build(raw, tmp_path)
    written: list[str] = []
    keep = lambda record: written.append(record.name)  # noqa: E731
    _build(raw, tmp_path, rebuild=True, on_shard=keep)
    assert written == [], "a finished build of this plan is kept"
    for name in ("manifest.json", "000001.json"):
        (images / name).write_text("{")
        with pytest.raises(ShardError):
            _build(raw, tmp_path)
        _build(raw, tmp_path, rebuild=True)
        assert verify(str(tmp_path)) == []

    build_sidecar(str(tmp_path), "keypoints.mean", Annotator("mean", "1"), annotate)
    (tmp_path / "keypoints.mean" / "000004.json").unlink()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "keypoints.mean").glob("00000[0-3].*")}
    (images / "000004.tar").write_bytes(b"cut")
    with pytest.raises(ShardError, match="000004"):
        build_sidecar(str(tmp_path), "keypoints.mean", Annotator("mean", "1"), annotate, rebuild=True)
    assert len(finished) == 8 and {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.parametrize("module", ["maskhand.adapters.freihand", "maskhand.adapters.base"])
def test_changed_code_makes_another_plan(
    raw: Fixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    _build(raw, tmp_path)
    monkeypatch.setattr(f"{module}.VERSION", 99)
    with pytest.raises(ShardError, match="another plan"):
        _build(raw, tmp_path)


def test_the_plan_is_pure_and_shuffled(raw: Fixture) -> None:
    raw_plan = open_adapter(SPEC, str(raw.raw_dir), "training").plan()
    plan = make_plan(SPEC, "training", raw_plan, seed=0)
    again = make_plan(SPEC, "training", raw_plan, seed=0)
    order = np.concatenate(plan.shards)
    assert plan.digest == again.digest and order.tolist() == np.concatenate(again.shards).tolist()
    assert sorted(order.tolist()) == list(range(COUNT)) and order.tolist() != list(range(COUNT))
    assert [len(s) for s in plan.shards] == [5, 5, 5, 4, 4]
    with pytest.raises(ShardError, match=r"key 'a\.b' must hold letters"):
        make_plan(SPEC, "training", replace(raw_plan, keys=["a.b"]), seed=0)
    with pytest.raises(ShardError, match="same key twice"):
        make_plan(SPEC, "training", replace(raw_plan, keys=["a", "a"]), seed=0)


def _damage(folder: Path, name: str, how: str) -> None:
    path = folder / "images" / name
    data = path.read_bytes()
    if how == "cut at a member":  # readers of tars take this for the end of the file
        path.write_bytes(data[: 512 + 512 * -(-int(data[124:135], 8) // 512)])
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "altered":
        path.write_bytes(data[:3000] + bytes([data[3000] ^ 1]) + data[3001:])
    elif how == "lost":
        path.unlink()


@pytest.mark.parametrize(
    ("name", "how", "kind"),
    [
        ("000002.tar", "cut", "truncated"),
        ("000002.tar", "cut at a member", "truncated"),
        ("000002.tar", "altered", "altered"),
        ("000002.tar", "lost", "missing"),
        ("000002.json", "lost", "missing"),
        ("manifest.json", "lost", "unfinished"),
        ("manifest.json", "cut", "unfinished"),
    ],
)
def test_verify_finds_damage(raw: Fixture, tmp_path: Path, name: str, how: str, kind: str) -> None:
    _build(raw, tmp_path)
    assert verify(str(tmp_path)) == []
    _damage(tmp_path, name, how)
    (problem,) = verify(str(tmp_path))
    assert (problem.kind, problem.uri) == (kind, str(tmp_path / "images" / name))
    if name.endswith("tar") or name.startswith("manifest"):
        with pytest.raises(ShardError):
            list(iterate_samples(str(tmp_path)))


def test_verify_finds_foreign_files_and_edited_manifests(raw: Fixture, tmp_path: Path) -> None:
    assert [p.kind for p in verify(str(tmp_path))] == ["missing"]
    manifest = _build(raw, tmp_path)
    extra = tmp_path / "images" / "000009.tar"
    extra.write_bytes((tmp_path / "images" / "000000.tar").read_bytes())
    assert [(p.kind, p.uri) for p in verify(str(tmp_path))] == [("extra", str(extra))]
    extra.unlink()
    text = json.loads((tmp_path / "images" / "manifest.json").read_text())
    for change, message in (({"count": 1}, "edited or damaged"), ({"format_version": 0}, "written in format 0")):
        (tmp_path / "images" / "manifest.json").write_text(json.dumps(text | change))
        (problem,) = verify(str(tmp_path))
        assert problem.kind == "unfinished" and message in problem.message
    assert manifest.official_count is None


def test_sidecars_join_by_key_and_belong_to_their_images(raw: Fixture, tmp_path: Path) -> None:
    _build(raw, tmp_path)
    images = _bytes(tmp_path)
    annotator = Annotator("mean", "1")
    side = build_sidecar(str(tmp_path), "keypoints.mean", annotator, annotate, mapper=two_workers)
    assert {k: v for k, v in _bytes(tmp_path).items() if k in images} == images, "image tars are never rewritten"
    assert side.rejects == {"odd": 9} and side.count == 12  # of 0..22, and 7 and 11 are no samples
    assert side.annotator == {"name": "mean", "version": "1", "settings": {}}
    found = list(iterate_samples(str(tmp_path), ["keypoints.mean"]))
    for s in found:
        entry = s.sidecars["keypoints.mean"]
        assert (entry is None) == bool(s.sample.origin["index"] % 2)
        if entry is not None:
            np.testing.assert_array_equal(entry["mean_cam_m"], s.sample.joints_cam_m.mean(0))  # type: ignore[union-attr]
    assert verify(str(tmp_path)) == []
    assert build_sidecar(str(tmp_path), "keypoints.mean", annotator, _must_not_run) == side
    with pytest.raises(ShardError, match="another plan"):
        build_sidecar(str(tmp_path), "keypoints.mean", Annotator("mean", "2"), annotate)

    _build(raw, tmp_path, seed=3, rebuild=True)
    with pytest.raises(ShardError, match=r"was made from images .* annotate again"):
        ShardSet.open(str(tmp_path), ["keypoints.mean"])
    assert [(p.kind, Path(p.uri).name) for p in verify(str(tmp_path))] == [("foreign", "keypoints.mean")]
    with pytest.raises(ShardError, match=r"mano: no mano shards here"):
        ShardSet.open(str(tmp_path), ["mano"])


def _must_not_run(samples: list[ShardSample]) -> list[SampleError]:
    raise AssertionError("a finished sidecar is not annotated again")


def test_arrays_of_objects_are_refused() -> None:
    with pytest.raises(ShardError, match="'x' holds Python objects"):
        encode_arrays({"x": np.array([{}, None])})


@pytest.mark.parametrize("world", [1, 2, 3, 40])
def test_evaluation_gives_every_sample_once(raw: Fixture, tmp_path: Path, world: int) -> None:
    manifest = _build(raw, tmp_path)
    seen = [s for rank in range(world) for s in iterate_samples(str(tmp_path), rank=rank, world=world)]
    assert [s.index for s in seen] == list(range(manifest.count))
    assert len({s.sample.key for s in seen}) == manifest.count
    by_index = {s.index: s.sample.key for s in iterate_samples(str(tmp_path))}
    assert all(by_index[s.index] == s.sample.key for s in seen)


@pytest.fixture(scope="module")
def two_sets(raw: Fixture, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder = tmp_path_factory.mktemp("sets")
    other = SPEC.model_copy(update={"name": "other", "shard_size": 50})
    _build(raw, folder / "a")
    _build(raw, folder / "b", other)
    return {str(folder / "a"): 3.0, str(folder / "b"): 1.0}


def _ids(samples: Iterable[ShardSample]) -> list[tuple[str, str]]:
    return [(s.sample.dataset, s.sample.key) for s in samples]


def test_the_global_training_order_does_not_depend_on_the_ranks(two_sets: dict[str, float]) -> None:
    whole = _ids(islice(TrainingStream(two_sets, seed=4).iterate(), 320))
    for world in (2, 4, 16):
        for rank in (0, world - 1):
            own = _ids(islice(TrainingStream(two_sets, seed=4, rank=rank, world=world).iterate(), 320 // world))
            assert own == whole[rank::world]
    assert _ids(islice(TrainingStream(two_sets, seed=5).iterate(), 320)) != whole
    with pytest.raises(ValueError, match="must divide the 16 lanes"):
        TrainingStream(two_sets, world=3)
    three = _ids(islice(TrainingStream(two_sets, rank=1, world=3, lanes=24).iterate(), 100))
    assert three == _ids(islice(TrainingStream(two_sets, lanes=24).iterate(), 300))[1::3]


@pytest.mark.parametrize("start", [1, 17, 250, 70_000])
def test_training_resumes_anywhere(two_sets: dict[str, float], start: int) -> None:
    stream = TrainingStream(two_sets, seed=1, rank=1, world=2)
    if start < 1000:
        assert _ids(islice(stream.iterate(start), 40)) == _ids(islice(stream.iterate(), start, start + 40))
    else:  # too far to walk: two resumptions must agree where they overlap
        assert _ids(islice(stream.iterate(start), 10, 40)) == _ids(islice(stream.iterate(start + 10), 30))


def test_a_set_is_seen_evenly_and_sets_by_weight(raw: Fixture, two_sets: dict[str, float]) -> None:
    first = next(iter(two_sets))
    count = read_manifest(first, "images").count
    seen = Counter(s.index for s in islice(TrainingStream({first: 1.0}).iterate(), 40 * count))
    # Lanes are at most one shard visit apart, so a sample's count differs by a few from 40.
    assert set(seen) == set(range(count)) and max(abs(n - 40) for n in seen.values()) <= 5
    sets = Counter(dataset for dataset, _ in _ids(islice(TrainingStream(two_sets).iterate(), 1600)))
    assert sets[SPEC.name] / 1600 == pytest.approx(0.75, abs=0.03)


def test_training_refuses_what_cannot_be_trained_on(raw: Fixture, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weights above zero"):
        TrainingStream({"x": 0.0})
    broken = WRITERS["freihand"](tmp_path / "raw", SPEC, "training", 2)
    for truth in broken.truths.values():
        truth.image_path.unlink()
    manifest = _build(broken, tmp_path / "set")
    assert manifest.count == 0 and verify(str(tmp_path / "set")) == []
    with pytest.raises(ShardError, match="holds no sample"):
        TrainingStream({str(tmp_path / "set"): 1.0})


def test_a_set_reads_the_same_after_it_moved(raw: Fixture, tmp_path: Path) -> None:
    _build(raw, tmp_path / "here")
    before = _ids(islice(TrainingStream({str(tmp_path / "here"): 1.0}).iterate(), 60))
    (tmp_path / "here").rename(tmp_path / "there")
    assert _ids(islice(TrainingStream({storage.join(tmp_path, "there"): 1.0}).iterate(), 60)) == before


def test_samples_arrive_whole(raw: Fixture, tmp_path: Path) -> None:
    _build(raw, tmp_path)
    for s in iterate_samples(str(tmp_path)):
        assert isinstance(s.sample, HandSample)
        s.sample.validate()
        np.testing.assert_allclose(s.sample.joints_cam_m, raw.truths[s.sample.key].joints_cam_m, atol=1e-6)


def test_arrays_are_written_and_read_as_numpy_does() -> None:
    arrays = {
        "flags": np.array([True, False]),
        "scalar": np.array(1.5, np.float32),
        "empty": np.zeros((0, 3)),
        "columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "text": np.array("fitted"),
        "whole": np.arange(5),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **{name: arrays[name] for name in sorted(arrays)})  # type: ignore[arg-type]
    assert encode_arrays(arrays) == buffer.getvalue()
    for data in (encode_arrays(arrays), _compressed(arrays)):
        found = decode_arrays(data)
        with np.load(io.BytesIO(data)) as expected:
            assert set(found) == set(expected.files) == set(arrays)
            for name, array in found.items():
                np.testing.assert_array_equal(array, expected[name])
                assert array.dtype == expected[name].dtype and array.flags.writeable


def _compressed(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def test_arrays_of_a_shard_are_decoded_together_as_one_by_one() -> None:
    rng = np.random.default_rng(0)

    def arrays(columns: int = 4) -> dict[str, np.ndarray]:
        return {
            "points": rng.normal(size=(3, columns)).astype(np.float32),
            "ok": np.array(bool(rng.integers(2))),
            "flags": rng.integers(0, 2, 21).astype(bool),
            "source": np.array("fitted"),
            "empty": np.zeros((0, 3)),
        }

    turned = arrays() | {"points": np.asfortranarray(rng.normal(size=(3, 4)).astype(np.float32))}
    renamed = {("paints" if name == "points" else name): array for name, array in arrays().items()}
    files = [arrays(), arrays(5), turned, arrays(), renamed, arrays(), {}, arrays(5)]
    encoded = [*map(encode_arrays, files), _compressed(arrays())]
    assert len({len(encoded[k]) for k in (0, 2, 3, 4, 5)}) == 1, "same length, three structures"
    for data, found in zip(encoded, decode_all(encoded), strict=True):
        expected = decode_arrays(data)
        assert set(found) == set(expected)
        for name, array in found.items():
            np.testing.assert_array_equal(array, expected[name])
            assert array.dtype == expected[name].dtype and array.shape == expected[name].shape
            assert array.flags.writeable
    assert decode_all([]) == []


def test_a_tar_is_read_as_webdataset_reads_it(raw: Fixture, tmp_path: Path) -> None:
    _build(raw, tmp_path)
    for path in sorted((tmp_path / "images").glob("*.tar")):
        data = path.read_bytes()
        assert plain_tar(data) == webdataset_tar(data, path.name) == decode_tar(data, path.name)
        assert decode_tar(data[:0], path.name) == []
        with pytest.raises(ShardError, match="not a whole tar"):
            decode_tar(data[: len(data) // 2], path.name)


@pytest.mark.parametrize("name", ["folder/hand.jpg", "h" * 120 + ".jpg", "hand.JPG", "hand"])
def test_unusual_tars_are_left_to_webdataset(name: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in (name, name.split(".")[0] + ".json"):
            info = tarfile.TarInfo(member)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    data = buffer.getvalue()
    assert plain_tar(data) is None
    assert decode_tar(data, "unusual.tar") == webdataset_tar(data, "unusual.tar")
