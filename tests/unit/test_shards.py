"""Building shard sets: reproducible bytes, resumption, rebuilding, plans."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from maskhand.adapters import open_adapter
from maskhand.catalog import load_spec
from maskhand.shards.build import build_shards
from maskhand.shards.codec import decode_sample, encode_sample
from maskhand.shards.layout import ShardError
from maskhand.shards.plan import make_plan
from maskhand.shards.reader import ShardSet
from maskhand.shards.sidecar import Annotator, build_sidecar
from maskhand.shards.tar import in_blocks, sample_pieces
from maskhand.shards.verify import verify
from support.published_layouts import WRITERS, Fixture
from support.shard_parts import COUNT, SPEC, annotate, build, bytes_below, two_workers, write_raw


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Fixture:
    """23 hands; the image of hand 7 is cut and that of hand 11 is missing."""
    return write_raw(tmp_path_factory.mktemp("raw"))


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
    one = build(raw, tmp_path / "one")
    two = build(raw, tmp_path / "two", mapper=two_workers, on_shard=lambda record: done.append(record.name))
    assert one == two
    assert bytes_below(tmp_path / "one") == bytes_below(tmp_path / "two")
    assert sorted(done) == [entry.name for entry in one.shards]
    assert build(raw, tmp_path / "three", seed=1).digest != one.digest


@pytest.mark.parametrize(("readers", "piece"), [(1, 1), (3, 2), (8, 100)])
def test_bytes_do_not_depend_on_the_reading_threads(
    raw: Fixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readers: int, piece: int
) -> None:
    build(raw, tmp_path / "usual")
    monkeypatch.setattr("maskhand.shards.build._READERS", readers)
    monkeypatch.setattr("maskhand.shards.build._PIECE", piece)
    build(raw, tmp_path / "other")
    assert bytes_below(tmp_path / "usual") == bytes_below(tmp_path / "other")


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


def test_rejects_are_counted_by_reason_and_neighbors_stay(raw: Fixture, tmp_path: Path) -> None:
    manifest = build(raw, tmp_path)
    assert (manifest.planned, manifest.count) == (COUNT, COUNT - 2)
    assert manifest.rejects == {"cut_image": 1, "missing_image": 1}
    keys = {s.sample.key for s in ShardSet.open(str(tmp_path))}
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
        assert build(raw, tmp_path / str(stated), spec).notes[-1:] == note


def test_images_are_counted_and_not_their_hands(tmp_path: Path) -> None:
    for name, split, images in (("rhd", "training", 3), ("h2o3d", "train", 3), ("interhand26m", "val", 4)):
        spec = load_spec(name)
        fixture = WRITERS[spec.layout](tmp_path / name, spec, split, 3)
        plan = open_adapter(spec, str(fixture.raw_dir), split).plan()
        assert plan.listed == images < len(plan.keys)


def test_plain_webdataset_reads_the_tars(raw: Fixture, tmp_path: Path) -> None:
    manifest = build(raw, tmp_path)
    urls = [str(tmp_path / "images" / f"{entry.name}.tar") for entry in manifest.shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [s["__key__"] for s in samples] == [s.sample.key for s in ShardSet.open(str(tmp_path))]
    assert all(s["jpg"] == raw.truths[s["__key__"]].image_path.read_bytes() for s in samples)


def test_resumption_gives_the_same_bytes(raw: Fixture, tmp_path: Path) -> None:
    build(raw, tmp_path)
    whole = bytes_below(tmp_path)
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
        build(raw, tmp_path, on_shard=lambda record, seen=written: seen.append(record.name))
        rewritten = [v.split(".")[0] for v in victims if not v.startswith("manifest")]
        assert written[len(written) - len(rewritten) :] == rewritten, "kept shards are reported first"
        assert len(written) == 5
        assert bytes_below(tmp_path) == whole
    untouched = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.tar")}
    build(raw, tmp_path)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.tar")} == untouched, "a finished build writes nothing"


def test_files_that_were_mended_later_enter_the_shards(tmp_path: Path) -> None:
    """Hands 6, 9 and 18 are not among the images that the plan looks at, and lie in different shards."""
    broken = WRITERS["freihand"](tmp_path / "raw", SPEC, "training", COUNT)
    paths = [truth.image_path for truth in broken.truths.values()]
    whole = [path.read_bytes() for path in paths]
    paths[6].unlink()
    paths[9].write_bytes(whole[9][:-500])
    paths[18].unlink()
    assert build(broken, tmp_path / "set").rejects == {"cut_image": 1, "missing_image": 2}
    for mended, rejects in (([6, 9], {"missing_image": 1}), ([18], {})):
        for hand in mended:
            paths[hand].write_bytes(whole[hand])
        assert build(broken, tmp_path / "set").rejects == rejects
        assert bytes_below(tmp_path / "set") == _bytes_of_a_new_build(broken, tmp_path / f"new{len(rejects)}")
    paths[6].unlink()
    assert build(broken, tmp_path / "set").count == COUNT, "what was read once stays"


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
    build(raw, folder)
    return bytes_below(folder)


def test_shards_of_another_plan_are_never_mixed(raw: Fixture, tmp_path: Path) -> None:
    build(raw, tmp_path)
    for changed in ({"seed": 5}, {"spec": SPEC.model_copy(update={"units": "cm"})}):
        with pytest.raises(ShardError, match=r"holds shards of another plan .* Build with --rebuild"):
            build(raw, tmp_path, **changed)
    (tmp_path / "images" / "manifest.json").unlink()
    with pytest.raises(ShardError, match="another plan"):
        build(raw, tmp_path, seed=5)
    rebuilt = build(raw, tmp_path, SPEC.model_copy(update={"shard_size": 12}), rebuild=True)
    assert len(rebuilt.shards) == 2 and verify(str(tmp_path)) == []


def test_rebuild_replaces_what_does_not_fit_and_nothing_else(raw: Fixture, tmp_path: Path) -> None:
    images = tmp_path / "images"
    build(raw, tmp_path)
    written: list[str] = []
    keep = lambda record: written.append(record.name)  # noqa: E731
    build(raw, tmp_path, rebuild=True, on_shard=keep)
    assert written == [], "a finished build of this plan is kept"
    for name in ("manifest.json", "000001.json"):
        (images / name).write_text("{")
        with pytest.raises(ShardError):
            build(raw, tmp_path)
        build(raw, tmp_path, rebuild=True)
        assert verify(str(tmp_path)) == []

    build_sidecar(str(tmp_path), "means", Annotator("mean", "1"), annotate)
    (tmp_path / "means" / "000004.json").unlink()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "means").glob("00000[0-3].*")}
    (images / "000004.tar").write_bytes(b"cut")
    with pytest.raises(ShardError, match="000004"):
        build_sidecar(str(tmp_path), "means", Annotator("mean", "1"), annotate, rebuild=True)
    assert len(finished) == 8 and {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.parametrize("module", ["maskhand.adapters.layouts.freihand", "maskhand.adapters.base"])
def test_changed_code_makes_another_plan(
    raw: Fixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    build(raw, tmp_path)
    monkeypatch.setattr(f"{module}.VERSION", 99)
    with pytest.raises(ShardError, match="another plan"):
        build(raw, tmp_path)


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
    with pytest.raises(ShardError, match="two hands of training have the key a;"):
        make_plan(SPEC, "training", replace(raw_plan, keys=["a", "a"]), seed=0)
