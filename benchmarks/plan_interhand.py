"""Time and memory of planning InterHand2.6M against loading the same files whole, on generated files of its form.

    python benchmarks/plan_interhand.py 20000 200000

Each reader runs in a process of its own; memory is the peak of its resident set above that of the bare interpreter with
the imports. Time is CPU time. "whole" is `json.load` of the three files, which is what a plain reader starts with.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

VIEWS = 80
"""Pictures of one captured frame, about as in the official training split."""


def write(folder: Path, pictures: int) -> None:
    """`pictures` interacting pictures, written record by record in the official structure."""
    rng = random.Random(0)
    labels = folder / "annotations" / "train"
    labels.mkdir(parents=True)
    flags = lambda: [[int(rng.random() < 0.9)] for _ in range(42)]  # noqa: E731
    place = lambda k: (k // VIEWS % 27, f"4{k % VIEWS:05d}", 1000 + k // VIEWS)  # noqa: E731
    with open(labels / "InterHand2.6M_train_data.json", "w") as file:
        for part in ("images", "annotations"):
            file.write('{"images": [' if part == "images" else '], "annotations": [')
            for k in range(pictures):
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
    for k in range(pictures):
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


def measure(folder: Path, how: str) -> None:
    """Print CPU seconds and peak MB of one way to read the files."""
    from maskhand.adapters import open_adapter
    from maskhand.catalog import load_spec
    from maskhand.shards.plan import make_plan

    spec = load_spec("interhand26m")
    before, started = peak_mb(), time.process_time()
    if how == "whole":
        kept = [json.loads(path.read_bytes()) for path in sorted((folder / "annotations" / "train").iterdir())]
        hands = 2 * len(kept[1]["annotations"])
    else:
        raw = open_adapter(spec, str(folder), "train").plan()
        plan = make_plan(spec, "train", raw, seed=0)
        hands = sum(len(shard) for shard in plan.shards)
    seconds, peak = time.process_time() - started, peak_mb() - before
    print(json.dumps({"hands": hands, "seconds": seconds, "peak_mb": peak}))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--measure":
        return measure(Path(sys.argv[3]), sys.argv[2])
    print(f"{'pictures':>9} {'MB on disk':>10}  {'way':6} {'CPU s':>7} {'peak MB':>8} {'MB/s':>6} {'bytes/hand':>10}")
    for pictures in [int(word) for word in sys.argv[1:]] or [20_000]:
        with tempfile.TemporaryDirectory() as scratch:
            write(Path(scratch), pictures)
            size = sum(path.stat().st_size for path in Path(scratch).rglob("*.json")) / 1e6
            for how in ("plan", "whole"):
                command = [sys.executable, __file__, "--measure", how, scratch]
                got = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                seconds, peak = got["seconds"], got["peak_mb"]
                figures = f"{seconds:7.1f} {peak:8.0f} {size / seconds:6.0f} {peak * 2**20 / got['hands']:10.0f}"
                print(f"{pictures:9d} {size:10.0f}  {how:6} {figures}", flush=True)


if __name__ == "__main__":
    main()
