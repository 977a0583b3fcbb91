"""Throughput and memory of building image shards, against copying the same bytes and against a plain loop.

    python benchmarks/shard.py             # 1,000 and 4,000 hands of 224 px, 500 of 640 x 480, 160 of 1500 x 1000
    python benchmarks/shard.py 224 2000    # width of the images, hands
    python benchmarks/shard.py 224 2000 s3://bucket/scratch    # in a store; docs/operations.md has one

Images in FreiHAND's published layout are generated. In the same run, each in a process of its own, in turn; the best
of several rounds, with the images out of the page cache before each (cold) or in it (warm), or in a store, with one
process and with two:

* copy: read every image in the order of the plan, write as many bytes as the tars have, in a file per shard, fsync.
  The bound, reading ahead in threads as the builder does or (copy1, local files) not, whichever is faster;
* checked: the same, and every JPEG read to its end for damage. The bound of everything that checks images;
* ours: the builder of `maskhand shard` (check, conversion, validation, labels, tars, sha256, records, manifest);
  with Ray, too, whose session is started before;
* plain: a loop that decodes each image with Pillow to see that it can be, and writes it with `numpy.savez` and `json`
  through `tarfile`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from maskhand import storage
from maskhand.adapters.readers.whole_images import whole_image
from maskhand.catalog import DatasetSpec, load_spec
from maskhand.shards.build import build_shards
from maskhand.shards.part import serial_map
from maskhand.shards.read_ahead import in_order

SHARDS, ROUNDS, READERS, PIECE = 8, 3, 4, 8
CASES = ((224, 1000), (224, 4000), (640, 500), (1500, 160))


def spec(hands: int) -> DatasetSpec:
    return load_spec("freihand_synth").model_copy(update={"shard_size": hands // SHARDS, "images_per_annotation": {}})


def write_raw(folder: Path, width: int, hands: int) -> None:
    rng = np.random.default_rng(0)
    height = width if width == 224 else width * 3 // 4
    (folder / "training" / "rgb").mkdir(parents=True)
    noise = rng.normal(0, 2, (height, width, 3))
    for k in range(hands):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        image = np.clip(smooth + np.roll(noise, k, 0), 0, 255).astype(np.uint8)
        file = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        (folder / "training" / "rgb" / f"{k:08d}.jpg").write_bytes(file)
    lists: dict[str, Any] = {"K": [[[500.0, 0, width / 2], [0, 500.0, height / 2], [0, 0, 1]]] * hands}
    lists["xyz"] = rng.normal([0, 0, 0.7], 0.03, (hands, 21, 3)).tolist()
    lists["mano"] = rng.normal(0, 0.1, (hands, 1, 61)).tolist()
    for name, values in lists.items():
        (folder / f"training_{name}.json").write_text(json.dumps(values))


def evict(folder: Path) -> None:
    """Put the images out of the page cache."""
    for path in folder.rglob("*.jpg"):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


Shard = tuple[str, str, list[int], int]
"""Raw folder, file to write, positions in it, bytes per hand beside the image."""


def read_images(raw: str, check: bool, positions: Sequence[int]) -> list[bytes]:
    found = []
    for k in positions:
        found.append(storage.read_bytes(f"{raw}/training/rgb/{k:08d}.jpg"))
        if check:
            whole_image(found[-1])
    return found


def copy_shard(shard: Shard, *, check: bool = False, ahead: bool = True) -> None:
    raw, target, positions, extra = shard
    pieces = [positions[start : start + PIECE] for start in range(0, len(positions), PIECE)]
    readers = 2 * READERS if storage.is_remote(raw) else READERS
    read = partial(read_images, raw, check)
    with ThreadPoolExecutor(readers) as pool, storage.atomic_writer(target) as write:
        for images in in_order(pool, read, pieces, 2 * readers) if ahead else map(read, pieces):
            write(b"".join([*images, bytes(extra * len(images))]))


def plain_shard(shard: Shard) -> None:
    raw, target, positions = Path(shard[0]), shard[1], shard[2]
    lists = {name: json.loads((raw / f"training_{name}.json").read_text()) for name in ("K", "xyz", "mano")}
    with tarfile.open(target, "w") as tar:
        for k in positions:
            data = (raw / "training" / "rgb" / f"{k:08d}.jpg").read_bytes()
            with Image.open(io.BytesIO(data)) as image:
                image.load()
            arrays = io.BytesIO()
            np.savez(arrays, **{name: np.array(values[k]) for name, values in lists.items()})  # type: ignore[arg-type]
            facts = json.dumps({"index": k, "sha256": hashlib.sha256(data).hexdigest()}).encode()
            for end, content in (("jpg", data), ("json", facts), ("npz", arrays.getvalue())):
                info = tarfile.TarInfo(f"{k:08d}.{end}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    os.sync()


WAYS: dict[str, Callable[[Shard], None]] = {
    "copy": copy_shard,
    "copy1": partial(copy_shard, ahead=False),
    "checked": partial(copy_shard, check=True),
    "plain": plain_shard,
}


@contextmanager
def mapper_of(workers: str) -> Iterator[Callable[..., Any]]:
    """`1`, `2` processes or `ray`; they are there and have imported everything before the clock starts."""
    if workers == "1":
        yield serial_map
    elif workers == "ray":
        from maskhand.cluster.map import map_shards
        from maskhand.cluster.session import ray_session

        with ray_session():
            map_shards(_warm_up, [0.0] * 4)
            yield map_shards
    else:
        with ProcessPoolExecutor(int(workers)) as pool:
            list(pool.map(_warm_up, [0.5] * int(workers)))
            yield lambda fn, items, **_: list(pool.map(fn, items))


def _warm_up(seconds: float) -> None:
    import maskhand.shards.build  # noqa: F401

    time.sleep(seconds)


def measure(way: str, workers: str, raw: str, out: str, hands: int, extra: int) -> None:
    """Print seconds and MB of one way; imports, workers and the plan of the copies come before."""
    from maskhand.adapters import open_adapter
    from maskhand.shards.plan import make_plan

    plan = make_plan(spec(hands), "training", open_adapter(spec(hands), raw, "training").plan(), 0)
    shards: list[Shard] = [(raw, f"{out}/{n}.tar", shard.tolist(), extra) for n, shard in enumerate(plan.shards)]
    if not storage.is_remote(out):
        Path(out).mkdir()
    with mapper_of(workers) as mapper:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cpu, clock = time.process_time(), time.perf_counter()
        if way == "ours":
            manifest = build_shards(spec(hands), raw, "training", out, mapper=mapper)
            assert manifest.count == hands, manifest.rejects
        else:
            mapper(WAYS[way], shards)
        seconds = time.process_time() - cpu, time.perf_counter() - clock
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"cpu": seconds[0], "clock": seconds[1], "peak_mb": peak}))


def compare(width: int, hands: int, store: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        raw, out = Path(scratch) / "raw", Path(scratch) / "out"
        write_raw(raw, width, hands)
        images = sum(path.stat().st_size for path in raw.rglob("*.jpg"))
        build_shards(spec(hands), str(raw), "training", str(out))
        extra = (sum(path.stat().st_size for path in out.rglob("*.tar")) - images) // hands
        places = [str(raw), str(out)]
        if store:
            places = [f"{store.rstrip('/')}/{os.getpid()}/{name}" for name in ("raw", "out")]
            upload(raw, places[0])
        for cache in ["store"] if store else ["cold", "warm"]:
            ways = ("copy", "checked", "ours") if store else ("copy", "copy1", "checked", "ours")
            runs = [(way, workers) for workers in ("1", "2") for way in ways]
            runs += [("ours", "ray"), ("plain", "1")] if cache == "cold" else []
            best = {run: {"cpu": np.inf, "clock": np.inf, "peak_mb": np.inf} for run in runs}
            for _ in range(ROUNDS):
                for way, workers in runs:
                    remove(places[1])
                    if cache == "cold":
                        evict(raw)
                    command = [sys.executable, __file__, "--measure", way, workers, *places, str(hands), str(extra)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    got = json.loads(done.stdout.splitlines()[-1])
                    best[way, workers] = {name: min(value, got[name]) for name, value in best[way, workers].items()}
            case = f"{width:5d} {hands:6d} {(images / hands + extra) / 1e3:4.0f} {cache:>5}"
            for way, workers in runs:
                report(case, way, workers, hands, best)
        if store:
            for place in places:
                remove(place)


def upload(folder: Path, uri: str) -> None:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    with ThreadPoolExecutor(2 * READERS) as pool:
        targets = [f"{uri}/{path.relative_to(folder)}" for path in paths]
        list(pool.map(storage.write_bytes_atomic, targets, map(Path.read_bytes, paths)))


def remove(place: str) -> None:
    if not storage.is_remote(place):
        return shutil.rmtree(place, ignore_errors=True)
    with ThreadPoolExecutor(2 * READERS) as pool:
        list(pool.map(storage.delete, storage.list_uris(place)))


def report(case: str, way: str, workers: str, hands: int, best: dict[tuple[str, str], dict[str, float]]) -> None:
    got, beside = best[way, workers], "2" if workers == "ray" else workers
    bound = min(best[copy, beside]["clock"] for copy in ("copy", "copy1") if (copy, beside) in best)
    alone = workers == "1"
    # Of several processes this one sees neither.
    cpu, peak = (f"{got['cpu'] / hands * 1e3:8.3f}", f"{got['peak_mb']:7.0f}") if alone else (f"{'':8}", "")
    print(
        f"{case}  {workers:>3}  {way:7} {cpu} {got['clock'] / hands * 1e3:8.3f} {bound / got['clock']:8.2f} "
        f"{best['checked', beside]['clock'] / got['clock']:11.2f} {peak}",
        flush=True,
    )


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        way, workers, raw, out, hands, extra = sys.argv[2:]
        return measure(way, workers, raw, out, int(hands), int(extra))
    print("width  hands kB/hand workers way   CPU ms/hand  ms/hand  of copy  of checked  peak MB")
    if len(sys.argv) > 1:
        return compare(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
    for case in CASES:
        compare(*case)


if __name__ == "__main__":
    main()
