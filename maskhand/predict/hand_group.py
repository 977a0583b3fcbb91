"""The inputs and settings of a reconstruction: images with detected hands, the settings, and the hands as a batch."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from maskhand.arrays import Array
from maskhand.batch import HandBatch, HandPrediction
from maskhand.config import DataConfig
from maskhand.loading.photo import photo_batch
from maskhand.models.bundle import ModelBundle
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.placement import PLACED_BY, PlacedBy
from maskhand.predict.camera import PhotoCamera
from maskhand.predict.detect import HAND_FINDER, DetectedHands
from maskhand.predict.fit import check_hand_model
from maskhand.predict.placed import place_predicted
from maskhand.predict.records import METHODS, CameraOrigin, Method, PlacedHand, PredictError
from maskhand.recipe_files import load_recipe


@dataclass(frozen=True)
class SeenImage:
    """An image and the hands that were detected in it."""

    image_rgb: Array
    """(H, W, 3) uint8."""
    detected: DetectedHands
    camera: PhotoCamera
    """Known or assumed."""


@dataclass(frozen=True)
class Reconstruction:
    """The method, model and settings of a reconstruction."""

    bundle: ModelBundle | None
    """None for `fit`, which needs no network."""
    method: Method
    placed_by: PlacedBy = "keypoints"
    """`model`: by the network's crop camera; `keypoints`: by the 2D keypoints, if enough are detected."""
    hypotheses: int = 0
    """Number of samples for each hand, from the same encoding (`hypothesis_sampler`)."""
    fill_in: int = 0
    """Number of decoding iterations T whose states are returned for visualization (`models.fill_in`); 0: none."""

    def __post_init__(self) -> None:
        """Raises PredictError for settings that no reconstruction has, and those that this model cannot have."""
        for name, value, choices in (("method", self.method, METHODS), ("camera", self.placed_by, PLACED_BY)):
            if value not in choices:
                raise PredictError(f"{name} {value!r}: expected one of {', '.join(choices)}")
        if self.hypotheses < 0:
            raise PredictError(f"hypotheses {self.hypotheses}: expected 0 or more")
        bundle = self.bundle
        if bundle is None:
            self._check_without_network()
            return
        bundle.require("image")
        if self.method != "model":
            check_hand_model(bundle.hand_digest)
        if (self.hypotheses or self.fill_in) and not isinstance(bundle.model, MaskedTransformer):
            raise PredictError(
                f"model {bundle.digest} (recipe {bundle.recipe.name}) predicts one hand per image; it has no "
                "distribution to sample hypotheses from, and no tokens to fill in"
            )

    def _check_without_network(self) -> None:
        wanted = {
            f"method {self.method}": self.method != "fit",
            "camera model": self.placed_by == "model",
            "hypotheses": self.hypotheses > 0,
            "tokens filled in": self.fill_in > 0,
        }
        for what, needs_network in wanted.items():
            if needs_network:
                raise PredictError(
                    f"{what}: a network is needed; `--model open` is the one that ships, `maskhand quickstart` trains "
                    "another"
                )

    @functools.cached_property
    def data(self) -> DataConfig:
        """The crop settings."""
        return load_recipe("tiny").data if self.bundle is None else self.bundle.recipe.data

    @property
    def detector(self) -> str:
        """Name of the keypoint detector."""
        return HAND_FINDER if self.bundle is None else self.data.keypoints.detector


@dataclass(frozen=True)
class HandGroup:
    """The N hands of some images, reconstructed together."""

    detected: DetectedHands
    batch: HandBatch
    K_px: Array
    """(N, 3, 3)."""
    camera_origins: tuple[CameraOrigin, ...]

    def __getitem__(self, rows: slice) -> HandGroup:
        return HandGroup(self.detected[rows], self.batch[rows], self.K_px[rows], self.camera_origins[rows])

    @staticmethod
    def of(image: SeenImage, data: DataConfig) -> HandGroup:
        detected, seen = image.detected, image.detected.detections
        batch = photo_batch(
            image.image_rgb,
            detected.boxes_xyxy_px,
            detected.sides,
            data,
            keypoints_px=seen.keypoints_px,
            confidence=seen.confidence,
            z_px=seen.z_px,
            world_m=seen.world_m,
        )
        hands = len(detected)
        return HandGroup(detected, batch, np.tile(image.camera.K_px, (hands, 1, 1)), (image.camera.origin,) * hands)

    @staticmethod
    def join(groups: list[HandGroup]) -> HandGroup:
        return HandGroup(
            DetectedHands.join([group.detected for group in groups]),
            HandBatch.join([group.batch for group in groups]),
            np.concatenate([group.K_px for group in groups]),
            tuple(origin for group in groups for origin in group.camera_origins),
        )

    def placed(self, prediction: HandPrediction, reconstruction: Reconstruction) -> list[PlacedHand]:
        """The group's hands in camera space; prediction has one row per hand."""
        return place_predicted(prediction, self.batch, self.K_px, reconstruction.data.crop_px, reconstruction.placed_by)
