"""Small shard sets for tests: posed hands of the open hand model, drawn as colored dots, in memory or on disk."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from maskhand import storage
from maskhand.conventions import BONES, MIRROR_AXIS_ANGLE, MIRROR_POINT, Side
from maskhand.hand.layer import ManoLayer
from maskhand.sample import Camera, HandPose, HandSample
from maskhand.shards.codec import encode_sample
from maskhand.shards.layout import IMAGES, manifest_uri, shard_name
from maskhand.shards.manifest import Manifest, entries_and_rejects
from maskhand.shards.writer import write_shard


def make_samples(
    count: int, *, size: tuple[int, int] = (200, 160), sides: Sequence[Side] = ("right",), seed: int = 0
) -> list[HandSample]:
    """Hands with every label; sample k has side sides[k % len]. A left hand is the mirror image of a right one."""
    rng = np.random.default_rng(seed)
    layer = ManoLayer.from_default()
    return [_sample(k, layer, rng, size, sides[k % len(sides)]) for k in range(count)]


def _sample(k: int, layer: ManoLayer, rng: np.random.Generator, size: tuple[int, int], side: Side) -> HandSample:
    width, height = size
    pose = rng.normal(0, 0.3, (16, 3))
    pose[0] = rng.normal(0, 1.5, 3)
    betas, transl = rng.normal(0, 1, 10), np.array([*rng.uniform(-0.02, 0.02, 2), rng.uniform(0.5, 0.7)])
    to_torch = lambda a: torch.tensor(a[None], dtype=torch.float32)  # noqa: E731
    with torch.no_grad():
        mesh = layer.from_axis_angle(to_torch(pose), to_torch(betas), to_torch(transl))
    joints, vertices = mesh.joints_m[0].double().numpy(), mesh.vertices_m[0].double().numpy()
    if side == "left":
        joints, vertices, transl = joints * MIRROR_POINT, vertices * MIRROR_POINT, transl * MIRROR_POINT
        pose = pose * MIRROR_AXIS_ANGLE
    camera = Camera(np.array([[300.0, 0, width / 2 + 3], [0, 300.0, height / 2 - 2], [0, 0, 1]]))
    joints_px = camera.project(joints)
    return HandSample(
        key=f"hand-{k:04d}",
        dataset="freihand_synth",
        image=cv2.imencode(".png", _image(joints_px, size))[1].tobytes(),
        image_format="png",
        image_size_px=size,
        side=side,
        box_xyxy_px=np.concatenate([joints_px.min(0), joints_px.max(0)]).astype(np.float32),
        camera=camera,
        joints_2d_px=joints_px.astype(np.float32),
        joints_2d_conf=np.ones(21, np.float32),
        joints_cam_m=joints.astype(np.float32),
        joints_3d_valid=np.ones(21, bool),
        vertices_cam_m=vertices.astype(np.float32),
        mano=HandPose(pose.astype(np.float32), betas.astype(np.float32), transl.astype(np.float32)),
        origin={"index": k},
    )


def _image(joints_px: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    image = np.dstack([np.tile(ramp, (height, 1)), np.full((height, width), 90, np.uint8), np.tile(ramp, (height, 1))])
    points = np.round(joints_px).astype(int)
    for a, b in BONES:
        cv2.line(image, points[a].tolist(), points[b].tolist(), (150, 180, 220), 5, cv2.LINE_AA)
    return image


def write_set(set_uri: str, samples: Sequence[HandSample], shard_size: int = 4) -> Manifest:
    """Write the samples as the images of a shard set."""
    part_uri = storage.join(set_uri, IMAGES)
    records = [
        write_shard(
            part_uri, shard_name(n), "test", ((s.key, encode_sample(s)) for s in samples[start : start + shard_size])
        )
        for n, start in enumerate(range(0, len(samples), shard_size))
    ]
    entries, rejects = entries_and_rejects(records)
    manifest = Manifest(
        part=IMAGES,
        dataset=samples[0].dataset,
        split="test",
        plan_digest="test",
        planned=len(samples),
        count=len(samples),
        rejects=rejects,
        shards=entries,
    )
    storage.write_bytes_atomic(manifest_uri(part_uri), manifest.to_json())
    return manifest
