"""MANO targets of every hand of a shard set, as the sidecar part `mano`: annotated ones converted, others fitted.

Canonical form: right-hand parameters (a left hand is stored as the mirrored right hand: axis-angle (x, -y, -z),
translation (-x, y, z), with `mirrored` set), absolute axis-angle (flat hand = 0), meters, OpenCV camera axes.

Annotated parameters are posed with the configured hand model, and the 21 joints, with the fingertip vertices of the
dataset's card, are compared with the annotated joints. Hands without parameters, or with parameters too far off, are
fitted to their 3D joints or 2D keypoints (`annotate.fit`); a fit records its residual, what it was made from, and its
fault, if any.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from maskhand.annotate.fit.fitter import ManoFitter
from maskhand.annotate.fit.hands import MIN_OBSERVED, fit_hands
from maskhand.arrays import Array
from maskhand.catalog import load_spec
from maskhand.conventions import FINGERTIP_VERTICES, FINGERTIPS, MIRROR_AXIS_ANGLE, MIRROR_POINT, NUM_JOINTS
from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.sample import HandPose, HandSample, SampleError
from maskhand.shards.layout import IMAGES, MANO
from maskhand.shards.manifest import Manifest, read_manifest
from maskhand.shards.part import Mapper, OnShard, serial_map
from maskhand.shards.reader import ShardSample
from maskhand.shards.sidecar import Annotator, build_sidecar
from maskhand.shards.sidecar_records import ManoTarget

Entry = ManoTarget | SampleError

MAX_RESIDUAL_MM = 10.0
"""Default limit of the mean joint distance. It is below 1 for datasets whose joints were computed with MANO; fits to
independent joints (InterHand2.6M) are off by a few millimeters if they are good and by up to 42 if they are not."""
VERSION = "6"


@dataclass(frozen=True)
class AnnotateMano:
    """Makes the targets of one shard; picklable, loads the hand model once per process."""

    hand_path: str
    fingertip_vertices: str | None
    """Definition of the annotated tips, a key of `FINGERTIP_VERTICES`; None: tips are not compared."""
    max_residual_mm: float
    fingertip_vertices_left: str | None = None
    """The same for left hands, if it differs."""

    def __call__(self, samples: list[ShardSample]) -> list[Entry]:
        """For each sample, in order, its target, or why it has none.

        Residuals are the mean distance to the valid annotated joints, NaN if there are none.
        """
        hands = [row.sample for row in samples]
        entries: dict[int, Entry] = {}
        for name in dict.fromkeys(self._fingertips_of(hand) for hand in hands):
            rows = [k for k, hand in enumerate(hands) if self._fingertips_of(hand) == name]
            entries |= zip(rows, self._entries([hands[k] for k in rows], name), strict=True)
        return [entries[k] for k in range(len(hands))]

    def _fingertips_of(self, hand: HandSample) -> str | None:
        return (self.fingertip_vertices_left if hand.side == "left" else None) or self.fingertip_vertices

    def _entries(self, hands: Sequence[HandSample], fingertips: str | None) -> list[Entry]:
        poses = {k: right_hand_form(h) for k, h in enumerate(hands) if h.mano is not None}
        residuals_mm = dict(zip(poses, self._residuals_mm(hands, poses, fingertips), strict=True))
        far_off = {k for k, mm in residuals_mm.items() if mm > self.max_residual_mm}
        entries: dict[int, Entry] = {
            k: ManoTarget(pose, "annotated", mirrored=hands[k].side == "left", residual_mm=residuals_mm[k])
            for k, pose in poses.items()
            if k not in far_off
        }
        others = [k for k in range(len(hands)) if k not in entries]
        for k, fit in zip(others, self._fits([hands[k] for k in others], fingertips), strict=True):
            if fit is not None:
                entries[k] = fit
            elif k in far_off:
                entries[k] = self._too_far(hands[k], residuals_mm[k])
            else:
                entries[k] = _nothing_to_fit(hands[k])
        return [entries[k] for k in range(len(hands))]

    def _too_far(self, hand: HandSample, residual_mm: float) -> SampleError:
        return SampleError(
            "residual_too_large",
            f"{hand.key}: posed joints are {residual_mm:.1f} mm from the annotated ones on average, the limit is "
            f"{self.max_residual_mm:g} mm, and fewer than {MIN_OBSERVED} joints to fit others to are annotated",
        )

    def _fits(self, hands: Sequence[HandSample], fingertips: str | None) -> list[ManoTarget | None]:
        if not hands:
            return []
        fitter = fitter_of(self.hand_path, fingertips or "smplx")
        return fit_hands(hands, fitter, tips_are_vertices=fingertips is not None, max_residual_mm=self.max_residual_mm)

    def _residuals_mm(
        self, hands: Sequence[HandSample], poses: dict[int, HandPose], fingertips: str | None
    ) -> list[float]:
        if not poses:
            return []
        layer = _layer(self.hand_path, fingertips or "smplx")
        pose, betas, transl = (
            torch.from_numpy(np.stack([getattr(p, name) for p in poses.values()]).astype(np.float32))
            for name in ("pose_aa", "betas", "transl_cam_m")
        )
        with torch.inference_mode():
            posed = layer.from_axis_angle(pose, betas, transl).joints_m.double().numpy()
        annotated, valid = zip(*(_annotated(hands[k], fingertips) for k in poses), strict=True)
        distance_mm = 1000 * np.linalg.norm(posed - np.stack(annotated), axis=2)
        counts = np.sum(valid, axis=1)
        sums = np.sum(distance_mm * np.stack(valid), axis=1)
        return [float(s / n) if n else float("nan") for s, n in zip(sums, counts, strict=True)]


def _annotated(hand: HandSample, fingertips: str | None) -> tuple[Array, Array]:
    """(21, 3) annotated joints in right-hand form, and (21,) bool, whether they can be compared."""
    if hand.joints_cam_m is None:
        return np.zeros((NUM_JOINTS, 3)), np.zeros(NUM_JOINTS, bool)
    valid = np.ones(NUM_JOINTS, bool) if hand.joints_3d_valid is None else hand.joints_3d_valid.astype(bool)
    if fingertips is None:
        valid = valid & ~np.isin(np.arange(NUM_JOINTS), FINGERTIPS)
    joints = hand.joints_cam_m.astype(np.float64)
    return (joints * MIRROR_POINT if hand.side == "left" else joints), valid


def _nothing_to_fit(hand: HandSample) -> SampleError:
    return SampleError(
        "no_mano", f"{hand.key}: no MANO parameters and fewer than {MIN_OBSERVED} joints to fit them to are annotated"
    )


def right_hand_form(hand: HandSample) -> HandPose:
    """The sample's MANO parameters as those of a right hand: a left hand is mirrored at x = 0."""
    assert hand.mano is not None
    if hand.side == "right":
        return hand.mano
    return HandPose(
        (hand.mano.pose_aa * MIRROR_AXIS_ANGLE).astype(np.float32),
        hand.mano.betas,
        (hand.mano.transl_cam_m * MIRROR_POINT).astype(np.float32),
    )


@functools.lru_cache(maxsize=2)
def _layer(hand_path: str, fingertips: str) -> ManoLayer:
    return ManoLayer(load_hand_model(hand_path), fingertips)


@functools.lru_cache(maxsize=2)
def fitter_of(hand_path: str, fingertips: str) -> ManoFitter:
    """The fitter of a hand model file, cached per process."""
    return ManoFitter(load_hand_model(hand_path), fingertips)


def annotate_mano(
    set_uri: str,
    *,
    hand_path: str | Path | None = None,
    max_residual_mm: float = MAX_RESIDUAL_MM,
    mapper: Mapper = serial_map,
    rebuild: bool = False,
    on_shard: OnShard | None = None,
) -> Manifest:
    """Make the `mano` part of a set; finished shards are kept.

    hand_path: right-hand model file for the check and for fits (default: `default_hand_path`). Annotated parameters
    beyond `max_residual_mm` are replaced by a fit; hands with too few joints for one are rejected
    (`residual_too_large`, without parameters `no_mano`). Fits beyond the limit are kept with a fault. Raises ShardError
    if the part was made with another model or limit (`rebuild=True` replaces it).
    """
    path = str(default_hand_path("right") if hand_path is None else hand_path)
    spec = load_spec(read_manifest(set_uri, IMAGES).dataset)
    right, left = spec.fingertip_vertices_of("right"), spec.fingertip_vertices_of("left")
    settings = {
        "hand_model": load_hand_model(path).digest,
        "fingertip_vertices": [name and list(FINGERTIP_VERTICES[name]) for name in (right, left)],
        "max_residual_mm": max_residual_mm,
    }
    annotate = AnnotateMano(path, right, max_residual_mm, left)
    annotator = Annotator("mano-targets", VERSION, settings)
    return build_sidecar(set_uri, MANO, annotator, annotate, mapper=mapper, rebuild=rebuild, on_shard=on_shard)
