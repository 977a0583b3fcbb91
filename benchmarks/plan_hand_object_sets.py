"""What planning costs at the official sizes: HO-3D v3, DexYCB and RHD, and HO-3D's evaluation meshes (a JSON file).

    python benchmarks/plan_hand_object_sets.py            # all, a minute
    python benchmarks/plan_hand_object_sets.py meshes     # one of ho3d_v3, dexycb, rhd, meshes

Only what planning reads is written: lists, YAML and one pickle, no pictures and no labels of single frames. Each case
runs in a process of its own (Linux); memory is the peak above what was resident before, time is CPU time. The
meshes are read twice, row by row and with json.load, in the same run.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.adapters import open_adapter
from maskhand.adapters.dexycb_splits import SERIALS
from maskhand.adapters.json_rows import read_json_rows
from maskhand.catalog import load_spec

MESHES = 1000
DEXYCB_FRAMES = 73
"""Per sequence: 1000 x 73 x 8 = 584,000 pictures in all, DexYCB has 582,000."""


def resident_mb(field: str) -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1024


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, CPU seconds, and by how many MB the peak lies above what was resident before."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget earlier peaks, those of the parent included
    before, start = resident_mb("VmRSS"), time.process_time()
    result = work()
    return result, time.process_time() - start, resident_mb("VmHWM") - before


def plan(name: str, folder: Path, split: str) -> None:
    adapter = open_adapter(load_spec(name), str(folder), split)
    raw, seconds, memory = measured(adapter.plan)
    count = len(raw.keys)
    size = len(pickle.dumps(raw.item(count // 2)))
    print(
        f"{name}/{split}: {count:,} hands planned in {seconds:.1f} s CPU, {memory:.0f} MB "
        f"({1e6 * memory / count:.0f} bytes a hand); an item pickles to {size:,} bytes",
        flush=True,
    )


def ho3d_v3(folder: Path) -> None:
    frames = load_spec("ho3d_v3").splits["train"] or 0
    (folder / "train.txt").write_text("".join(f"ABF{k % 55}/{k // 55:04d}\n" for k in range(frames)))
    plan("ho3d_v3", folder, "train")


def dexycb(folder: Path) -> None:
    for subject in range(1, 11):
        name = f"202007{subject:02d}-subject-{subject:02d}"
        for sequence in range(100):
            home = folder / name / f"202007{subject:02d}_{100000 + sequence}"
            home.mkdir(parents=True)
            side = "left" if sequence % 2 else "right"
            meta = f"num_frames: {DEXYCB_FRAMES}\nmano_calib: [{name}_{side}]\nmano_sides: [{side}]\n"
            (home / "meta.yml").write_text(meta)
        for side in ("right", "left"):
            path = folder / "calibration" / f"mano_{name}_{side}" / "mano.yml"
            path.parent.mkdir(parents=True)
            path.write_text(f"betas: {[0.1] * 10}\n")
    for serial in SERIALS:
        path = folder / "calibration" / "intrinsics" / f"{serial}_640x480.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("color: {fx: 616.6, fy: 616.3, ppx: 308.5, ppy: 248.5}\n")
    plan("dexycb", folder, "s0_train")


def rhd(folder: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = load_spec("rhd").splits["training"] or 0
    (folder / "training").mkdir()
    annotations = {
        k: {"xyz": rng.random((42, 3)), "uv_vis": rng.random((42, 3)), "K": np.eye(3)} for k in range(pictures)
    }
    (folder / "training" / "anno_training.pickle").write_bytes(pickle.dumps(annotations, protocol=2))
    del annotations
    plan("rhd", folder, "training")


def meshes(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((MESHES, 778, 3)).round(9).tolist()
    path = folder / "evaluation_verts.json"
    path.write_text(json.dumps(rows))
    del rows
    print(f"meshes: {MESHES:,} of the 20,137 of HO-3D v3, a file of {path.stat().st_size / 1e6:.0f} MB")
    for read in (row_by_row, json_load):
        child(report, read, path)


def report(read: Callable[[Path], Any], path: Path) -> None:
    _, seconds, memory = measured(lambda: read(path))
    print(f"meshes, {read.__name__}: {seconds:.2f} s CPU, {memory:.0f} MB", flush=True)


def row_by_row(path: Path) -> Any:
    return read_json_rows(str(path)).rows


def json_load(path: Path) -> Any:
    return np.array(json.loads(path.read_bytes()), np.float32)


def case(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        CASES[name](Path(folder))


def child(work: Callable[..., None], *arguments: object) -> None:
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


CASES = {"ho3d_v3": ho3d_v3, "dexycb": dexycb, "rhd": rhd, "meshes": meshes}

if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        child(case, name)
