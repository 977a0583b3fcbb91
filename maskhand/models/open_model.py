"""The open model: a trained network that ships with the package, `maskhand/models/open_model/`.

    weights.pt        fp16; for the encoder only the difference from the published hand landmark network, which is
                      downloaded and not part of this repository
    tokenizer/        the exported VQ-MANO that it was trained on, whose weights are not in weights.pt
    recipe.json, calibration.json, bundle.json    as in `models.bundle`; bundle.json has no digest of the weights

`open_folder.open_model_folder` assembles it once into a bundle that is used like any other.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from maskhand.models.bundle_records import read_recipe
from maskhand.models.calibration import CALIBRATION
from maskhand.models.hand_landmark import HandLandmarkNet
from maskhand.replacement import atomic_folder
from maskhand.shipped_models import OPEN_WEIGHTS

_ENCODER: Final = "encoder.net."


def pack(bundle: str | Path, tokenizer: str | Path, landmark: str | Path, target: str | Path) -> None:
    """Write the model exported to folder `bundle` in the shipped form; the target's PROVENANCE.md is kept.

    The recipe's `training.start_from` is removed: it is a folder of the machine that it was trained on.
    tokenizer: the exported folder of the VQ-MANO that it was trained on; landmark: the downloaded .tflite file. Raises
    ValueError when the model has another encoder or tokenizer.
    """
    source = Path(bundle)
    weights = torch.load(source / "model.pt", map_location="cpu", weights_only=True)
    published, of_tokenizer = _published(landmark), _tokenizer_weights(Path(tokenizer))
    if missing := [name for name in published if name not in weights]:
        raise ValueError(f"{source}: no {missing[0]}; the encoder of a model that ships is hand_landmark")
    for name, weight in of_tokenizer.items():
        if not torch.equal(weights.pop(name), weight):
            raise ValueError(f"{source}: its {name} is not that of {tokenizer}; give the tokenizer it was trained on")
    small = {name: _half(w - published[name] if name in published else w) for name, w in weights.items()}
    # Weights that training did not change equal the published ones and are not stored.
    small = {name: w for name, w in small.items() if name not in published or bool(w.any())}
    record = json.loads((source / "bundle.json").read_text())
    trained_by = read_recipe(source, record["recipe"])
    recipe = trained_by.model_copy(update={"training": trained_by.training.model_copy(update={"start_from": None})})
    record["recipe"] = recipe.digest()
    with atomic_folder(Path(target)) as staging:
        torch.save(small, staging / OPEN_WEIGHTS.name)
        _copy_calibration(source, staging)
        (staging / "recipe.json").write_text(json.dumps(recipe.model_dump(mode="json"), indent=1) + "\n")
        shutil.copytree(tokenizer, staging / "tokenizer")
        if (written := Path(target) / "PROVENANCE.md").is_file():
            shutil.copyfile(written, staging / written.name)
        (staging / "bundle.json").write_text(
            json.dumps({k: v for k, v in record.items() if k != "sha256"}, indent=1, sort_keys=True) + "\n"
        )


def unpack(packed: str | Path, landmark: str | Path, target: str | Path) -> None:
    """The inverse of `pack`, up to fp16 rounding: write the bundle to the folder `target`."""
    source = Path(packed)
    small = torch.load(source / OPEN_WEIGHTS.name, map_location="cpu", weights_only=True)
    weights = {name: w.float() if w.is_floating_point() else w for name, w in small.items()}
    weights |= _tokenizer_weights(source / "tokenizer")
    weights |= {name: published + weights.get(name, 0) for name, published in _published(landmark).items()}
    record = json.loads((source / "bundle.json").read_text())
    with atomic_folder(Path(target)) as staging:
        torch.save(weights, staging / "model.pt")
        shutil.copyfile(source / "recipe.json", staging / "recipe.json")
        _copy_calibration(source, staging)
        record["sha256"] = hashlib.sha256((staging / "model.pt").read_bytes()).hexdigest()
        (staging / "bundle.json").write_text(json.dumps(record, indent=1, sort_keys=True))


def _copy_calibration(source: Path, target: Path) -> None:
    if (source / CALIBRATION).is_file():  # a model may have none
        shutil.copyfile(source / CALIBRATION, target / CALIBRATION)


def _published(landmark: str | Path) -> Mapping[str, Tensor]:
    net = HandLandmarkNet()
    net.load_tflite(landmark)
    return {_ENCODER + name: weight for name, weight in net.state_dict().items()}


def _tokenizer_weights(folder: Path) -> dict[str, Tensor]:
    stored = torch.load(folder / "tokenizer.pt", map_location="cpu", weights_only=True)
    return {f"tokenizer.{name}": weight for name, weight in stored.items()}


def _half(weight: Tensor) -> Tensor:
    return weight.half() if weight.is_floating_point() else weight
