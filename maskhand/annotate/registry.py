"""The keypoint detectors by name. A detector's module, and LiteRT or torch with it, is imported on loading."""

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
"""Detectors that use an accelerator if there is one; the others use only the CPU."""

DETECTORS: dict[str, Callable[[Path], KeypointDetector]] = {"litert-hand": _litert, "openpose-hand": _openpose}


def load_detector(name: str, assets: str | Path) -> KeypointDetector:
    """The detector of that name, with model files from the assets folder (downloaded if missing).

    Raises ValueError for an unknown name and `maskhand.fetched_models.AssetError` if a model file is not available.
    """
    if name not in DETECTORS:
        raise ValueError(f"unknown keypoint detector {name!r}; known detectors: {', '.join(sorted(DETECTORS))}")
    return DETECTORS[name](Path(assets))


def detector_files(name: str, assets: str | Path) -> CarriedFolder:
    """The model files of a detector, to be sent to other machines; downloaded here if missing."""
    if name == "litert-hand":
        return carried_hand_models(assets)
    return CarriedFolder.of(assets, [OPENPOSE_FILE] if name == "openpose-hand" else [])
