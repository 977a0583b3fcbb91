"""A program that builds shards with a pause after each one, for tests that kill it: RAW_DIR SET_URI."""

from __future__ import annotations

import sys
import time

from maskhand.catalog import load_spec
from maskhand.shards.build import build_shards

build_shards(
    load_spec("freihand_synth").model_copy(update={"shard_size": 4}),
    sys.argv[1],
    "training",
    sys.argv[2],
    on_shard=lambda _record: time.sleep(0.05),
)
