"""The keypoint detectors by name. A detector's module, and with it LiteRT or torch, is imported when it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from maskhand.annotate.detectors import KeypointDetector
from maskhand.assets import OPENPOSE_FILE
from maskhand.carried import CarriedFolder
from maskhand.fetched_models import carried_hand_models


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


def detector_files(name: str, assets: str | Path) -> CarriedFolder:
    """The model files of a detector as they travel to other machines; fetched here where they are missing."""
    if name == "litert-hand":
        return carried_hand_models(assets)
    return CarriedFolder.of(assets, [OPENPOSE_FILE] if name == "openpose-hand" else [])
