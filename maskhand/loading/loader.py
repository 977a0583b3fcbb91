"""The data loader of the networks: endless, seeded, resumable training batches, and evaluation batches.

A training batch is a pure function of the recipe, the shards, the seed, the step, the rank and the world size, and the
union of the ranks' rows is the same global batch for any world size: row j of rank r is slot r + j * world. So a run
resumes exactly at any step without reading earlier data, and sees the same data with any number of workers that divides
`data.shard_streams` and the batch.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from maskhand.batch import HandBatch
from maskhand.config import KeypointConfig, Recipe
from maskhand.loading.augment import KeypointAugmentation, draw_image_augmentation, draw_keypoint_augmentation
from maskhand.loading.collate import make_batch
from maskhand.loading.crop import can_decode
from maskhand.loading.degrade import draw_photo_effects
from maskhand.loading.labels import annotated_target, good_target, stack_labels
from maskhand.loading.posed_hands import PosedHands
from maskhand.shards.layout import MANO, keypoint_part
from maskhand.shards.manifest import find_manifest
from maskhand.shards.mixture import TrainingStream, held_out_places, rows_per_rank
from maskhand.shards.reader import ShardSample, ShardSet
from maskhand.shards.sidecar_records import DetectedKeypoints, ManoTarget
from maskhand.text import caption_ids, caption_of

POSED_INDEX = 1 << 40
"""First global index of posed hands; those with images start at 0, so every hand of a training has its own index."""
_BLACK = np.zeros((8, 8, 4), np.uint8)
"""Replaces an image that cannot be decoded, or that the network does not read."""


def train_batches(
    recipe: Recipe,
    shards_uri: str,
    *,
    rank: int = 0,
    world: int = 1,
    start_step: int = 0,
    seed: int | None = None,
    posed: PosedHands | None = None,
) -> Iterator[HandBatch]:
    """Endless batches of one rank, from the batch of global step `start_step` on.

    shards_uri: location of the sets named in `recipe.data.train`. Rows: `recipe.training.optim.batch // world`,
    followed by `recipe.data.posed_hands // world` rows of `posed`.
    Raises ValueError if the batch does not divide, or if `posed` is missing or not needed, and ShardError if a set or
    sidecar is missing.
    """
    if (posed is None) == (recipe.data.posed_hands > 0):
        given = "not given" if posed is None else "given"
        raise ValueError(f"data.posed_hands={recipe.data.posed_hands}, and the hands are {given}")
    job = _TrainingBatches(recipe, shards_uri, rank, world, recipe.seed if seed is None else seed, posed)
    rows_per_rank(recipe.training.optim.batch, world)
    rows_per_rank(recipe.data.posed_hands, world, "data.posed_hands")
    workers = recipe.data.loader_workers
    if workers == 0:
        return job.batches(start_step, 1)
    dataset = _StepsOfWorker(job, start_step)
    # Worker w of n makes steps w, w + n, ...; the loader polls the workers in turn, so batches are in step order.
    return iter(
        torch.utils.data.DataLoader(
            dataset, batch_size=None, num_workers=workers, multiprocessing_context="spawn", prefetch_factor=4
        )
    )


@dataclass(frozen=True)
class _TrainingBatches:
    """The training batches of one rank."""

    recipe: Recipe
    shards_uri: str
    rank: int
    world: int
    seed: int
    posed: PosedHands | None = None

    def batches(self, first_step: int, stride: int) -> Iterator[HandBatch]:
        """The batches of steps first_step, first_step + stride, ..."""
        data, batch = self.recipe.data, self.recipe.training.optim.batch
        rows = rows_per_rank(batch, self.world)
        detections = (keypoint_part(data.keypoints.detector),) if data.keypoints.trains_on_detections else ()
        sidecars = (*detections, MANO)
        sets = {f"{self.shards_uri.rstrip('/')}/{name}": weight for name, weight in data.train.items()}
        stream = TrainingStream(sets, sidecars, self.seed, self.rank, self.world, data.shard_streams, data.held_out)
        elements = stream.iterate(first_step * rows, run=rows, stride=stride)
        # The stream yields the global elements r, r + world, ... of rank r, which are its slots of every batch.
        slots = np.arange(self.rank, batch, self.world)
        for step in itertools.count(first_step, stride):
            seen = self._batch(list(itertools.islice(elements, rows)), step * batch + slots)
            yield seen if self.posed is None else seen.followed_by(self._posed_batch(self.posed, step))

    def _posed_batch(self, posed: PosedHands, step: int) -> HandBatch:
        data = self.recipe.data
        indices = step * data.posed_hands + np.arange(self.rank, data.posed_hands, self.world)
        # no drop_pose: without image and 2D pose there would be no input; POSED_INDEX: own random numbers
        keypoints = data.keypoints.model_copy(update={"train_source": "simulated", "drop_pose": 0.0})
        return make_batch(
            posed.labels(self.seed, indices),
            None,
            crop_px=data.crop_px,
            box_scale=data.box_scale,
            aspect=data.crop_aspect,
            keypoints=draw_keypoint_augmentation(keypoints, self.seed, POSED_INDEX + indices),
            upright=data.upright,
            augmentation=draw_image_augmentation(data.augment, self.seed, POSED_INDEX + indices),
        )

    def _batch(self, rows: Sequence[ShardSample], indices: np.ndarray) -> HandBatch:
        data = self.recipe.data
        sees_image = self.recipe.model.sees_image
        return make_batch(
            stack_labels([r.sample for r in rows], _detected(rows, data.keypoints), _targets(rows, good_target)),
            [r.sample.image if sees_image else _BLACK for r in rows],
            crop_px=data.crop_px,
            box_scale=data.box_scale,
            aspect=data.crop_aspect,
            keypoints=draw_keypoint_augmentation(data.keypoints, self.seed, indices),
            upright=data.upright,
            augmentation=draw_image_augmentation(data.augment, self.seed, indices),
            effects=draw_photo_effects(data.augment, self.seed, indices),
            text_ids=_captions(rows, self.recipe),
        )


class _StepsOfWorker(torch.utils.data.IterableDataset):
    """A dataset whose loader process w of n yields the steps start + w, start + w + n, ..."""

    def __init__(self, job: _TrainingBatches, start_step: int) -> None:
        self.job, self.start_step = job, start_step

    def __iter__(self) -> Iterator[HandBatch]:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)  # OpenCV ignores OMP_NUM_THREADS
        info = torch.utils.data.get_worker_info()
        first, stride = (0, 1) if info is None else (info.id, info.num_workers)
        return self.job.batches(self.start_step + first, stride)


@dataclass(frozen=True)
class EvalRows:
    """A batch of an evaluation set, with its samples."""

    hands: HandBatch
    samples: tuple[ShardSample, ...]
    unreadable: np.ndarray
    """(B,) bool: the image cannot be decoded and was replaced by a black one."""


def eval_range(recipe: Recipe, set_uri: str, start: int, stop: int, batch: int) -> Iterator[EvalRows]:
    """The samples start..stop-1 of an evaluation set, unaugmented, `batch` at a time; the last batch may be smaller."""
    shard_set = eval_set(recipe, set_uri)
    rows = shard_set.between(start, min(stop, len(shard_set)))
    while samples := tuple(itertools.islice(rows, batch)):
        yield eval_rows(recipe, samples)


def held_out_rows(
    recipe: Recipe, set_uri: str, batch: int, most: int | None = None, rank: int = 0, world: int = 1
) -> Iterator[EvalRows]:
    """The held-out samples of a training set (`data.held_out`), in the form of an evaluation set; only the batches
    numbered rank, rank + world, ...

    most: maximum number of samples; the first ones are a random sample too (see `shards.plan`) and lie in few shards.
    If the recipe evaluates with detections and this training set has none, the 2D pose is a simulated detection if the
    recipe trains with these, else the annotated pose.
    """
    keypoints, simulated = recipe.data.keypoints, False
    if keypoints.eval_source == "detected" and find_manifest(set_uri, keypoint_part(keypoints.detector)) is None:
        simulated = keypoints.simulates_detections
        keypoints = keypoints.model_copy(update={"eval_source": "annotated"})
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"keypoints": keypoints})})
    shard_set = eval_set(recipe, set_uri)
    places = held_out_places(len(shard_set), recipe.data.held_out)[:most]
    rows = shard_set.at(places[np.arange(len(places)) // batch % world == rank].tolist())
    while samples := tuple(itertools.islice(rows, batch)):
        yield eval_rows(recipe, samples, _simulated(recipe, samples) if simulated else None)


def eval_set(recipe: Recipe, set_uri: str) -> ShardSet:
    """A shard set with the sidecars needed for evaluation: 2D pose, and MANO targets if there are any."""
    mano = (MANO,) if find_manifest(set_uri, MANO) is not None else ()
    keypoints = recipe.data.keypoints
    detections = (keypoint_part(keypoints.detector),) if keypoints.eval_source == "detected" else ()
    return ShardSet.open(set_uri, (*detections, *mano))


def eval_rows(
    recipe: Recipe, samples: Sequence[ShardSample], keypoints: str | KeypointAugmentation | None = None
) -> EvalRows:
    """A batch of evaluation samples, unaugmented; keypoints: replaces the recipe's source of the 2D pose."""
    data, images = recipe.data, [s.sample.image for s in samples]
    cut = functools.partial(
        make_batch,
        stack_labels(
            [s.sample for s in samples], _detected(samples, data.keypoints), _targets(samples, annotated_target)
        ),
        crop_px=data.crop_px,
        box_scale=data.box_scale,
        aspect=data.crop_aspect,
        keypoints=keypoints or data.keypoints.eval_source,
        upright=data.upright,
        index=np.array([s.index for s in samples]),
        text_ids=_captions(samples, recipe),
    )
    unreadable = np.zeros(len(samples), bool)
    try:
        hands = cut(images)
    except ValueError:  # rare: find the images that cannot be decoded
        unreadable = np.array([not can_decode(image) for image in images])
        hands = cut([_BLACK if bad else image for bad, image in zip(unreadable, images, strict=True)])
    return EvalRows(hands, tuple(samples), unreadable)


def _simulated(recipe: Recipe, samples: Sequence[ShardSample]) -> KeypointAugmentation:
    """Simulated detections without other augmentation; those of a sample do not depend on its batch."""
    whole = recipe.data.keypoints.model_copy(
        update={"train_source": "simulated", "noise": 0.0, "drop_joint": 0.0, "drop_pose": 0.0, "swap_fingers": 0.0}
    )
    return draw_keypoint_augmentation(whole, recipe.seed, np.array([s.index for s in samples]))


def _detected(rows: Sequence[ShardSample], config: KeypointConfig) -> list[DetectedKeypoints | None]:
    return [r.keypoints(config.detector) for r in rows]


def _captions(rows: Sequence[ShardSample], recipe: Recipe) -> np.ndarray | None:
    template = recipe.data.caption
    if template is None:
        return None
    return caption_ids([caption_of(template, r.sample.origin, r.sample.key) for r in rows], recipe.model.text)


def _targets(
    rows: Sequence[ShardSample], usable: Callable[[ManoTarget | None], ManoTarget | None]
) -> list[ManoTarget | None]:
    return [usable(r.mano_target()) for r in rows]
