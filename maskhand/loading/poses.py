"""The data loader of the tokenizer: batches of hand poses from MANO targets and pose-only files, without images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskhand import storage
from maskhand.arrays import Array
from maskhand.config import Recipe
from maskhand.conventions import NUM_BETAS
from maskhand.hand.array_archive import read_array_archive
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.loading.augment import POSE_STREAM, Draws
from maskhand.shards.layout import MANO
from maskhand.shards.manifest import read_manifest
from maskhand.shards.mixture import rows_per_rank
from maskhand.shards.reader import read_arrays
from maskhand.shards.sidecar_records import ManoTarget

MOCAP_FRACTION = 0.5
"""Fraction of the sampled poses that come from pose-only files when there are any."""

_MOST_BYTES = 1 << 34
"""Maximum size of an array of poses; a hundred million hands."""


@dataclass(frozen=True)
class PosePool:
    """The poses of one source, as right hands."""

    pose_aa: Array
    """(N, 16, 3) float32."""
    betas: Array
    """(N, 10) float32."""

    def __len__(self) -> int:
        return len(self.pose_aa)


def pose_batches(
    recipe: Recipe,
    shards_uri: str,
    *,
    mocap: Sequence[str] = (),
    rank: int = 0,
    world: int = 1,
    start_step: int = 0,
    seed: int | None = None,
) -> Iterator[Tensor]:
    """Endless batches of rotmats (B, 16, 3, 3) float32 of one rank, from global step `start_step` on.

    Poses are sampled from the `mano` sidecars of the recipe's pose sets by their weights, and half of them from the
    `mocap` files (npz with hand_pose (N, 48) absolute axis-angle and betas (N, 10), as HaMeR's freihand_mocap.npz) if
    there are any. They are not augmented. B = `recipe.tokenizer_training.optim.batch // world`; row j of rank r is row
    r + j * world of a global batch that does not depend on the world size.
    """
    batch = recipe.tokenizer_training.optim.batch
    rows_per_rank(batch, world)
    pools = read_pools(recipe, shards_uri, mocap)
    return _draw(pools, batch, range(rank, batch, world), start_step, recipe.seed if seed is None else seed)


@dataclass(frozen=True)
class PosePools:
    """The poses of several sources."""

    poses: PosePool
    """Concatenated over the sources."""
    sizes: Array
    """(S,) number of poses of each source."""
    shares: Array
    """(S,) probability of each source."""

    def rows(self, source: Array, position: Array) -> Array:
        """The rows of `poses` for uniform numbers (B,) that choose the source, and the position in it."""
        pool = np.searchsorted(np.cumsum(self.shares) / np.sum(self.shares), source, side="right")
        firsts: Array = np.cumsum(self.sizes) - self.sizes
        chosen: Array = firsts[pool] + (position * self.sizes[pool]).astype(np.int64)
        return chosen


def read_pools(recipe: Recipe, shards_uri: str, mocap: Sequence[str]) -> PosePools:
    """The poses of the recipe's pose sets and of the `mocap` files; ValueError for a source without poses."""
    sets = recipe.data.pose_sets
    names, weights = list(sets), np.array(list(sets.values()), np.float64)
    pools = [read_mano_poses(f"{shards_uri.rstrip('/')}/{name}") for name in names]
    shares = weights / weights.sum()
    if mocap:
        pools.append(join_pools([read_mocap(uri) for uri in mocap]))
        shares = np.append(shares * (1 - MOCAP_FRACTION), MOCAP_FRACTION)
    for name, pool in zip([*names, *mocap[:1]], pools, strict=True):
        if len(pool) == 0:
            raise ValueError(f"{name} holds no MANO pose; nothing can be learned from it")
    return PosePools(join_pools(pools), np.array([len(p) for p in pools]), shares)


def _draw(pools: PosePools, batch: int, slots: range, step: int, seed: int) -> Iterator[Tensor]:
    while True:
        # Draw for the whole global batch; a rank keeps its rows.
        uniform = Draws(seed, np.array([step]), 2 * batch, POSE_STREAM).uniform(columns=2 * batch).reshape(2, batch)
        source, position = uniform[:, slots.start :: slots.step]
        pose_aa = pools.poses.pose_aa[pools.rows(source, position)]
        yield axis_angle_to_matrix(torch.from_numpy(pose_aa))
        step += 1


def read_mano_poses(set_uri: str) -> PosePool:
    """All good poses of a set's `mano` sidecar, in shard order; reads no images. ShardError if it is missing."""
    return join_pools([_pool([], []), *mano_poses_by_shard(set_uri)])


def mano_poses_by_shard(set_uri: str) -> Iterator[PosePool]:
    """As `read_mano_poses`, one shard at a time."""
    for entry in read_manifest(set_uri, MANO).shards:
        targets = [ManoTarget.decode(arrays) for _, arrays in read_arrays(storage.join(set_uri, MANO), entry)]
        good = [target.pose for target in targets if target.is_good]
        yield _pool([pose.pose_aa for pose in good], [pose.betas for pose in good])


def read_mocap(uri: str) -> PosePool:
    """Read a pose-only file; ValueError if its arrays are missing or have other shapes."""
    names = ("hand_pose", "betas")
    arrays = read_array_archive(storage.read_bytes(uri), uri, names, _MOST_BYTES)
    if missing := sorted(set(names) - arrays.keys()):
        raise ValueError(f"{uri}: array {missing[0]!r} is missing; expected hand_pose (N, 48), betas (N, 10)")
    pose, betas = arrays["hand_pose"], arrays["betas"]
    if pose.ndim != 2 or pose.shape[1] != 48 or betas.shape != (len(pose), NUM_BETAS):
        raise ValueError(f"{uri}: hand_pose {pose.shape}, betas {betas.shape}; expected (N, 48) and (N, 10)")
    return _pool(list(pose), list(betas))


def join_pools(pools: Sequence[PosePool]) -> PosePool:
    """Concatenate pools."""
    return PosePool(np.concatenate([p.pose_aa for p in pools]), np.concatenate([p.betas for p in pools]))


def _pool(poses: list[Array], betas: list[Array]) -> PosePool:
    return PosePool(
        np.asarray(poses, np.float32).reshape(-1, 16, 3), np.asarray(betas, np.float32).reshape(-1, NUM_BETAS)
    )
