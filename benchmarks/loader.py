"""Samples/s per core of the training loader, against bare JPEG decoding and against a loader of the usual kind.

    python benchmarks/loader.py            # three image sizes, and the default mixture
    python benchmarks/loader.py mixture    # one of them
    python benchmarks/loader.py photos     # what real photos have (maskhand/loading/degrade.py), each effect alone

The same shards, in the same run and process, taken in turn batch by batch; CPU time of one core, of the
best of several rounds:

* decode: OpenCV decodes the same JPEGs at full size, from memory, and nothing else;
* ours: `maskhand.loading.train_batches` with the augmentation, keypoints and MANO targets of a full-size recipe, every
  shard fetched, checked and decoded anew at each pass, as with sets that are too large to keep in memory;
* normalizing: what the loader leaves to the network, bytes -> normalized floats, here on this CPU;
* usual: per sample through WebDataset, `json` and `numpy.load`; full decoding, mirroring of left hands, a Gaussian
  where the crop shrinks, one `cv2.warpAffine`, per-joint and per-channel numpy, per-sample dicts, default collation.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import webdataset

from maskhand import storage
from maskhand.config import AugmentConfig, Recipe
from maskhand.loading.degrade import degrade, draw_photo_effects
from maskhand.loading.loader import train_batches
from maskhand.recipe_files import load_recipe
from maskhand.sample import Camera, HandPose, HandSample
from maskhand.shards import mixture
from maskhand.shards.codec import encode_sample
from maskhand.shards.layout import IMAGES, keypoint_part, manifest_uri, shard_name
from maskhand.shards.manifest import Manifest, entries_and_rejects
from maskhand.shards.reader import ShardSample, ShardSet
from maskhand.shards.sidecar import Annotator, build_sidecar
from maskhand.shards.sidecar_records import DetectedKeypoints, ManoTarget
from maskhand.shards.writer import write_shard

SIZES = {
    "224x224": (224, 224, 130.0, 360, 120),
    "320x320": (320, 320, 100.0, 96, 24),
    "512x334": (512, 334, 150.0, 360, 120),
    "640x480": (640, 480, 180.0, 240, 60),
    "1500x1000": (1500, 1000, 400.0, 96, 48),
    "1920x1080": (1920, 1080, 120.0, 96, 24),
}
"""Width, height, side of the hand's box in pixels, samples, samples per shard (FreiHAND's have 1000)."""

MIXTURE = {"224x224": 0.25, "320x320": 0.05, "512x334": 0.25, "640x480": 0.35, "1920x1080": 0.10}
"""Weights of the default mixture (recipes/base.yaml) by the size of its sets' images: FreiHAND; RHD (as JPEG here);
InterHand2.6M; COCO-WholeBody, Halpe, hand_labels (various, taken for 640 x 480), HO-3D, H2O-3D, DexYCB; MTC."""

CASES = {size: {size: 1.0} for size in ("224x224", "640x480", "1500x1000")} | {"mixture": MIXTURE}
PHOTO_KEYS = {"exposure", "saturation", "blur_px", "shrink", "noise", "jpeg_quality", "effect_probability"}
PHOTO_KEYS |= {"grayscale_probability", "occlude_probability", "edge_probability"}
PHOTOS = load_recipe("open_model").data.augment.model_dump(include=PHOTO_KEYS)
"""Keys of `data.augment` with which rendered hands look like hard but plausible photos."""
CROP_PX, BOX_SCALE, BATCH, ROUNDS = 256, 1.2, 48, 3
MEAN, STD = 255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])


def write_set(uri: str, size: str) -> int:
    """A shard set with every label and both sidecars; returns the bytes of its images."""
    width, height, side, count, shard = SIZES[size]
    rng = np.random.default_rng(0)
    samples = [_sample(k, rng, width, height, side) for k in range(count)]
    part = storage.join(uri, IMAGES)
    records = [
        write_shard(
            part, shard_name(n), "benchmark", ((s.key, encode_sample(s)) for s in samples[n * shard : (n + 1) * shard])
        )
        for n in range(count // shard)
    ]
    entries, rejects = entries_and_rejects(records)
    manifest = Manifest(IMAGES, "benchmark", size, "benchmark", count, count, rejects, entries)
    storage.write_bytes_atomic(manifest_uri(part), manifest.to_json())
    build_sidecar(uri, keypoint_part("benchmark"), Annotator("benchmark", "1"), _keypoints)
    build_sidecar(uri, "mano", Annotator("benchmark", "1"), _mano)
    return sum(len(s.image) for s in samples)


def _sample(k: int, rng: np.random.Generator, width: int, height: int, side: float) -> HandSample:
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image = np.clip(smooth + rng.normal(0, 2, smooth.shape), 0, 255).astype(np.uint8)
    box = np.concatenate([c := np.array([width, height]) / 2 - side / 2, c + side]).astype(np.float32)
    joints = rng.uniform(box[:2], box[2:], (21, 2)).astype(np.float32)
    return HandSample(
        key=f"hand-{k:06d}",
        dataset="benchmark",
        image=cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes(),
        image_format="jpg",
        image_size_px=(width, height),
        side="left" if k % 2 else "right",
        box_xyxy_px=box,
        camera=Camera(np.array([[500.0, 0, width / 2], [0, 500.0, height / 2], [0, 0, 1]])),
        joints_2d_px=joints,
        joints_2d_conf=np.ones(21, np.float32),
        joints_cam_m=rng.normal(0, 0.05, (21, 3)).astype(np.float32),
        joints_3d_valid=np.ones(21, bool),
        mano=HandPose(*(rng.normal(0, 0.1, shape).astype(np.float32) for shape in ((16, 3), (10,), (3,)))),
        origin={"index": k},
    )


def _keypoints(rows: list[ShardSample]) -> list[DetectedKeypoints]:
    return [
        DetectedKeypoints(r.sample.joints_2d_px, np.ones(21, np.float32), 1.0, 1.0)  # type: ignore[arg-type]
        for r in rows
    ]


def _mano(rows: list[ShardSample]) -> list[ManoTarget]:
    poses = [r.sample.mano for r in rows]
    return [
        ManoTarget(p, "annotated", mirrored=r.sample.side == "left", residual_mm=1.0, residual_px=1.0)
        for r, p in zip(rows, poses, strict=True)
        if p is not None
    ]


def usual_loader(folder: Path, weights: Mapping[str, float], seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """What a training script of the field does; the labels of the sidecars come with the sample here."""
    rng = np.random.default_rng(seed)
    sets = []
    for size in weights:
        urls = [str(path) for path in sorted((folder / size / IMAGES).glob("*.tar"))]
        sets.append(webdataset.WebDataset(urls, shardshuffle=False).shuffle(200).repeat())
    dataset = webdataset.RandomMix(sets, probs=list(weights.values()), longest=True)
    samples = (_usual_sample(entry, rng) for entry in dataset)
    while True:
        yield torch.utils.data.default_collate(list(itertools.islice(samples, BATCH)))


def _usual_sample(entry: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    facts = json.loads(entry["json"])
    labels = dict(np.load(io.BytesIO(entry["npz"])))
    bgr = cv2.imdecode(np.frombuffer(entry["jpg"], np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    width = image.shape[1]
    x0, y0, x1, y1 = facts["box_xyxy_px"]
    points, points_3d = labels["joints_2d_px"].copy(), labels["joints_cam_m"] - labels["joints_cam_m"][:1]
    pose = labels["mano_pose_aa"].copy()
    center = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    if facts["side"] == "left":
        image = image[:, ::-1]
        points[:, 0], center[0] = width - 1 - points[:, 0], width - 1 - center[0]
        points_3d[:, 0] *= -1
        pose[:, 1:] *= -1
    side = BOX_SCALE * max(y1 - y0, (x1 - x0) * 4 / 3)
    center = center + side * 0.02 * np.clip(rng.standard_normal(2), -1, 1)
    side *= 1 + 0.3 * np.clip(rng.standard_normal(), -1, 1)
    angle = 30 * np.clip(rng.standard_normal(), -2, 2) if rng.random() < 0.6 else 0.0
    factor = side / CROP_PX
    if factor > 1.1:
        image = cv2.GaussianBlur(image, (0, 0), (factor - 1) / 2)
    affine = cv2.getRotationMatrix2D(center.tolist(), -angle, 1 / factor)
    affine[:, 2] += CROP_PX / 2 - center
    crop = cv2.warpAffine(np.ascontiguousarray(image), affine, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR)
    pixels = crop.transpose(2, 0, 1).astype(np.float32)
    for channel in range(3):
        pixels[channel] = np.clip(pixels[channel] * rng.uniform(0.8, 1.2), 0, 255)
        pixels[channel] = (pixels[channel] - MEAN[channel]) / STD[channel]
    for joint in range(21):
        points[joint] = (affine @ np.array([*points[joint], 1.0])) / CROP_PX - 0.5
    turn = cv2.Rodrigues(np.array([0, 0, np.deg2rad(angle)]))[0]
    pose[0] = cv2.Rodrigues(turn @ cv2.Rodrigues(pose[0].astype(np.float64))[0])[0][:, 0]
    return {
        "img": pixels[:, :, 32:224],
        "keypoints_2d": np.concatenate([points, labels["joints_2d_conf"][:, None]], 1).astype(np.float32),
        "keypoints_3d": (points_3d @ turn.T).astype(np.float32),
        "global_orient": pose[0],
        "hand_pose": pose[1:].ravel(),
        "betas": labels["mano_betas"],
        "box_center": center,
        "box_size": side,
        "right": np.float32(1),
    }


def round_ms(steps: Mapping[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """CPU milliseconds per sample of steps that make a batch each.

    They take turns batch by batch, so that whatever else a machine is busy with slows all of them alike.
    """
    spent = dict.fromkeys(steps, 0.0)
    for _ in range(turns):
        for name, step in steps.items():
            started = time.process_time()
            step()
            spent[name] += time.process_time() - started
    return {name: seconds / turns / BATCH * 1e3 for name, seconds in spent.items()}


def recipe(weights: Mapping[str, float]) -> Recipe:
    augment = {"scale": 0.3, "rotation_deg": 30.0, "rotation_probability": 0.6, "color_gain": 0.2}
    data = {
        "crop_px": CROP_PX,
        "box_scale": BOX_SCALE,
        "train": json.dumps(dict(weights)),
        "keypoints.detector": "benchmark",
    }
    data |= {f"augment.{key}": value for key, value in augment.items()}
    return load_recipe("tiny", [*(f"data.{k}={v}" for k, v in data.items()), f"training.optim.batch={BATCH}"])


def measure(case: str) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    weights = CASES[case]
    with tempfile.TemporaryDirectory() as scratch:
        size_bytes = {size: write_set(storage.join(scratch, size), size) / SIZES[size][3] for size in weights}
        files = {size: _files(storage.join(scratch, size)) for size in weights}
        settings = recipe(weights)
        ours, usual = train_batches(settings, scratch), usual_loader(Path(scratch), weights, 0)
        ready, _ = next(ours), next(usual)  # opens the shards
        rng = np.random.default_rng(0)

        def decode() -> None:
            for size in rng.choice(list(weights), BATCH, p=list(weights.values())):
                cv2.imdecode(next(files[size]), cv2.IMREAD_COLOR)

        steps: dict[str, Callable[[], object]] = {
            "decode": decode,
            "ours": lambda: next(ours),
            "usual": lambda: next(usual),
            "normalizing": lambda: ready.image,
        }
        # Lanes fetch their shards at about the same time: a round is long enough for every lane to fetch one.
        turns = math.ceil(
            max(settings.data.shard_streams * SIZES[size][-1] / weights[size] for size in weights) / BATCH
        )
        ms = min((round_ms(steps, turns) for _ in range(ROUNDS)), key=lambda ms: sum(ms.values()))
    print(
        f"{case:10} {sum(weights[size] * size_bytes[size] for size in weights) / 1e3:7.0f} {ms['decode']:10.3f} "
        f"{ms['ours']:8.3f} {ms['usual']:9.3f} {1e3 / ms['ours']:12.0f} {ms['decode'] / ms['ours']:15.2f} "
        f"{ms['usual'] / ms['ours']:12.2f} {ms['normalizing']:15.3f}",
        flush=True,
    )


def measure_photos() -> None:
    """CPU milliseconds per crop of 128 px with each effect on every crop, and with all of them as the training of
    rendered hands has them."""
    cv2.setNumThreads(1)
    coarse = np.random.default_rng(0).integers(0, 256, (BATCH, 16, 16, 4)).astype(np.uint8)
    crops = np.stack([cv2.resize(one, (128, 128), interpolation=cv2.INTER_CUBIC) for one in coarse])
    crops[..., 3] = 255
    cases = {key: {"effect_probability": 1.0, key: value} for key, value in PHOTOS.items()} | {"all": PHOTOS}
    del cases["effect_probability"]
    indices = itertools.count()
    steps: dict[str, Callable[[], object]] = {}
    for name, values in cases.items():
        always = {key: 1.0 if name == key and key.endswith("_probability") else value for key, value in values.items()}
        steps[name] = functools.partial(_degrade_next, AugmentConfig.model_validate(always), crops, indices)
    for step in steps.values():
        step()
    ms = min((round_ms(steps, 10) for _ in range(ROUNDS)), key=lambda ms: sum(ms.values()))
    print("\n".join(f"{name:22} {value:.3f} ms" for name, value in ms.items()), flush=True)


def _degrade_next(config: AugmentConfig, crops: np.ndarray, batches: Iterator[int]) -> None:
    effects = draw_photo_effects(config, 0, next(batches) * BATCH + np.arange(BATCH))
    assert effects is not None
    degrade(crops.copy(), effects)


def _files(uri: str) -> Iterator[np.ndarray]:
    """The images of a set, for ever."""
    return itertools.cycle([np.frombuffer(row.sample.image, np.uint8) for row in ShardSet.open(uri)])


def main() -> None:
    if sys.argv[1:] == ["photos"]:
        return measure_photos()
    mixture.KEEP_BYTES = 0
    print("image    kB/file  decode ms  ours ms  usual ms  ours/s/core  of bare decode  times usual  normalizing ms")
    for case in sys.argv[1:] or CASES:
        measure(case)


if __name__ == "__main__":
    main()
