"""Where the time of `maskhand predict` goes, and what hands of many pictures gain together. CPU seconds, as ratios.

    python benchmarks/predict.py FOLDER [--pictures 32] [--assets workspace/assets]

FOLDER holds pictures. Decoding and finding are done picture by picture; hands are reconstructed each picture alone, and
all together, by fit and by fit and open model.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from maskhand.annotate.hand_finder import find_hands
from maskhand.models.bundle import ModelBundle
from maskhand.models.open_folder import open_model_folder
from maskhand.predict import Reconstruction, SeenImage, read_photo, reconstruct_hands
from maskhand.predict.camera import checked_camera
from maskhand.predict.detect import detect_hands
from maskhand.predict.inputs import find_sources


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--assets", type=Path, default=Path("workspace/assets"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sources = [s for s in find_sources([options.folder]).files if s.kind == "picture"][: options.pictures]
    find_hands(read_photo(sources[0].path), options.assets)  # loads the detector

    begin = time.process_time()
    images = [read_photo(source.path) for source in sources]
    decoded = time.process_time()
    seen = [
        SeenImage(
            image,
            detect_hands(image, None, None, "litert-hand", options.assets),
            checked_camera(image.shape[1::-1], None),
        )
        for image in images
    ]
    found = time.process_time()
    hands = sum(len(image.detected) for image in seen)
    count = len(seen)
    print(f"{count} pictures of {images[0].shape[1]} x {images[0].shape[0]}, {hands} hands; one thread, CPU seconds")
    print(f"decode a picture         {(decoded - begin) / count:.3f} s")
    print(f"find its hands           {(found - decoded) / count:.3f} s")
    bundle = ModelBundle.load(open_model_folder(options.assets), device=torch.device("cpu"))
    for reconstruction in (Reconstruction(None, "fit"), Reconstruction(bundle, "refine")):
        list(reconstruct_hands(seen[:1], reconstruction))
        begin = time.process_time()
        for image in seen:
            list(reconstruct_hands([image], reconstruction))
        alone = time.process_time()
        list(reconstruct_hands(seen, reconstruction))
        together = time.process_time() - alone
        print(
            f"{reconstruction.method:<6} a hand, each picture alone {(alone - begin) / hands:.3f} s; together "
            f"{together / hands:.3f} s: {(alone - begin) / together:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
