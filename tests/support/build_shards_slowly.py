"""A program that builds shards with a pause after each one, for a test that kills it: RAW_DIR SET_URI."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from maskhand.catalog import load_spec
from maskhand.shards.build import build_shards


def build(raw_dir: Path, set_uri: Path, pause_s: float) -> None:
    spec = load_spec("freihand_synth").model_copy(update={"shard_size": 4, "images_per_annotation": {"training": 4}})
    build_shards(spec, str(raw_dir), "training", str(set_uri), on_shard=lambda _record: time.sleep(pause_s))


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]), pause_s=0.1)
