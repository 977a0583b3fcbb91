"""Reading shard sets: verification, sidecars, exactly once in evaluation, the training order."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskhand import storage
from maskhand.sample import HandSample, SampleError
from maskhand.shards.layout import IMAGES, ShardError, manifest_uri, tar_uri
from maskhand.shards.manifest import read_manifest
from maskhand.shards.mixture import TrainingStream, held_out_places
from maskhand.shards.npz import decode_arrays
from maskhand.shards.reader import ShardSample, ShardSet
from maskhand.shards.sidecar import Annotator, build_sidecar
from maskhand.shards.verify import verify
from support.published_layouts import WRITERS, Fixture
from support.shard_parts import SPEC, annotate, build, bytes_below, two_workers, write_raw


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Fixture:
    """23 hands; the image of hand 7 is cut and that of hand 11 is missing."""
    return write_raw(tmp_path_factory.mktemp("raw"))


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
    build(raw, tmp_path)
    assert verify(str(tmp_path)) == []
    _damage(tmp_path, name, how)
    (problem,) = verify(str(tmp_path))
    assert (problem.kind, problem.uri) == (kind, str(tmp_path / "images" / name))
    if name.endswith("tar") or name.startswith("manifest"):
        with pytest.raises(ShardError):
            list(ShardSet.open(str(tmp_path)))


def _edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps(change(json.loads(data))).encode()


def _arrays(change: Callable[[dict[str, np.ndarray]], dict[str, Any]]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        np.savez(stream := io.BytesIO(), **change(decode_arrays(data)))
        return stream.getvalue()

    return apply


@pytest.mark.parametrize(
    ("member", "change", "said"),
    [
        ("npz", None, "found members .* expected npz"),
        ("json", None, "found members .* expected an image, json and npz"),
        ("jpg", None, "found members .* expected an image, json and npz"),
        ("json", lambda data: data[:20], "unexpected end of data"),
        ("json", lambda data: b"[]", "TypeError"),
        ("json", _edit(lambda facts: facts | {"side": "both"}), "side is 'both'"),
        ("json", _edit(lambda facts: facts | {"box_xyxy_px": [0, 0, None, 9]}), "box_xyxy_px is .*None"),
        ("json", _edit(lambda facts: facts | {"box_xyxy_px": [0, 0, 9]}), r"box_xyxy_px has shape \(3,\)"),
        ("json", _edit(lambda facts: {k: v for k, v in facts.items() if k != "K_px"}), "K_px"),
        ("npz", lambda data: data[:50], "not a zip file"),
        ("npz", lambda data: b"", "EOFError"),
        ("npz", _arrays(lambda arrays: arrays | {"joints_cam_m": np.array([{}])}), "written by another program"),
        (
            "npz",
            _arrays(lambda arrays: arrays | {"joints_cam_m": np.zeros((3, 3))}),
            r"joints_cam_m has shape \(3, 3\)",
        ),
    ],
)
def test_members_that_another_program_wrote(
    raw: Fixture, tmp_path: Path, member: str, change: Callable[[bytes], bytes] | None, said: str
) -> None:
    """The tar is as its manifest says, so its writer is at fault; the sentence names the tar and the sample."""
    manifest = build(raw, tmp_path / "set")
    uri = tar_uri(str(tmp_path / "set" / IMAGES), manifest.shards[0].name)
    content = io.BytesIO()
    with tarfile.open(uri) as old, tarfile.open(fileobj=content, mode="w") as new:
        for place, entry in enumerate(old.getmembers()):
            data = old.extractfile(entry).read()  # type: ignore[union-attr]
            if place < 3 and entry.name.endswith(member):
                if change is None:
                    continue
                data = change(data)
            entry.size = len(data)
            new.addfile(entry, io.BytesIO(data))
    Path(uri).write_bytes(content.getvalue())
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    first = replace(manifest.shards[0], bytes=len(content.getvalue()), sha256=sha256)
    signed = replace(manifest, shards=(first, *manifest.shards[1:]))
    Path(manifest_uri(str(tmp_path / "set" / IMAGES))).write_bytes(signed.to_json())
    with pytest.raises(ShardError, match=f"{uri}: sample training-[0-9-]+: .*{said}"):
        list(ShardSet.open(str(tmp_path / "set")))


def test_verify_finds_foreign_files_and_edited_manifests(raw: Fixture, tmp_path: Path) -> None:
    assert [p.kind for p in verify(str(tmp_path))] == ["missing"]
    manifest = build(raw, tmp_path)
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
    build(raw, tmp_path)
    images = bytes_below(tmp_path)
    annotator = Annotator("mean", "1")
    side = build_sidecar(str(tmp_path), "means", annotator, annotate, mapper=two_workers)
    assert {k: v for k, v in bytes_below(tmp_path).items() if k in images} == images, "image tars are never rewritten"
    assert side.rejects == {"odd": 9} and side.count == 12  # of 0..22, and 7 and 11 are no samples
    assert side.annotator == {"name": "mean", "version": "1", "settings": {}}
    found = list(ShardSet.open(str(tmp_path), ["means"]))
    for s in found:
        entry = s.sidecars["means"]
        assert (entry is None) == bool(s.sample.origin["index"] % 2)
        if entry is not None:
            np.testing.assert_array_equal(entry["mean_cam_m"], s.sample.joints_cam_m.mean(0))  # type: ignore[union-attr]
    assert verify(str(tmp_path)) == []
    assert build_sidecar(str(tmp_path), "means", annotator, _must_not_run) == side
    with pytest.raises(ShardError, match="another plan"):
        build_sidecar(str(tmp_path), "means", Annotator("mean", "2"), annotate)

    manifest = tmp_path / "means" / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace('"odd": 9', '"odd": 8'))
    with pytest.raises(ShardError, match=r"21 hands were planned, 12 are there and 8 left out; some were lost"):
        ShardSet.open(str(tmp_path), ["means"])
    manifest.write_text(whole)

    build(raw, tmp_path, seed=3, rebuild=True)
    with pytest.raises(ShardError, match=r"was made from images .* annotate again"):
        ShardSet.open(str(tmp_path), ["means"])
    assert [(p.kind, Path(p.uri).name) for p in verify(str(tmp_path))] == [("foreign", "means")]
    with pytest.raises(ShardError, match=r"mano: no mano shards here"):
        ShardSet.open(str(tmp_path), ["mano"])


def _must_not_run(samples: list[ShardSample]) -> list[SampleError]:
    raise AssertionError("a finished sidecar is not annotated again")


@pytest.mark.parametrize("world", [1, 2, 3, 40])
def test_ranges_of_a_set_give_every_sample_once(raw: Fixture, tmp_path: Path, world: int) -> None:
    manifest = build(raw, tmp_path)
    shard_set = ShardSet.open(str(tmp_path))
    cuts = [rank * len(shard_set) // world for rank in range(world + 1)]
    seen = [s for start, stop in pairwise(cuts) for s in shard_set.between(start, stop)]
    assert [s.index for s in seen] == list(range(manifest.count))
    assert len({s.sample.key for s in seen}) == manifest.count
    by_index = {s.index: s.sample.key for s in ShardSet.open(str(tmp_path))}
    assert all(by_index[s.index] == s.sample.key for s in seen)


@pytest.fixture(scope="module")
def two_sets(raw: Fixture, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder = tmp_path_factory.mktemp("sets")
    other = SPEC.model_copy(update={"name": "other", "shard_size": 50})
    build(raw, folder / "a")
    build(raw, folder / "b", other)
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
    with pytest.raises(ValueError, match="must divide the 16 shard streams"):
        TrainingStream(two_sets, world=3)
    three = _ids(islice(TrainingStream(two_sets, rank=1, world=3, shard_streams=24).iterate(), 100))
    assert three == _ids(islice(TrainingStream(two_sets, shard_streams=24).iterate(), 300))[1::3]


@pytest.mark.parametrize("start", [1, 17, 250, 70_000])
def test_training_resumes_anywhere(two_sets: dict[str, float], start: int) -> None:
    stream = TrainingStream(two_sets, seed=1, rank=1, world=2)
    if start < 1000:
        assert _ids(islice(stream.iterate(start), 40)) == _ids(islice(stream.iterate(), start, start + 40))
    else:  # too far to walk: two resumptions must agree where they overlap
        assert _ids(islice(stream.iterate(start), 10, 40)) == _ids(islice(stream.iterate(start + 10), 30))


def test_held_out_samples_are_never_trained_on_and_the_others_as_before(
    raw: Fixture, two_sets: dict[str, float]
) -> None:
    first = next(iter(two_sets))
    count = read_manifest(first, "images").count
    places = held_out_places(count, 0.3).tolist()
    assert len(places) == int(0.3 * count) and {place // 4 for place in places} == set(range(count // 4)), "spread"
    seen = Counter(s.index for s in islice(TrainingStream({first: 1.0}, held_out=0.3).iterate(), 40 * count))
    assert set(seen) == set(range(count)) - set(places)
    assert max(seen.values()) - min(seen.values()) <= 10
    whole = _ids(islice(TrainingStream(two_sets, seed=4, held_out=0.3).iterate(), 320))
    for rank in (0, 3):
        part = TrainingStream(two_sets, seed=4, rank=rank, world=4, held_out=0.3)
        assert _ids(islice(part.iterate(), 80)) == whole[rank::4]
        assert _ids(islice(part.iterate(33), 40)) == whole[rank::4][33:73]
    assert _ids(islice(TrainingStream(two_sets, seed=5, held_out=0.3).iterate(), 320)) != whole


@pytest.mark.parametrize(("count", "share"), [(100, 0.05), (100, 0.07), (1000, 0.01), (19, 0.05), (7, 0.99), (7, 0.0)])
def test_as_many_are_held_out_as_the_share_says_of_every_beginning_of_a_set(count: int, share: float) -> None:
    places = held_out_places(count, share)
    assert (np.diff(places) > 0).all() and len(places) < count
    for end in range(count + 1):
        assert (places < end).sum() == Fraction(str(share)) * end // 1
    assert held_out_places(10 * count, share)[: len(places)].tolist() == places.tolist(), "of a set that grew"


def test_a_set_is_seen_evenly_and_sets_by_weight(raw: Fixture, two_sets: dict[str, float]) -> None:
    first = next(iter(two_sets))
    count = read_manifest(first, "images").count
    seen = Counter(s.index for s in islice(TrainingStream({first: 1.0}).iterate(), 40 * count))
    # Shard streams are at most one pass apart, so a sample's count differs by a few from 40.
    assert set(seen) == set(range(count)) and max(abs(n - 40) for n in seen.values()) <= 5
    sets = Counter(dataset for dataset, _ in _ids(islice(TrainingStream(two_sets).iterate(), 1600)))
    assert sets[SPEC.name] / 1600 == pytest.approx(0.75, abs=0.03)


def test_training_refuses_what_cannot_be_trained_on(raw: Fixture, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weights above zero"):
        TrainingStream({"x": 0.0})
    broken = WRITERS["freihand"](tmp_path / "raw", SPEC, "training", 2)
    for truth in broken.truths.values():
        truth.image_path.unlink()
    with pytest.raises(ShardError, match="none of the hands that the labels list could be used"):
        build(broken, tmp_path / "set")


def test_a_set_reads_the_same_after_it_moved(raw: Fixture, tmp_path: Path) -> None:
    build(raw, tmp_path / "here")
    before = _ids(islice(TrainingStream({str(tmp_path / "here"): 1.0}).iterate(), 60))
    (tmp_path / "here").rename(tmp_path / "there")
    assert _ids(islice(TrainingStream({storage.join(tmp_path, "there"): 1.0}).iterate(), 60)) == before


def test_samples_arrive_whole(raw: Fixture, tmp_path: Path) -> None:
    build(raw, tmp_path)
    for s in ShardSet.open(str(tmp_path)):
        assert isinstance(s.sample, HandSample)
        s.sample.validate()
        np.testing.assert_allclose(s.sample.joints_cam_m, raw.truths[s.sample.key].joints_cam_m, atol=1e-6)
