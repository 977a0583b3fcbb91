"""Damaged files of every kind end in a sentence of ours: a reject of the hands they belong to, or one error.

`MASKHAND_MUTATIONS=100 pytest tests/contract/test_mutations.py` tries more of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from maskhand import catalog
from maskhand.adapters import open_adapter, read_hand
from maskhand.adapters.readers.label_files import read_npz_fields
from maskhand.errors import MaskhandError
from maskhand.hand.model_file import OPEN_HAND_FOLDER, load_hand_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.tokenizer_files import load_tokenizer, save_tokenizer
from maskhand.predict.box_file import BoxFile
from maskhand.recipe_files import load_recipe
from maskhand.sample import SampleError
from maskhand.scoring.benchmarks import score_files
from maskhand.shards.codec import decode_sample, encode_sample
from maskhand.shards.layout import ShardError
from maskhand.shards.npz import encode_arrays
from maskhand.shards.reader import ShardSet, sidecar_entries
from maskhand.shards.sidecar import Annotator, build_sidecar
from maskhand.shards.sidecar_records import DetectedKeypoints
from maskhand.shards.verify import verify
from support.hand_sets import make_samples, write_set
from support.model_parts import small_model, small_recipe
from support.mutations import bomb, damage, npz_with_header, restore
from support.published_layouts import WRITERS
from support.published_layouts.hands import licensed_folder
from support.scoring_parts import hands, write_json

COUNT = int(os.environ.get("MASKHAND_MUTATIONS", "6"))
"""Damages for each kind of file."""
LAYOUTS = {catalog.load_spec(name).layout: name for name in catalog.names()}
"""A dataset of each layout."""


@dataclass(frozen=True)
class Door:
    """Files from outside, and the function that reads them."""

    files: list[Path]
    read: Callable[[], object]


@pytest.fixture(autouse=True)
def _licensed_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(licensed_folder(tmp_path / "mano")))


def damaged(door: Door, seed: str, allowed: type[Exception] = MaskhandError) -> Iterator[str]:
    """What each of `COUNT` damages led to; raises what is no sentence of ours."""
    rng = random.Random(seed)
    for number in range(COUNT):
        path = rng.choice(door.files)
        whole = path.read_bytes()
        try:
            kind = damage(path, rng)
            door.read()
            yield f"{kind}: read"
        except allowed as error:
            assert str(error).strip() and "\n" not in str(error), f"{seed} {number}: not one line: {error}"
            assert str(path.parent) in str(error) or path.stem in str(error), f"{seed} {number}: which file? {error}"
            yield f"{kind}: {error}"
        except Exception as error:
            raise AssertionError(
                f"{seed}: damage {number} ({kind}) of {path}: {type(error).__name__}: {error}"
            ) from error
        finally:
            restore(path, whole)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_files(tmp_path: Path, layout: str) -> None:
    spec = catalog.load_spec(LAYOUTS[layout])
    split = next(iter(spec.splits))
    raw_dir = WRITERS[layout](tmp_path / "raw", spec, split, 3).raw_dir
    images = (".jpg", ".jpeg", ".png")
    labels = [path for path in sorted(raw_dir.rglob("*")) if path.is_file() and path.suffix not in images]
    pictures = [path for path in sorted(raw_dir.rglob("*")) if path.suffix in images]

    def read() -> None:
        adapter = open_adapter(spec, str(raw_dir), split)
        plan = adapter.plan()
        for position in range(len(plan.keys)):
            try:
                sample = read_hand(adapter, plan.item(position))
            except SampleError as error:
                assert "\n" not in str(error) and plan.keys[position] in str(error)
            else:
                decode_sample(sample.key, encode_sample(sample))

    read()
    assert list(damaged(Door([*labels, *pictures[:1]], read), layout))


def test_models(tmp_path: Path) -> None:
    recipe = small_recipe()
    network = small_model(recipe)
    ModelBundle.save(tmp_path / "bundle", network, recipe, {"steps": 1})
    save_tokenizer(tmp_path / "tokenizer", network.tokenizer.state_dict(), recipe, {})
    (tmp_path / "MANO_RIGHT.pkl").write_bytes((OPEN_HAND_FOLDER / "OPEN_HAND_RIGHT.pkl").read_bytes())
    (tmp_path / "recipe.yaml").write_text("base: tiny\ntraining: {optim: {steps: 3}}\n")
    doors = {
        "bundle": Door(sorted((tmp_path / "bundle").iterdir()), lambda: ModelBundle.load(tmp_path / "bundle")),
        "tokenizer": Door(sorted((tmp_path / "tokenizer").iterdir()), lambda: load_tokenizer(tmp_path / "tokenizer")),
        "recipe": Door([tmp_path / "recipe.yaml"], lambda: load_recipe(tmp_path / "recipe.yaml")),
    }
    for name, door in doors.items():
        door.read()
        assert list(damaged(door, name))
    hand = Door([tmp_path / "MANO_RIGHT.pkl"], lambda: load_hand_model(tmp_path / "MANO_RIGHT.pkl"))
    assert list(damaged(hand, "hand", (MaskhandError, FileNotFoundError)))


def test_shard_sets(tmp_path: Path) -> None:
    samples = make_samples(3)
    write_set(str(tmp_path / "set"), samples)
    uri = str(tmp_path / "set")
    build_sidecar(uri, "keypoints.any", Annotator("any", "1"), lambda hands: [_seen(k) for k, _ in enumerate(hands)])

    def read() -> None:
        for hand in ShardSet.open(uri, ["keypoints.any"]):
            hand.keypoints("any")

    files = sorted(path for path in (tmp_path / "set").rglob("*") if path.is_file())
    read()
    assert verify(uri) == []
    assert list(damaged(Door(files, read), "shard set")) and list(damaged(Door(files, lambda: verify(uri)), "verify"))
    rng = random.Random("entries")
    entry = tmp_path / "keypoints.npz"
    for number in range(COUNT):
        entry.write_bytes(encode_arrays(_seen(number).encode()))
        damage(entry, rng)
        data = entry.read_bytes() if entry.is_file() and not entry.is_symlink() else b""
        try:
            sidecar_entries("x.tar", "keypoints.any", [("hand", {"npz": data})])
        except ShardError as error:
            assert "x.tar: sample hand" in str(error)
        finally:
            restore(entry, b"")


def _seen(seed: int) -> DetectedKeypoints:
    rng = np.random.default_rng(seed)
    return DetectedKeypoints(rng.uniform(20, 180, (21, 2)), rng.random(21))


def test_predictions_and_boxes(tmp_path: Path) -> None:
    truth, guess = hands(8, 21, 0)
    write_json(tmp_path / "evaluation_xyz.json", truth.tolist())
    write_json(tmp_path / "pred.json", [guess.tolist(), []])
    np.savez(tmp_path / "gt.npz", image_id=np.arange(8), joint_3d_m=truth)
    lines = [",".join(map(str, [k, *hand.ravel() * 1000])) for k, hand in enumerate(guess)]
    (tmp_path / "results.txt").write_text("\n".join(lines))
    box = {"image_id": 1, "category_id": 1, "bbox": [20, 20, 60, 60], "score": 0.5}
    image = {"id": 1, "file_name": "a.jpg", "width": 100, "height": 90}
    coco = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "hand"}]}
    write_json(tmp_path / "boxes.json", coco)
    doors = [
        (["evaluation_xyz.json", "pred.json"], lambda: score_files("freihand", tmp_path, tmp_path / "pred.json")),
        (["gt.npz", "results.txt"], lambda: score_files("dexycb", tmp_path / "gt.npz", tmp_path / "results.txt")),
        (["boxes.json"], lambda: BoxFile.read(tmp_path / "boxes.json").match(["a.jpg"])),
    ]
    for names, read in doors:
        read()
        assert list(damaged(Door([tmp_path / name for name in names], read), names[-1]))


@pytest.mark.parametrize("content", [bomb(1 << 31), npz_with_header((10**12,), ("joint_3d", "pose_m"))])
def test_no_room_is_made_for_what_a_header_states(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.npz"
    path.write_bytes(content)
    with pytest.raises(SampleError, match=r"labels\.npz") as error:
        read_npz_fields("hand", str(path), ("joint_3d",))
    assert error.value.reason == "bad_label"
