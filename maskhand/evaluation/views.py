"""A hand of a set as pictures show it: its square crop, and what is known of the hand drawn over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskhand.arrays import Array
from maskhand.batch import HandBatch
from maskhand.conventions import MIRROR_POINT
from maskhand.evaluation.truth import target_meshes
from maskhand.geometry2d import compose, mirror_affine
from maskhand.hand.layer import ManoLayer
from maskhand.loading.crop import crop_encoded
from maskhand.loading.labels import annotated_target
from maskhand.render import GROUND_TRUTH_RGB, MESH_RGB, draw_keypoints, overlay_mesh
from maskhand.shards.reader import ShardSample, ShardSet


def read_samples(shard_set: ShardSet, indices: Sequence[int]) -> list[ShardSample]:
    """The samples at these positions of a set, in their order."""
    ends = np.cumsum(shard_set.shard_counts)
    shard_of = {index: int(np.searchsorted(ends, index, side="right")) for index in indices}
    rows: dict[int, ShardSample] = {}
    for shard in sorted(set(shard_of.values())):  # one shard in memory at a time
        loaded = shard_set.load(shard)
        rows |= {i: loaded.sample(i - loaded.first_index) for i in indices if shard_of[i] == shard}
    return [rows[i] for i in indices]


@dataclass(frozen=True)
class HandView:
    """One hand's square crop at the tile's resolution; mirrored like the batch, shown as it was."""

    row: ShardSample
    crop_from_image: Array
    crop_px: int
    tile_px: int
    unreadable: bool
    """The image cannot be decoded: a black one is shown, as it was to the model."""

    @property
    def tile_from_image(self) -> Array:
        """(2, 3), from the (mirrored) image."""
        return self.crop_from_image * (self.tile_px / self.crop_px)

    @property
    def mirrored(self) -> bool:
        return self.row.sample.side == "left"

    @property
    def mirror(self) -> Array:
        """(3,) signs between the hand as it was seen and the right hand of the batch."""
        return MIRROR_POINT if self.mirrored else np.ones(3)

    @property
    def image(self) -> Array:
        if self.unreadable:
            return np.zeros((self.tile_px, self.tile_px, 3), np.uint8)
        affine = self.tile_from_image[None]
        if self.mirrored:
            affine = compose(affine, mirror_affine(np.array([self.row.sample.image_size_px[0]])))
        return np.ascontiguousarray(crop_encoded(self.row.sample.image, affine[0], self.tile_px)[..., :3])

    def shown(self, tile: Array) -> Array:
        return tile[:, ::-1] if self.mirrored else tile

    def keypoints(self, pose: Array) -> Array:
        """A 2D pose (21, 3+) in crop coordinates with confidence, over the image."""
        return draw_keypoints(self.image, (pose[:, :2] + 0.5) * self.tile_px, pose[:, 2])

    def joints(self, joints_px: Array) -> Array:
        """Joints (21, 2) in pixels of the stored image, over the image; nothing over it for those that are NaN."""
        points = np.array(joints_px, np.float64)
        if self.mirrored:
            points[:, 0] = self.row.sample.image_size_px[0] - 1 - points[:, 0]
        return draw_keypoints(self.image, points @ self.tile_from_image[:, :2].T + self.tile_from_image[:, 2])

    def mesh(
        self, vertices_cam_m: Array, K_px: Array, mano: ManoLayer, color: tuple[int, int, int] = MESH_RGB
    ) -> Array:
        """A hand (778, 3), as the image's camera sees it, over the image; nothing over it for one that failed."""
        if not np.isfinite(vertices_cam_m).all() or vertices_cam_m[:, 2].min() <= 0:
            return self.image
        K_px = np.array(K_px, np.float64)
        if self.mirrored:
            K_px[0, 2] = self.row.sample.image_size_px[0] - 1 - K_px[0, 2]
        tile_K_px = np.vstack([self.tile_from_image, [0, 0, 1]]) @ K_px
        return overlay_mesh(self.image, vertices_cam_m * self.mirror, mano.faces.cpu().numpy(), tile_K_px, color)

    def truth(self, mano: ManoLayer, hands: HandBatch, k: int) -> Array | None:
        """The annotated mesh seen by the annotated camera; None without one."""
        sample, target = self.row.sample, annotated_target(self.row.mano_target())
        if sample.camera is None:
            return None
        if sample.vertices_cam_m is not None:
            vertices = sample.vertices_cam_m
        elif target is not None:
            mesh = target_meshes(hands[k : k + 1], mano)
            vertices = (mesh.vertices_m[0].cpu().numpy() + target.pose.transl_cam_m) * self.mirror
        else:
            return None
        return self.mesh(vertices, sample.camera.K_px, mano, GROUND_TRUTH_RGB)
