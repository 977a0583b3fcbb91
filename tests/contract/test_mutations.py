"""Damaged files of every kind end in a sentence of ours: a reject of the hands they belong to, or one error.

`MASKHAND_MUTATIONS=100 pytest tests/contract/test_mutations.py` tries more of them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from maskhand import catalog
from maskhand.adapters import open_adapter, read_hand
from maskhand.adapters.readers.label_files import read_npz_fields
from maskhand.errors import MaskhandError
from maskhand.hand.model_file import OPEN_HAND_FOLDER, load_hand_model
from maskhand.models.bundle import ModelBundle
from maskhand.models.tokenizer_files import load_tokenizer, save_tokenizer
from maskhand.recipe_files import load_recipe
from maskhand.sample import SampleError
from maskhand.shards.codec import decode_sample, encode_sample
from support.model_parts import small_model, small_recipe
from support.mutations import bomb, damage, npz_with_header, restore
from support.published_layouts import WRITERS
from support.published_layouts.hands import licensed_folder

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


@pytest.mark.parametrize("content", [bomb(1 << 31), npz_with_header((10**12,), ("joint_3d", "pose_m"))])
def test_no_room_is_made_for_what_a_header_states(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.npz"
    path.write_bytes(content)
    with pytest.raises(SampleError, match=r"labels\.npz") as error:
        read_npz_fields("hand", str(path), ("joint_3d",))
    assert error.value.reason == "bad_label"
