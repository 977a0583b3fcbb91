"""Statistics of a shard set: from its manifests, and from one pass over its samples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

import numpy as np

from maskhand.conventions import MANO_16, NUM_BETAS, NUM_JOINTS, Side
from maskhand.inspection.spread import Histogram, Moments, Quantiles, RotationSpread
from maskhand.inspection.targets import target_of
from maskhand.sample import HandSample
from maskhand.shards.layout import IMAGES, detector_of, keypoint_part
from maskhand.shards.manifest import Manifest
from maskhand.shards.reader import ShardSample, ShardSet
from maskhand.shards.sidecar_records import ManoTarget, TargetFault, TargetSource

LABELS = tuple(f.name for f in fields(HandSample) if f.default is None)
"""The labels that a sample may lack."""


@dataclass(frozen=True)
class PartFacts:
    """Figures from the manifest of a part."""

    planned: int
    count: int
    rejects: Mapping[str, int]
    """Reason -> number."""
    digest: str
    made_by: str
    """Name and version of the annotator; empty for images."""

    @classmethod
    def of(cls, manifest: Manifest) -> PartFacts:
        by = manifest.annotator or {}
        made_by = f"{by['name']} {by['version']}" if by else ""
        return cls(manifest.planned, manifest.count, manifest.rejects, manifest.digest, made_by)


@dataclass(frozen=True)
class SetStatistics:
    """One shard set in numbers; the figures below `read` are about so many of its samples."""

    uri: str
    dataset: str
    split: str
    official_count: int | None
    parts: Mapping[str, PartFacts]
    """`images` first, then the sidecars."""
    left_out: Sequence[str]
    """Parts that are unfinished or were made from other images."""
    notes: Sequence[str]
    read: int
    sides: Mapping[Side, int]
    coverage: Mapping[str, int]
    """Label -> samples that have it."""
    joints_2d: Quantiles
    """Annotated 2D joints per hand, of hands with 2D labels."""
    joints_2d_conf: Quantiles
    """Confidence of the annotated joints."""
    joints_3d: Quantiles
    """Annotated 3D joints per hand, of hands with 3D labels."""
    image_px: Quantiles
    """Longer side of the image."""
    box_px: Quantiles
    """Longer side of the hand's box."""
    detected_conf: Mapping[str, Quantiles]
    """Keypoint sidecar -> its joints' confidence."""
    targets: Mapping[TargetSource, int]
    """Source of the MANO parameters -> samples."""
    good_targets: int
    """Those to learn from."""
    bad_targets: Mapping[TargetFault, int]
    """Fault -> the others."""
    residual_mm: Mapping[TargetSource, Quantiles]
    """Mean distance to the annotated 3D joints; predicted targets have none."""
    residual_px: Mapping[TargetSource, Quantiles]
    """Mean distance to the annotated keypoints."""
    pose_spread_deg: Mapping[str, float]
    """MANO joint -> spread of its rotation in good targets of right-hand form, see `spread.RotationSpread`."""
    betas_mean: Sequence[float]
    betas_std: Sequence[float]

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()


@dataclass
class Tally:
    """Adds up a set's samples, some at a time; its size does not depend on their number."""

    shard_set: ShardSet
    read: int = 0
    sides: Counter[Side] = field(default_factory=Counter)
    coverage: Counter[str] = field(default_factory=Counter)
    targets: Counter[TargetSource] = field(default_factory=Counter)
    faults: Counter[TargetFault] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._joints_2d, self._joints_3d = (Histogram(-0.5, NUM_JOINTS + 0.5, bins=NUM_JOINTS + 1) for _ in range(2))
        self._conf_2d = Histogram(0, 1)
        self._image, self._box = Histogram(1, 1e5, log=True), Histogram(1, 1e5, log=True)
        self._detected = {d: Histogram(0, 1) for d in map(detector_of, self.shard_set.sidecar_manifests) if d}
        sources = get_args(TargetSource)
        self._residual_mm = {source: Histogram(1e-4, 1e4, log=True) for source in sources}
        self._residual_px = {source: Histogram(1e-4, 1e4, log=True) for source in sources}
        self._pose, self._betas = RotationSpread(), Moments(NUM_BETAS)

    def add(self, rows: Sequence[ShardSample]) -> None:
        """The samples of one shard."""
        hands = [row.sample for row in rows]
        self.read += len(hands)
        self.sides.update(hand.side for hand in hands)
        for name in LABELS:
            self.coverage[name] += sum(getattr(hand, name) is not None for hand in hands)
        self._add_joints(hands)
        self._add_boxes(hands)
        for detector, histogram in self._detected.items():
            histogram.add(_stack([seen.confidence for row in rows if (seen := row.keypoints(detector))]))
        self._add_targets([target for row in rows if (target := target_of(row)) is not None])

    def _add_joints(self, hands: Sequence[HandSample]) -> None:
        conf = _stack([hand.joints_2d_conf for hand in hands if hand.joints_2d_conf is not None])
        if len(conf):
            self._joints_2d.add((conf > 0).sum(1))
            self._conf_2d.add(conf[conf > 0])
        valid = _stack([hand.joints_3d_valid for hand in hands if hand.joints_3d_valid is not None])
        if len(valid):
            self._joints_3d.add(valid.sum(1))

    def _add_boxes(self, hands: Sequence[HandSample]) -> None:
        if not hands:
            return
        box = np.stack([hand.box_xyxy_px for hand in hands])
        self._box.add((box[:, 2:] - box[:, :2]).max(1))
        self._image.add([max(hand.image_size_px) for hand in hands])

    def _add_targets(self, targets: Sequence[ManoTarget]) -> None:
        self.targets.update(target.source for target in targets)
        for source in self._residual_mm:
            mine = [target for target in targets if target.source == source]
            self._residual_mm[source].add([target.residual_mm for target in mine])
            self._residual_px[source].add([target.residual_px for target in mine])
        self.faults.update(target.fault for target in targets)
        good = [target.pose for target in targets if target.is_good]
        if good:
            self._pose.add(np.stack([pose.pose_aa for pose in good]).astype(np.float64))
            self._betas.add(np.stack([pose.betas for pose in good]).astype(np.float64))

    def statistics(self, left_out: Sequence[str] = ()) -> SetStatistics:
        images = self.shard_set.manifest
        manifests = {IMAGES: images, **self.shard_set.sidecar_manifests}
        return SetStatistics(
            uri=self.shard_set.uri,
            dataset=images.dataset,
            split=images.split,
            official_count=images.official_count,
            parts={part: PartFacts.of(manifest) for part, manifest in manifests.items()},
            left_out=left_out,
            notes=images.notes,
            read=self.read,
            sides={"right": self.sides["right"], "left": self.sides["left"]},
            coverage={name: self.coverage[name] for name in LABELS},
            joints_2d=self._joints_2d.quantiles(),
            joints_2d_conf=self._conf_2d.quantiles(),
            joints_3d=self._joints_3d.quantiles(),
            image_px=self._image.quantiles(),
            box_px=self._box.quantiles(),
            detected_conf={keypoint_part(detector): h.quantiles() for detector, h in self._detected.items()},
            targets=dict(sorted(self.targets.items())),
            good_targets=self.faults[""],
            bad_targets={fault: number for fault, number in sorted(self.faults.items()) if fault},
            residual_mm={source: self._residual_mm[source].quantiles() for source in sorted(self.targets)},
            residual_px={source: self._residual_px[source].quantiles() for source in sorted(self.targets)},
            pose_spread_deg=dict(zip(MANO_16, self._pose.degrees(), strict=False)),
            betas_mean=self._betas.mean(),
            betas_std=self._betas.std(),
        )


def _stack(rows: Sequence[Any]) -> np.ndarray:
    return np.stack(rows) if rows else np.zeros((0, 0))
