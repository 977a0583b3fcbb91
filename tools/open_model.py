"""Bring a trained model into the form that ships, `maskhand/models/open_model/`.

    python -m tools.open_model EXPORT TOKENIZER [--assets workspace/assets]

EXPORT is the exported and calibrated folder of a training of the recipe `open_model`, TOKENIZER that of its VQ-MANO.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from maskhand.fetched_models import hand_models
from maskhand.models.open_model import pack
from maskhand.shipped_models import OPEN_MODEL, OPEN_WEIGHTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--assets", type=Path, default=Path("workspace/assets"), help="where the detector's files are")
    parser.add_argument("--out", type=Path, default=OPEN_MODEL)
    options = parser.parse_args()
    pack(options.export, options.tokenizer, hand_models(options.assets).landmark, options.out)
    print(f"{options.out}: {(options.out / OPEN_WEIGHTS.name).stat().st_size:,} bytes of weights")


if __name__ == "__main__":
    main()
