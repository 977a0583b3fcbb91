"""The model bundle: a trained model as one folder, loaded by evaluation, prediction and the model registry.

    model.pt          state dict of the HandNetwork with the tokenizer, without the hand model
    recipe.json       the whole recipe
    calibration.json  calibration of its confidence, and its estimator; made after training, where possible
    bundle.json       format, hand model digest, sha256 of model.pt and calibration.json, digest of the recipe, free
                      metadata; written last

The hand model is not included because its license may forbid copying it; its digest is included, so that a network is
not silently run with another hand model than the one it was trained with.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch

from maskhand.config import Recipe, SamplerConfig
from maskhand.device import accelerator
from maskhand.hand.layer import make_layer
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.models.build import model_from_weights
from maskhand.models.bundle_records import (
    FORMAT,
    BundleError,
    check_sha256,
    file_sha256,
    model_digest,
    read_calibration,
    read_json,
    read_recipe,
    read_record,
)
from maskhand.models.calibration import CALIBRATION, Calibration, estimator_of
from maskhand.models.network import HandNetwork
from maskhand.models.weight_files import WeightFileError, load_state_dict
from maskhand.replacement import atomic_folder

_INPUTS = {"image": "images", "text": "captions"}
_SMALLEST_RECIPE = {"image": "tiny", "text": "tiny_text"}


@dataclass(frozen=True, repr=False)
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
    """None for a text model, a network without tokens, and if too few hands were held out."""

    def __repr__(self) -> str:
        return f"ModelBundle(recipe {self.recipe.name}, digest {self.digest})"

    @property
    def digest(self) -> str:
        """12 hex digits over what determines its predictions: weights, inference settings and calibration."""
        return model_digest(self.weights_sha256, self.recipe, self.calibration)

    @property
    def estimator(self) -> SamplerConfig:
        """The sampler settings of the reported hand: see `calibration.estimator_of`."""
        return estimator_of(self.recipe.sampler, self.calibration)

    def with_settings(self, recipe: Recipe) -> Self:
        """This bundle with the inference settings of `recipe`. The network is shared, and changed with it."""
        self.model.pose2d_tolerance = recipe.model.pose2d_tolerance
        return replace(self, recipe=recipe)

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
            sha256 = file_sha256(staging / "model.pt")
            record = {"format": FORMAT, "hand_digest": model.mano.digest, "sha256": sha256, "metadata": dict(metadata)}
            _write_records(staging, record, recipe)
        return cls(model, recipe, dict(metadata), model.mano.digest, sha256)

    @classmethod
    def with_inference_settings(cls, source: str | Path, directory: str | Path, recipe: Recipe) -> None:
        """Write the model in `source` to `directory` with other inference settings: the same weights, another recipe.

        The calibration is left out, as it is only valid for the old settings. `recipe` must not differ in anything that
        the weights depend on. Raises BundleError.
        """
        with atomic_folder(Path(directory)) as staging:
            _link(Path(source) / "model.pt", staging / "model.pt")
            record = read_json(Path(source), "bundle.json")
            record.pop("calibration", None)
            _write_records(staging, record, recipe)

    def calibrate(self, directory: str | Path, calibration: Calibration) -> Self:
        """Add a calibration to this bundle, whose folder is `directory`; the folder is replaced atomically."""
        folder = Path(directory)
        with atomic_folder(folder) as staging:
            _link(folder / "model.pt", staging / "model.pt")
            (staging / CALIBRATION).write_text(calibration.model_dump_json(indent=1) + "\n")
            record = read_json(folder, "bundle.json") | {"calibration": file_sha256(staging / CALIBRATION)}
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
        record = read_record(folder)
        recipe = read_recipe(folder, record["recipe"])
        check_sha256(folder, "model.pt", record["sha256"])
        calibration = read_calibration(folder, record.get("calibration"))
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
            raise BundleError(f"{folder / 'model.pt'}: {error}; copy or export it again") from None
        return cls(
            model.to(device).eval(), recipe, record["metadata"], record["hand_digest"], record["sha256"], calibration
        )


def _write_records(folder: Path, record: Mapping[str, Any], recipe: Recipe) -> None:
    (folder / "recipe.json").write_text(json.dumps(recipe.model_dump(mode="json"), indent=1))
    # With the recipe's digest bundle.json, and so the receipt's digest, changes with the recipe.
    (folder / "bundle.json").write_text(json.dumps({**record, "recipe": recipe.digest()}, indent=1, sort_keys=True))


def _link(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it if the file system has no hard links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise BundleError(f"{source.parent}: no {source.name}; copy or export the bundle again") from None
    except OSError:
        shutil.copyfile(source, target)


def worker_bundle(folder: str, digest: str | None = None) -> ModelBundle:
    """The model exported to a folder, on this process's accelerator; loaded once for a worker's many chunks of work.

    digest: of the expected model; BundleError if this machine has another one in that folder.
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
