"""What decides a result goes to other machines by content; other files, code or settings there change nothing."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from maskhand import carried
from maskhand.carried import CarriedFolder, NamedFile, OtherFileError, here
from maskhand.cluster.driver_state import DriverState
from maskhand.hand.model_file import OPEN_HAND_FOLDER, default_hand_path, hand_files, load_hand_model
from maskhand.recipe_files import load_recipe
from maskhand.steps.taken_along import TakenAlong
from maskhand.storage import StorageError
from maskhand.training.tokenizer_loop import TokenizerJob
from maskhand.training.transformer_loop import TransformerJob
from maskhand.training.worker import WorkerContext, no_report

OPEN_HAND = (OPEN_HAND_FOLDER / "OPEN_HAND_RIGHT.pkl").read_bytes()


@pytest.fixture(autouse=True)
def _another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carried, "_taken_in", {})
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(carried.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))


def _licensed(folder: Path) -> str:
    """A folder with a hand of its own, and that hand's digest."""
    folder.mkdir()
    (folder / "MANO_RIGHT.pkl").write_bytes(OPEN_HAND + b"\n")
    return load_hand_model(folder / "MANO_RIGHT.pkl").digest


@pytest.mark.parametrize("on_the_node", ["the same", "nothing", "another file"])
def test_the_drivers_files_are_found_whatever_lies_under_their_path(on_the_node: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"driver")
    sent = pickle.loads(pickle.dumps(CarriedFolder.of(folder, ["a.bin", "not there"])))
    if on_the_node == "nothing":
        shutil.rmtree(folder)
    elif on_the_node == "another file":
        (folder / "a.bin").write_bytes(b"other!")
    sent.take_in()
    assert here(folder / "a.bin").read_bytes() == (here(folder) / "a.bin").read_bytes() == b"driver"
    assert (here(folder) == folder) == (on_the_node == "the same")
    assert here(tmp_path / "b.bin") == tmp_path / "b.bin"
    assert on_the_node == "the same" or here(folder).parent.stat().st_mode & 0o077 == 0


def test_what_ships_with_the_package_is_found_in_another_installation() -> None:
    elsewhere = replace(CarriedFolder.of(OPEN_HAND_FOLDER, ["OPEN_HAND_RIGHT.pkl"]), path="/opt/other/hand/open_hand")
    changed = replace(elsewhere, files=(("OPEN_HAND_RIGHT.pkl", b"of the driver"),))
    changed = replace(changed, digest=carried._digest(changed.files))
    elsewhere.take_in()
    assert here("/opt/other/hand/open_hand/OPEN_HAND_RIGHT.pkl") == OPEN_HAND_FOLDER / "OPEN_HAND_RIGHT.pkl"
    changed.take_in()
    assert here(OPEN_HAND_FOLDER / "OPEN_HAND_RIGHT.pkl").read_bytes() == b"of the driver"


def test_damaged_foreign_and_unwritable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"driver")
    sent, named = CarriedFolder.of(tmp_path, ["weights.pt"]), NamedFile.of(tmp_path / "weights.pt")
    with pytest.raises(OtherFileError, match="damaged"):
        replace(sent, files=(("weights.pt", b"drivel"),)).take_in()
    named.check()
    (tmp_path / "weights.pt").write_bytes(b"another")
    with pytest.raises(OtherFileError, match=r"weights\.pt: .*copy that file to every machine"):
        named.check()
    (tmp_path / "tmp" / f"maskhand-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / "tmp" / f"maskhand-{os.getuid()}").chmod(0o777)
    with pytest.raises(StorageError, match="mode 700"):
        sent.take_in()


def test_settings_of_the_driver_hold_and_those_of_the_machine_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_SECRET_ACCESS_KEY": "hidden-word", "MLFLOW_TRACKING_TOKEN": "hidden-word", "AWS_CONFIG_FILE": "/driver",
        "MLFLOW_TRACKING_URI": "sqlite:///relative.db", "MASKHAND_CATALOG": f"cards{os.pathsep}/more",
        "HOME": "/driver",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASKHAND_MANO_DIR", raising=False)
    sent = pickle.loads(pickle.dumps(DriverState.of_this_process()))
    assert "hidden-word" not in repr(sent)
    for name, value in {
        "AWS_SECRET_ACCESS_KEY": "own", "AWS_CONFIG_FILE": "/own", "MASKHAND_MANO_DIR": "/own", "HOME": "/own",
        "MLFLOW_TRACKING_URI": "own",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN")
    before = dict(os.environ)
    with sent.taken_over():
        assert os.environ["AWS_SECRET_ACCESS_KEY"] == os.environ["MLFLOW_TRACKING_TOKEN"] == "hidden-word"
        assert os.environ["MASKHAND_CATALOG"] == f"{Path.cwd() / 'cards'}{os.pathsep}/more"
        assert os.environ["AWS_CONFIG_FILE"] == os.environ["HOME"] == "/own"
        assert os.environ["MLFLOW_TRACKING_URI"] == "own"
        assert (
            load_hand_model(default_hand_path()).digest
            == load_hand_model(OPEN_HAND_FOLDER / "OPEN_HAND_RIGHT.pkl").digest
        )
    assert dict(os.environ) == before


@pytest.mark.parametrize("with_other_hand", ["driver", "node"])
def test_a_training_poses_the_drivers_hand(
    with_other_hand: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    licensed = _licensed(tmp_path / "mano")
    own = load_hand_model(OPEN_HAND_FOLDER / "OPEN_HAND_RIGHT.pkl").digest
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(tmp_path / "mano") if with_other_hand == "driver" else "")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("driver")

    def loop(job: Any, worker: WorkerContext) -> dict[str, float]:
        found = load_hand_model(job.mano_path).digest, (Path(job.tokenizer_dir) / "tokenizer.json").read_text()
        assert found == (licensed if with_other_hand == "driver" else own, "driver")
        return {"found": 1.0}

    job = TransformerJob(load_recipe("tiny"), "s3://shards", str(tmp_path / "tokenizer"))
    sent = cloudpickle.loads(cloudpickle.dumps(TakenAlong.of(loop, job)))
    if with_other_hand == "driver":
        shutil.rmtree(tmp_path / "mano")
        monkeypatch.delenv("MASKHAND_MANO_DIR")
    else:
        monkeypatch.setenv("MASKHAND_MANO_DIR", str(tmp_path / "mano"))
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("of the node")
    worker = WorkerContext(0, 1, no_report, None)  # type: ignore[arg-type]
    assert sent(job, worker) == {"found": 1.0}
    monkeypatch.setattr("maskhand.steps.taken_along.training_code_digest", lambda: "0123456789ab")
    with pytest.raises(OtherFileError, match="install the same version on every machine"):
        sent(job, worker)


def test_pretrained_weights_are_compared_on_every_machine(tmp_path: Path) -> None:
    weights = tmp_path / "vit.pth"
    weights.write_bytes(b"driver")
    recipe = load_recipe("tiny", [f"model.backbone.checkpoint={weights}"])
    job = TransformerJob(recipe, "shards", str(tmp_path))
    sent = TakenAlong.of(lambda *_: {}, job)
    weights.write_bytes(b"another")
    with pytest.raises(OtherFileError, match=r"vit\.pth"):
        sent(job, WorkerContext(1, 2, no_report, None))  # type: ignore[arg-type]
    assert TakenAlong.of(lambda *_: {}, TokenizerJob(recipe, "shards")).compared == ()
    assert len(hand_files().files) == 2
