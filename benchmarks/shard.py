"""Throughput and memory of building image shards, against copying the same bytes and against a plain loop.

    python benchmarks/shard.py             # 1,000 and 4,000 hands of 224 px, 500 of 640 x 480
    python benchmarks/shard.py 224 2000    # width of the pictures, hands

Pictures in FreiHAND's published layout are generated. In the same run, each in a process of its own, in turn, with the
pictures out of the page cache before each; seconds of CPU and of the clock, the best of several rounds:

* copy: read every picture in the order of the plan, write the bytes in pieces of a shard's size, fsync. The bound;
* ours: `maskhand shard`'s builder in one process (check, validation, labels, tars, sha256, records, manifest);
* plain: a loop that decodes each picture with Pillow to see that it can be, and writes it with `numpy.savez` and `json`
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
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from maskhand.catalog import DatasetSpec, load_spec

SHARD, ROUNDS = 250, 2
CASES = ((224, 1000), (224, 4000), (640, 500))


def spec() -> DatasetSpec:
    return load_spec("freihand_synth").model_copy(update={"shard_size": SHARD, "images_per_annotation": {}})


def write_raw(folder: Path, width: int, hands: int) -> None:
    rng = np.random.default_rng(0)
    height = width if width == 224 else width * 3 // 4
    (folder / "training" / "rgb").mkdir(parents=True)
    noise = rng.normal(0, 2, (height, width, 3))
    for k in range(hands):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        picture = np.clip(smooth + np.roll(noise, k, 0), 0, 255).astype(np.uint8)
        file = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        (folder / "training" / "rgb" / f"{k:08d}.jpg").write_bytes(file)
    lists: dict[str, Any] = {"K": [[[500.0, 0, width / 2], [0, 500.0, height / 2], [0, 0, 1]]] * hands}
    lists["xyz"] = rng.normal([0, 0, 0.7], 0.03, (hands, 21, 3)).tolist()
    lists["mano"] = rng.normal(0, 0.1, (hands, 1, 61)).tolist()
    for name, values in lists.items():
        (folder / f"training_{name}.json").write_text(json.dumps(values))


def evict(folder: Path) -> None:
    """Put the pictures out of the page cache."""
    for path in folder.rglob("*.jpg"):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def ours(raw: Path, out: Path, plan: list[list[int]]) -> None:
    from maskhand.shards.build import build_shards

    manifest = build_shards(spec(), str(raw), "training", str(out))
    assert manifest.count == sum(map(len, plan)), manifest.rejects


def copy(raw: Path, out: Path, plan: list[list[int]]) -> None:
    out.mkdir()
    for number, positions in enumerate(plan):
        pieces = [(raw / "training" / "rgb" / f"{k:08d}.jpg").read_bytes() for k in positions]
        with open(out / f"{number}.tar", "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())


def plain(raw: Path, out: Path, plan: list[list[int]]) -> None:
    out.mkdir()
    lists = {name: json.loads((raw / f"training_{name}.json").read_text()) for name in ("K", "xyz", "mano")}
    for number, positions in enumerate(plan):
        with tarfile.open(out / f"{number}.tar", "w") as tar:
            for k in positions:
                data = (raw / "training" / "rgb" / f"{k:08d}.jpg").read_bytes()
                with Image.open(io.BytesIO(data)) as image:
                    image.load()
                arrays = io.BytesIO()
                np.savez(arrays, **{name: np.array(values[k]) for name, values in lists.items()})
                facts = json.dumps({"index": k, "sha256": hashlib.sha256(data).hexdigest()}).encode()
                for end, content in (("jpg", data), ("json", facts), ("npz", arrays.getvalue())):
                    info = tarfile.TarInfo(f"{k:08d}.{end}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        os.sync()


WAYS = {"copy": copy, "ours": ours, "plain": plain}


def measure(way: str, raw: Path, out: Path) -> None:
    """Print seconds and MB of one way; imports and the plan come before."""
    import maskhand.shards.build  # noqa: F401  (its imports are not what is measured)

    if way == "ours":  # the first tar imports it
        import webdataset  # noqa: F401

    from maskhand.adapters import open_adapter
    from maskhand.shards.plan import make_plan

    shards = make_plan(spec(), "training", open_adapter(spec(), str(raw), "training").plan(), 0).shards
    plan = [shard.tolist() for shard in shards]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, clock = time.process_time(), time.perf_counter()
    WAYS[way](raw, out, plan)
    seconds = [time.process_time() - cpu, time.perf_counter() - clock]
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"cpu": seconds[0], "clock": seconds[1], "peak_mb": peak}))


def compare(width: int, hands: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        raw, out = Path(scratch) / "raw", Path(scratch) / "out"
        write_raw(raw, width, hands)
        size_mb = sum(path.stat().st_size for path in raw.rglob("*.jpg")) / 1e6
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(ROUNDS):
            for way, rounds in found.items():
                shutil.rmtree(out, ignore_errors=True)
                evict(raw)
                command = [sys.executable, __file__, "--measure", way, str(raw), str(out)]
                rounds.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    best = {way: {key: min(r[key] for r in rounds) for key in rounds[0]} for way, rounds in found.items()}
    for way, got in best.items():
        print(
            f"{width:5d} {hands:6d} {size_mb:6.0f}  {way:5} {got['cpu'] / hands * 1e3:8.3f} "
            f"{got['clock'] / hands * 1e3:9.3f} {size_mb / got['clock']:6.0f} "
            f"{best['copy']['clock'] / got['clock']:8.2f} {best['plain']['cpu'] / got['cpu']:13.2f} "
            f"{got['peak_mb']:8.0f}",
            flush=True,
        )


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        return measure(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    print("width  hands     MB  way   CPU ms/hand  ms/hand   MB/s  of copy  plain CPU / own  peak MB")
    for width, hands in [(int(sys.argv[1]), int(sys.argv[2]))] if len(sys.argv) == 3 else CASES:
        compare(width, hands)


if __name__ == "__main__":
    main()
