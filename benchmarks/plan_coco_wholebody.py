"""Time and memory of planning COCO-WholeBody against loading its file whole, on generated files of its form.

    python benchmarks/plan_coco_wholebody.py 20000 260000

The numbers are persons; the official training file has about 260,000, with 0.3 annotated hands each. Measured as in
`plan_interhand.py`: CPU time, and the peak of the resident set above that of the interpreter with the imports.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from plan_interhand import peak_mb

HAND_SHARE = 1 / 6


def write(folder: Path, persons: int) -> None:
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


def measure(folder: Path, how: str) -> None:
    from maskhand.adapters import open_adapter
    from maskhand.catalog import load_spec
    from maskhand.shards.plan import make_plan

    spec = load_spec("coco_wholebody")
    before, started = peak_mb(), time.process_time()
    if how == "whole":
        kept = json.loads((folder / "annotations" / "coco_wholebody_train_v1.0.json").read_bytes())
        assert kept["annotations"]
    else:
        make_plan(spec, "train", open_adapter(spec, str(folder), "train").plan(), seed=0)
    print(json.dumps({"seconds": time.process_time() - started, "peak_mb": peak_mb() - before}))


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--measure":
        return measure(Path(sys.argv[3]), sys.argv[2])
    print(f"{'persons':>9} {'MB on disk':>10}  {'way':6} {'CPU s':>7} {'peak MB':>8} {'MB/s':>6}")
    for persons in [int(word) for word in sys.argv[1:]] or [20_000]:
        with tempfile.TemporaryDirectory() as scratch:
            write(Path(scratch), persons)
            size = sum(path.stat().st_size for path in Path(scratch).rglob("*.json")) / 1e6
            for how in ("plan", "whole"):
                command = [sys.executable, __file__, "--measure", how, scratch]
                got = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                seconds, peak = got["seconds"], got["peak_mb"]
                figures = f"{seconds:7.1f} {peak:8.0f} {size / seconds:6.0f}"
                print(f"{persons:9d} {size:10.0f}  {how:6} {figures}", flush=True)


if __name__ == "__main__":
    main()
