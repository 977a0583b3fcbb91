"""Pseudo ground truth: a model's predictions as the `mano` part of a set without annotated hands (paper B).

Entries have `source` predicted. A hand whose 2D keypoints were not detected is kept with the fault `not_seen` and not
used for training. Residuals are unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from maskhand.batch import HandPrediction
from maskhand.hand.rotations import matrix_to_axis_angle
from maskhand.loading.loader import eval_rows
from maskhand.models.bundle import ModelBundle, worker_bundle
from maskhand.models.sampling import predict
from maskhand.placement import image_cameras, in_image_axes, place_hands
from maskhand.sample import HandPose, SampleError
from maskhand.shards.layout import MANO, keypoint_part
from maskhand.shards.manifest import Manifest
from maskhand.shards.part import Mapper, OnShard, serial_map
from maskhand.shards.reader import ShardSample
from maskhand.shards.sidecar import Annotator, build_sidecar
from maskhand.shards.sidecar_records import ManoTarget

VERSION = "3"
BATCH = 32


@dataclass(frozen=True)
class PredictedPoses:
    """Predicts the hands of one shard; picklable, loads the model once per process."""

    model_folder: str
    model_digest: str

    def __call__(self, samples: list[ShardSample]) -> list[ManoTarget | SampleError]:
        bundle = worker_bundle(self.model_folder, self.model_digest)
        return [
            entry
            for start in range(0, len(samples), BATCH)
            for entry in _entries(samples[start : start + BATCH], bundle)
        ]


def annotate_by_model(
    set_uri: str,
    model_folder: str,
    *,
    mapper: Mapper = serial_map,
    rebuild: bool = False,
    on_shard: OnShard | None = None,
) -> Manifest:
    """Make the `mano` part of a set with an exported model, from the images and its detector's keypoint sidecar.

    Raises BundleError if the model reads captions, ShardError if the keypoints are missing, or the part was made in
    another way (`rebuild=True` replaces it).
    """
    bundle = worker_bundle(model_folder)
    bundle.require("image")
    annotator = Annotator("maskhand-model", VERSION, {"model": bundle.digest, "hand_model": bundle.hand_digest})
    return build_sidecar(
        set_uri,
        MANO,
        annotator,
        PredictedPoses(model_folder, bundle.digest),
        inputs=(keypoint_part(bundle.recipe.data.keypoints.detector),),
        mapper=mapper,
        rebuild=rebuild,
        on_shard=on_shard,
    )


def _entries(rows: Sequence[ShardSample], bundle: ModelBundle) -> list[ManoTarget | SampleError]:
    shown = eval_rows(bundle.recipe, rows, keypoints="detected")
    batch = shown.hands
    device = next(bundle.model.parameters()).device
    generator = torch.Generator(device).manual_seed(bundle.recipe.seed)
    hands = in_image_axes(predict(bundle.model, batch.to(device), bundle.recipe.sampler, generator).to("cpu"), batch)
    seen = (batch.keypoints_2d[..., 2] > 0).any(1).numpy()
    placed = place_hands(
        hands, batch, image_cameras([row.sample for row in rows]), bundle.recipe.data.crop_px, "keypoints"
    )
    transl = placed.translation_m * placed.mirror  # the sidecar holds the right hand
    return [
        SampleError("bad_image", f"{row.sample.key}: its image cannot be decoded")
        if shown.unreadable[k]
        else _entry(hands, transl, k, bool(seen[k]), row.sample.side == "left")
        for k, row in enumerate(rows)
    ]


def _entry(hands: HandPrediction, transl: np.ndarray, k: int, seen: bool, mirrored: bool) -> ManoTarget:
    pose = HandPose(
        matrix_to_axis_angle(hands.rotmats[k].double()).float().numpy(),
        hands.betas[k].numpy().astype(np.float32),
        transl[k].astype(np.float32),
    )
    return ManoTarget(pose, "predicted", mirrored=mirrored, fault="" if seen else "not_seen")
