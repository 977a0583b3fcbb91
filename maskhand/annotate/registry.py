"""The keypoint detectors by name. A detector's module, and with it LiteRT or torch, is imported when it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from maskhand.annotate.detectors import KeypointDetector


def _litert(assets: Path) -> KeypointDetector:
    from maskhand.annotate.litert import LitertHand

    return LitertHand(assets)


def _openpose(assets: Path) -> KeypointDetector:
    from maskhand.annotate.openpose import OpenPoseHand

    return OpenPoseHand.from_assets(assets)


ON_GPU = frozenset({"openpose-hand"})
"""Detectors that use an accelerator where there is one; the others need the CPU only."""

DETECTORS: dict[str, Callable[[Path], KeypointDetector]] = {"litert-hand": _litert, "openpose-hand": _openpose}


def load_detector(name: str, assets: str | Path) -> KeypointDetector:
    """The detector of that name, its model files taken from (or fetched into) the assets folder.

    Raises ValueError for an unknown name and `maskhand.fetched_models.AssetError` when a model file cannot be had.
    """
    if name not in DETECTORS:
        raise ValueError(f"unknown keypoint detector {name!r}; known detectors: {', '.join(sorted(DETECTORS))}")
    return DETECTORS[name](Path(assets))
