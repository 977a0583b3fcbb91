"""What planning costs, in time and memory, on generated label files of the official forms.

    python benchmarks/plan_memory.py                              # every case
    python benchmarks/plan_memory.py interhand26m 20000 200000    # one case, of these sizes

Only what planning reads is written: no images, no labels of single frames. JSON files are also read by `json.load`,
which is what a plain reader starts with, in the same run. Each way runs in a process of its own (Linux); memory is the
peak above what was resident before, time is CPU time.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import pickle
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.adapters import open_adapter
from maskhand.adapters.layouts.dexycb_splits import SERIALS
from maskhand.adapters.readers.json_rows import read_json_rows
from maskhand.catalog import load_spec
from maskhand.shards.plan import make_plan

VIEWS = 80
"""Images of one captured frame of InterHand2.6M, about as in the official training split."""
HAND_SHARE = 1 / 6
"""Of COCO-WholeBody's hands that are annotated: 0.3 a person."""
DEXYCB_FRAMES = 73
"""Per sequence: 1000 x 73 x 8 = 584,000 images in all, DexYCB has 582,000."""


def write_interhand26m(folder: Path, images: int) -> None:
    """`images` interacting images, written record by record in the official structure."""
    rng = random.Random(0)
    labels = folder / "annotations" / "train"
    labels.mkdir(parents=True)
    flags = lambda: [[int(rng.random() < 0.9)] for _ in range(42)]  # noqa: E731
    place = lambda k: (k // VIEWS % 27, f"4{k % VIEWS:05d}", 1000 + k // VIEWS)  # noqa: E731
    with open(labels / "InterHand2.6M_train_data.json", "w") as file:
        for part in ("images", "annotations"):
            file.write('{"images": [' if part == "images" else '], "annotations": [')
            for k in range(images):
                capture, camera, frame = place(k)
                name = f"Capture{capture}/0266_dh_pray/cam{camera}/image{frame}.jpg"
                image = {"id": k, "file_name": name, "width": 334, "height": 512, "capture": capture, "subject": 2}
                image |= {"seq_name": "0266_dh_pray", "camera": camera, "frame_idx": frame}
                annotation = {"id": k, "image_id": k, "bbox": [rng.uniform(0, 300) for _ in range(4)]}
                annotation |= {"joint_valid": flags(), "hand_type": "interacting", "hand_type_valid": 1}
                file.write((", " if k else "") + json.dumps(image if part == "images" else annotation))
        file.write("]}")
    cameras: dict[str, Any] = {}
    joints: dict[str, Any] = {}
    for k in range(images):
        capture, camera, frame = place(k)
        views = cameras.setdefault(str(capture), {"campos": {}, "camrot": {}, "focal": {}, "princpt": {}})
        views["campos"][camera], views["camrot"][camera] = [0.0, 0.0, -1e3], [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]
        views["focal"][camera], views["princpt"][camera] = [1250.0, 1250.0], [170.0, 250.0]
        if k % VIEWS == 0:
            world = [[rng.uniform(-500, 500) for _ in range(3)] for _ in range(42)]
            entry = {"world_coord": world, "joint_valid": flags(), "hand_type": "interacting", "hand_type_valid": True}
            joints.setdefault(str(capture), {})[str(frame)] = entry
    (labels / "InterHand2.6M_train_camera.json").write_text(json.dumps(cameras))
    (labels / "InterHand2.6M_train_joint_3d.json").write_text(json.dumps(joints))


def write_coco_wholebody(folder: Path, persons: int) -> None:
    rng = random.Random(0)
    (folder / "annotations").mkdir(parents=True)
    point = lambda: [round(rng.uniform(0, 640), 4), round(rng.uniform(0, 480), 4), 1.0]  # noqa: E731
    with open(folder / "annotations" / "coco_wholebody_train_v1.0.json", "w") as file:
        file.write('{"info": {}, "images": [')
        for k in range(persons):
            image = {"license": 3, "file_name": f"{k:012d}.jpg", "coco_url": f"train2017/{k:012d}.jpg", "id": k}
            file.write((", " if k else "") + json.dumps(image | {"height": 480, "width": 640}))
        file.write('], "annotations": [')
        for k in range(persons):
            person = {"id": k, "image_id": k, "area": rng.uniform(0, 9e4), "keypoints": [1] * 51, "category_id": 1}
            person |= {"face_valid": False, "face_kpts": [0.0] * 204, "foot_kpts": [0.0] * 18}
            for side in ("left", "right"):
                valid = rng.random() < HAND_SHARE
                points = [number for _ in range(21) for number in point()] if valid else [0.0] * 63
                person |= {f"{side}hand_valid": valid, f"{side}hand_kpts": points, f"{side}hand_box": [0.0] * 4}
            file.write((", " if k else "") + json.dumps(person))
        file.write("]}")


def write_ho3d_v3(folder: Path, frames: int) -> None:
    (folder / "train.txt").write_text("".join(f"ABF{k % 55}/{k // 55:04d}\n" for k in range(frames)))


def write_dexycb(folder: Path, sequences: int) -> None:
    """Of ten subjects each."""
    for subject in range(1, 11):
        name = f"202007{subject:02d}-subject-{subject:02d}"
        for sequence in range(sequences // 10):
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


def write_rhd(folder: Path, images: int) -> None:
    rng = np.random.default_rng(0)
    (folder / "training").mkdir()
    annotations = {
        k: {"xyz": rng.random((42, 3)), "uv_vis": rng.random((42, 3)), "K": np.eye(3)} for k in range(images)
    }
    (folder / "training" / "anno_training.pickle").write_bytes(pickle.dumps(annotations, protocol=2))


def write_meshes(folder: Path, meshes: int) -> None:
    """HO-3D's evaluation meshes, a row each."""
    rows = np.random.default_rng(0).random((meshes, 778, 3)).round(9).tolist()
    (folder / "evaluation_verts.json").write_text(json.dumps(rows))


def plan(dataset: str, split: str, folder: Path) -> int:
    """The number of hands."""
    spec = load_spec(dataset)
    made = make_plan(spec, split, open_adapter(spec, str(folder), split).plan(), seed=0)
    return sum(len(shard) for shard in made.shards)


def json_load(folder: Path) -> list[Any]:
    return [json.loads(path.read_bytes()) for path in sorted(folder.rglob("*.json"))]


def json_load_as_numbers(folder: Path) -> list[np.ndarray]:
    return [np.array(rows, np.float32) for rows in json_load(folder)]


def row_by_row(folder: Path) -> Any:
    return read_json_rows(str(folder / "evaluation_verts.json")).rows


@dataclass(frozen=True)
class Case:
    write: Callable[[Path, int], None]
    size: int
    """Unless others are asked for: HO-3D's, DexYCB's and RHD's official ones, the others' smaller."""
    ways: Mapping[str, Callable[[Path], Any]]


CASES = {
    "ho3d_v3": Case(write_ho3d_v3, 83_325, {"plan": partial(plan, "ho3d_v3", "train")}),
    "dexycb": Case(write_dexycb, 1000, {"plan": partial(plan, "dexycb", "s0_train")}),
    "rhd": Case(write_rhd, 41_258, {"plan": partial(plan, "rhd", "training")}),
    "interhand26m": Case(
        write_interhand26m, 20_000, {"plan": partial(plan, "interhand26m", "train"), "json.load": json_load}
    ),
    "coco_wholebody": Case(
        write_coco_wholebody, 20_000, {"plan": partial(plan, "coco_wholebody", "train"), "json.load": json_load}
    ),
    "meshes": Case(write_meshes, 1000, {"row by row": row_by_row, "json.load": json_load_as_numbers}),
}


def resident_mb(field: str) -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1024


def report(name: str, size: int, way: str, folder: Path) -> None:
    disk_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget earlier peaks
    before, start = resident_mb("VmRSS"), time.process_time()
    result = CASES[name].ways[way](folder)
    seconds, peak = time.process_time() - start, resident_mb("VmHWM") - before
    hands = f"{result:11,d}" if isinstance(result, int) else " " * 11
    print(f"{name:15}{size:11,d} {disk_mb:10.0f}  {way:10} {hands} {seconds:7.1f} {peak:8.0f}", flush=True)


def in_a_process(work: Callable[..., None], *arguments: object) -> None:
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


def main() -> None:
    names, sizes = sys.argv[1:2] or CASES, [int(word) for word in sys.argv[2:]]
    print(f"{'case':15}{'size':>11} {'MB on disk':>10}  {'way':10} {'hands':>11} {'CPU s':>7} {'peak MB':>8}")
    for case in names:
        for size in sizes or [CASES[case].size]:
            with tempfile.TemporaryDirectory() as scratch:
                in_a_process(CASES[case].write, Path(scratch), size)
                for way in CASES[case].ways:
                    in_a_process(report, case, size, way, Path(scratch))


if __name__ == "__main__":
    main()
