"""A shard set without maskhand: `python examples/read_shards.py workspace/shards/freihand_synth/training`.

docs/data_format.md says what each array is. Sidecars (`mano`, `keypoints.*`) are tars of the same numbers and keys.
"""

import io
import sys
from pathlib import Path

import numpy as np
import webdataset as wds


def arrays(npz: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(npz)) as file:
        return dict(file)


folder = Path(sys.argv[1])
sidecars = [part for part in sorted(folder.iterdir()) if part.is_dir() and part.name != "images"]
for tar in sorted((folder / "images").glob("*.tar")):
    beside = {}
    for part in sidecars:
        samples = wds.WebDataset(str(part / tar.name), shardshuffle=False)
        beside[part.name] = {sample["__key__"]: arrays(sample["npz"]) for sample in samples}
    for sample in wds.WebDataset(str(tar), shardshuffle=False).decode(only=["json"]):
        key, facts, labels = sample["__key__"], sample["json"], arrays(sample["npz"])
        found = {part: sorted(entries[key]) for part, entries in beside.items() if key in entries}
        image = sample.get("jpg", sample.get("png"))
        print(key, facts["side"], facts["image_size_px"], f"{len(image)} bytes", sorted(labels), found)
