"""Hands of photos that nobody labeled: sure ones are listed, the others counted; what is listed is kept."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskhand.adapters.base import RawDataError
from maskhand.annotate import find_hands as subject
from maskhand.annotate.detectors import Detections, HandBox
from maskhand.annotate.find_hands import FindHands
from maskhand.steps import photos
from maskhand.workspace import Workspace


def hand(right: float, confidence: float) -> HandBox:
    detection = Detections(
        np.zeros((1, 21, 2), np.float32), np.full((1, 21), confidence), np.ones(1), np.array([right], np.float32)
    )
    return HandBox(np.array([1, 2, 30, 40], np.float32), "right" if right > 0.5 else "left", 0.9, detection)


def test_only_hands_that_can_be_told_are_listed(tmp_path: Path, monkeypatch) -> None:
    found = [hand(0.95, 0.9), hand(0.1, 0.8), hand(0.6, 0.9), hand(0.95, 0.1)]  # unsure side, unseen keypoints
    monkeypatch.setattr(subject, "find_hands", lambda image, assets: found)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 40, 3), np.uint8))
    (tmp_path / "b.jpg").write_bytes(b"no image")
    good, broken = FindHands(str(tmp_path), "assets")(["a.png", "b.jpg"])
    assert [entry["side"] for entry in good.hands or []] == ["right", "left"] and good.uncertain == 2
    assert good.hands[0]["box_xyxy_px"] == [1, 2, 30, 40]
    assert broken.hands is None


def test_a_folder_without_photos_and_a_damaged_list_are_sentences(tmp_path: Path) -> None:
    home = Workspace(tmp_path / "workspace", str(tmp_path / "shards"))
    with pytest.raises(RawDataError, match=r"no photo here; expected files that end in \.jpg"):
        photos.find(home, str(tmp_path), lambda *a: None)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 40, 3), np.uint8))
    for text, problem in (("{", "not valid JSON"), (json.dumps({"a.png": 3}), "expected a list of hands")):
        (tmp_path / "hands.json").write_text(text)
        with pytest.raises(RawDataError, match=problem):
            photos.find(home, str(tmp_path), lambda *a: None)
