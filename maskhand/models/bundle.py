"""The model bundle: a trained model as one folder, which evaluation, prediction and the model registry load.

    model.pt          state dict of the HandNetwork with the tokenizer, without the hand model
    recipe.json       the whole recipe
    calibration.json  the calibration of its confidence and its estimator; made after training, where possible
    bundle.json       format, hand model digest, sha256 of model.pt and calibration.json, digest of the recipe, free
                      metadata; written last

The hand model is not included because its license may forbid copying it; its digest is, so that a model is not silently
run with another hand than it was trained with.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import reprlib
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import ValidationError

from maskhand.config import ConfigError, Recipe, SamplerConfig
from maskhand.device import accelerator
from maskhand.digest import short_digest
from maskhand.errors import MaskhandError
from maskhand.hand.layer import make_layer
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.json_text import JsonError, parse_json_object
from maskhand.models.build import model_from_weights
from maskhand.models.calibration import CALIBRATION, Calibration, estimator_of
from maskhand.models.network import HandNetwork
from maskhand.models.weight_files import WeightFileError, load_state_dict
from maskhand.recipe_files import parse_recipe
from maskhand.replacement import atomic_folder

FORMAT = 2
_INPUTS = {"image": "images", "text": "captions"}
_SMALLEST_RECIPE = {"image": "tiny", "text": "tiny_text"}


class BundleError(MaskhandError, ValueError):
    """A folder that is not a usable model bundle; the message names the file and what to do."""


@dataclass(frozen=True)
class ModelBundle:
    """A trained model with its recipe and calibration."""

    model: HandNetwork
    """In evaluation mode."""
    recipe: Recipe
    metadata: Mapping[str, Any]
    """Facts about the training run: steps, metrics, data digests."""
    hand_digest: str
    weights_sha256: str
    """Of model.pt."""
    calibration: Calibration | None = None
    """None for a text model, a network without tokens, and where too few hands were held out."""

    @property
    def digest(self) -> str:
        """12 hex digits over what determines its predictions: weights, sampler and calibration."""
        return _digest(self.weights_sha256, self.recipe, self.calibration)

    @property
    def estimator(self) -> SamplerConfig:
        """The sampler settings of the reported hand: see `calibration.estimator_of`."""
        return estimator_of(self.recipe.sampler, self.calibration)

    def require(self, condition: Literal["image", "text"]) -> None:
        """Raise BundleError when the model is conditioned on something else."""
        found = self.recipe.model.condition
        if found != condition:
            raise BundleError(
                f"model {self.digest} (recipe {self.recipe.name}) reads {_INPUTS[found]}, not {_INPUTS[condition]}; "
                f"train one that does with `maskhand train transformer -r {_SMALLEST_RECIPE[condition]}`"
            )

    @classmethod
    def save(cls, directory: str | Path, model: HandNetwork, recipe: Recipe, metadata: Mapping[str, Any]) -> Self:
        """Write `directory` atomically, replacing an older bundle. `metadata` must be plain JSON values."""
        weights = {k: v.detach().cpu() for k, v in model.state_dict().items() if not k.startswith("mano.")}
        with atomic_folder(Path(directory)) as staging:
            torch.save(weights, staging / "model.pt")
            sha256 = _sha256(staging / "model.pt")
            record = {"format": FORMAT, "hand_digest": model.mano.digest, "sha256": sha256, "metadata": dict(metadata)}
            _write_records(staging, record, recipe)
        return cls(model, recipe, dict(metadata), model.mano.digest, sha256)

    @classmethod
    def with_inference_settings(cls, source: str | Path, directory: str | Path, recipe: Recipe) -> None:
        """Write the model in `source` to `directory` with other inference settings: the same weights, another recipe.

        The calibration is left out, as it holds for the old settings. `recipe` must not differ in anything that the
        weights depend on. Raises BundleError.
        """
        with atomic_folder(Path(directory)) as staging:
            _link(Path(source) / "model.pt", staging / "model.pt")
            record = _read_json(Path(source), "bundle.json")
            record.pop("calibration", None)
            _write_records(staging, record, recipe)

    def calibrate(self, directory: str | Path, calibration: Calibration) -> Self:
        """Add a calibration to this bundle, whose folder is `directory`; the folder is replaced atomically."""
        folder = Path(directory)
        with atomic_folder(folder) as staging:
            _link(folder / "model.pt", staging / "model.pt")
            (staging / CALIBRATION).write_text(calibration.model_dump_json(indent=1) + "\n")
            record = _read_json(folder, "bundle.json") | {"calibration": _sha256(staging / CALIBRATION)}
            _write_records(staging, record, self.recipe)
        return replace(self, calibration=calibration)

    @classmethod
    def load(
        cls, directory: str | Path, hand_model_path: str | Path | None = None, device: torch.device | str = "cpu"
    ) -> Self:
        """Load a bundle. `hand_model_path`: the hand model it was trained with, default the configured right hand.

        Raises BundleError when a file is missing or damaged, or the hand model is another one.
        """
        folder = Path(directory)
        record = _read_record(folder)
        recipe = _read_recipe(folder, record["recipe"])
        _check_sha256(folder, "model.pt", record["sha256"])
        calibration = _read_calibration(folder, record.get("calibration"))
        hand_path = Path(hand_model_path) if hand_model_path is not None else default_hand_path("right")
        hand = load_hand_model(hand_path)
        if hand.digest != record["hand_digest"]:
            raise BundleError(
                f"{folder}: trained with hand model {record['hand_digest']}, but {hand_path.name} is {hand.digest}; "
                "point MASKHAND_MANO_DIR to the hand it was trained with, or unset it for the open hand"
            )
        try:
            model = model_from_weights(
                recipe, make_layer(hand, recipe.hand.layer), load_state_dict(folder / "model.pt")
            )
        except WeightFileError as error:
            raise BundleError(f"{folder / 'model.pt'}: {error}; copy or export the bundle again") from None
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise BundleError(
                f"{folder / 'model.pt'}: weights do not fit recipe.json ({reason}); export it again"
            ) from None
        return cls(
            model.to(device).eval(), recipe, record["metadata"], record["hand_digest"], record["sha256"], calibration
        )


def bundle_digest(directory: str | Path) -> str:
    """`ModelBundle.digest` of an exported model, whose weights are not loaded. Raises BundleError."""
    record = _read_record(folder := Path(directory))
    recipe = _read_recipe(folder, record["recipe"])
    return _digest(record["sha256"], recipe, _read_calibration(folder, record.get("calibration")))


def _digest(weights_sha256: str, recipe: Recipe, calibration: Calibration | None) -> str:
    sampler = json.dumps(recipe.sampler.model_dump(mode="json"), sort_keys=True)
    return short_digest(weights_sha256 + sampler + ("" if calibration is None else calibration.model_dump_json()))


def _write_records(folder: Path, record: Mapping[str, Any], recipe: Recipe) -> None:
    (folder / "recipe.json").write_text(json.dumps(recipe.model_dump(mode="json"), indent=1))
    # The digest makes bundle.json, whose digest is the receipt's, another file for another recipe.
    (folder / "bundle.json").write_text(json.dumps({**record, "recipe": recipe.digest()}, indent=1, sort_keys=True))


_RECORD: Mapping[str, type] = {"hand_digest": str, "sha256": str, "recipe": str, "metadata": dict}


def _read_record(folder: Path) -> dict[str, Any]:
    """The fields of bundle.json, with the types of `_RECORD`."""
    record, uri = _read_json(folder, "bundle.json"), folder / "bundle.json"
    if record.get("format") != FORMAT:
        raise BundleError(
            f"{uri}: bundle format {record.get('format')!r}, this version reads {FORMAT}; train the model with this "
            "version to export it again"
        )
    optional = {"calibration": str} if record.get("calibration") is not None else {}
    for name, kind in {**_RECORD, **optional}.items():
        if not isinstance(record.get(name), kind):
            found = reprlib.repr(record.get(name))
            raise BundleError(f"{uri}: {name} is {found}, expected a {kind.__name__}; copy or export the bundle again")
    return record


def _read_recipe(folder: Path, digest: str) -> Recipe:
    values, uri = _read_json(folder, "recipe.json"), folder / "recipe.json"
    # Of the file as it is, which is `Recipe.digest` of the version that wrote it; a later one may have more keys.
    if short_digest(json.dumps(values, sort_keys=True)) != digest:
        raise BundleError(
            f"{uri}: this is not the recipe that bundle.json names ({digest}): it was edited or comes from another "
            "model; copy or export the bundle again, and change inference settings by --set"
        )
    try:
        return parse_recipe(values, source=str(uri))
    except ConfigError as error:
        raise BundleError(f"{error}; the bundle was written by another version, export it again") from None


def _read_calibration(folder: Path, sha256: str | None) -> Calibration | None:
    if sha256 is None:
        return None
    _check_sha256(folder, CALIBRATION, sha256)
    try:
        return Calibration.model_validate_json((folder / CALIBRATION).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise BundleError(
            f"{folder / CALIBRATION}: {'.'.join(map(str, first['loc']))}: {first['msg']}; it was written by another "
            "version, export the bundle again"
        ) from None


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise BundleError(f"{source.parent}: no {source.name}; copy or export the bundle again") from None
    except OSError:
        shutil.copyfile(source, target)


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        return parse_json_object(_file(folder, name).read_bytes())
    except JsonError as error:
        raise BundleError(f"{folder / name}: {error}; copy or export the bundle again") from None


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        found = f"{name} is no file" if path.exists() or path.is_symlink() else f"no {name}"
        raise BundleError(
            f"{folder}: {found}; a model bundle has bundle.json, recipe.json and model.pt. Copy or export it again"
        )
    return path


def _check_sha256(folder: Path, name: str, sha256: str) -> None:
    if _sha256(_file(folder, name)) != sha256:
        raise BundleError(f"{folder / name}: its sha256 is not the recorded one; copy or export the bundle again")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def worker_bundle(folder: str, digest: str | None = None) -> ModelBundle:
    """The model exported to a folder, on this process's accelerator, loaded once: a worker gets many chunks of work.

    digest: of the model that is meant; BundleError where this machine has another one in that folder.
    """
    bundle = _loaded_once(folder)
    if digest not in (None, bundle.digest):
        raise BundleError(
            f"{folder}: on {socket.gethostname()} the model there is {bundle.digest}, and {digest} on the machine that "
            "started the work; every machine must see the same folder"
        )
    return bundle


@functools.lru_cache(maxsize=1)
def _loaded_once(folder: str) -> ModelBundle:
    return ModelBundle.load(folder, device=accelerator())
