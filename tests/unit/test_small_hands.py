"""Hands of few pixels: found by the finer search where the usual one has none, and nothing where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskhand.annotate.hand_finder import find_hands
from maskhand.annotate.palms import PalmNet
from maskhand.annotate.small_hands import SmallHandFinder
from maskhand.predict import PredictError
from maskhand.predict.pictures import GivenCamera
from maskhand.steps.given_options import GivenOptions
from maskhand.steps.prepare_predict import prepare_run
from maskhand.workspace import Workspace

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_hands_of_16_pixels_are_found_in_finer_tiles(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from small_hands import judged, picture

    known = picture(np.random.default_rng([16, 1]), (400, 300), 16, 3)
    usual = [hand.box_xyxy_px for hand in find_hands(known.image, assets)]
    finer = SmallHandFinder(str(assets))(known.image)
    hits, false = judged([hand.box_xyxy_px for hand in finer], known.boxes)
    assert judged(usual, known.boxes)[0] < 2 <= hits and false == 0
    assert [hand.score for hand in finer] == sorted((hand.score for hand in finer), reverse=True)
    empty = picture(np.random.default_rng(0), (400, 300), 16, 0)
    assert SmallHandFinder(str(assets))(empty.image) == []


@pytest.mark.parametrize(("size_px", "searched"), [(200, {200}), (400, {400, 200})])
def test_a_small_picture_that_shows_a_hand_is_searched_as_a_whole(
    assets: Path, monkeypatch: pytest.MonkeyPatch, size_px: int, searched: set[float]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from small_hands import picture

    sides: list[float] = []
    palms = PalmNet.in_tiles
    monkeypatch.setattr(PalmNet, "in_tiles", lambda *a, **k: sides.append(a[2]) or palms(*a, **k))
    shown = picture(np.random.default_rng(1), (size_px, size_px), size_px / 2, 1)
    assert find_hands(shown.image, assets) and set(sides) == searched


def test_what_was_found_is_judged_by_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from small_hands import judged

    true = [np.array([0.0, 0, 10, 10]), np.array([50.0, 50, 60, 60])]
    found = [np.array([1.0, 0, 11, 10]), np.array([0.0, 1, 10, 11]), np.array([80.0, 80, 90, 90])]
    assert judged(found, true) == (1, 1)


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        ({}, {"small": True, "box_xyxy_px": (1, 2, 3, 4)}, "--small: boxes are given, so no hands are searched"),
        ({"boxes": Path("boxes.json")}, {"small": True}, "--small: boxes are given"),
        ({}, {"components": 6}, "--pca: components are for the hands of body models; add --convention"),
        ({"camera": GivenCamera(9.0, (9, 9, 1, 1))}, {}, "both a focal length and intrinsics are given"),
        ({}, {"box_xyxy_px": (10, 10, 5, 5)}, "--box 10,10,5,5: expected X0,Y0,X1,Y1 with X0 < X1 and Y0 < Y1"),
        ({"camera": GivenCamera(None, (9, -9, 1, 1))}, {}, "expected fx,fy,cx,cy in pixels, the first two above 0"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_read(
    given: dict, options: dict, words: str, tmp_path: Path
) -> None:
    home = Workspace(tmp_path / "workspace", str(tmp_path / "shards"))
    with pytest.raises(PredictError, match=words):
        prepare_run(home, ["no-such.jpg"], tmp_path / "out", GivenOptions(method="fit", **given), **options)
    assert not (tmp_path / "out").exists()
