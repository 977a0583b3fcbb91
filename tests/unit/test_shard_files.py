"""The files of shards: tars and npz files, written and read as the usual libraries do; work ahead in order."""

from __future__ import annotations

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from maskhand.sample import SampleError
from maskhand.shards.layout import ShardError
from maskhand.shards.npz import decode_all, decode_arrays, encode_arrays
from maskhand.shards.read_ahead import in_order
from maskhand.shards.untar import decode_tar, plain_tar, webdataset_tar
from support.published_layouts import Fixture
from support.shard_parts import build, write_raw


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Fixture:
    """23 hands; the image of hand 7 is cut and that of hand 11 is missing."""
    return write_raw(tmp_path_factory.mktemp("raw"))


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


def test_arrays_of_objects_are_refused() -> None:
    with pytest.raises(ShardError, match="'x' holds Python objects"):
        encode_arrays({"x": np.array([{}, None])})


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
    build(raw, tmp_path)
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
