"""Masked evaluation sets: a pure function of seed and key, only the hand is hidden, labels stay."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from maskhand.annotate.images import decode_rgb
from maskhand.sample import HandSample
from maskhand.shards.masked import GRID, Masking, build_masked, hidden_cells, mask_sample, masked_set
from maskhand.shards.reader import ShardSet
from maskhand.shards.verify import verify
from support.hand_sets import make_samples, write_set

PUBLISHED = (
    "##.#######.#.###.#.#####..##.##########.###.###########.########"
    "###.##..###.#########.##########################################"
    "#####.##.####.################################################.#"
    "#..#######################.#########.###.##.####################"
)


@pytest.mark.parametrize("share", [0.8, 0.9])
def test_the_draw_depends_on_seed_and_key_alone(share: float) -> None:
    masking = Masking(share)
    cells = hidden_cells("hand-0001", masking)
    assert cells.sum() == round(share * GRID**2)
    assert (cells == hidden_cells("hand-0001", masking)).all()
    assert (cells != hidden_cells("hand-0002", masking)).any()
    assert (cells != hidden_cells("hand-0001", Masking(share, seed=1))).any()
    often = np.mean([hidden_cells(f"hand-{k}", masking) for k in range(400)], axis=0)
    assert np.abs(often - share).max() < 0.1, "no place is preferred"


def test_the_generator_is_the_published_one() -> None:
    """These numbers are published results' masks: they must never change."""
    rows = hidden_cells("hand-0001", Masking(0.9))
    assert "".join("#" if hidden else "." for hidden in rows.ravel()) == PUBLISHED


def white(sample: HandSample) -> np.ndarray:
    """(H, W) which pixels are as they were, of a sample with a white image."""
    return decode_rgb(sample).min(axis=2) == 255


def test_only_the_hand_is_hidden() -> None:
    (sample,) = make_samples(1, size=(200, 160))
    blank = cv2.imencode(".png", np.full((160, 200, 3), 255, np.uint8))[1].tobytes()
    sample = HandSample(**{**vars(sample), "image": blank, "box_xyxy_px": np.array([60, 40, 140, 120], np.float32)})
    left = white(mask_sample(sample, Masking(0.8)))
    grown = left[32:128, 52:148]
    assert left.sum() == left.size - (~grown).sum(), "nothing outside of the grown box is touched"
    assert (~grown).mean() == pytest.approx(0.8, abs=0.005)
    outside = HandSample(**{**vars(sample), "box_xyxy_px": np.array([-40, -40, 40, 300], np.float32)})
    assert not white(mask_sample(outside, Masking(1.0)))[:, :48].any()
    assert white(mask_sample(outside, Masking(1.0)))[:, 49:].all()


def test_a_masked_set_is_a_set(tmp_path: Path) -> None:
    samples = make_samples(6, sides=("right", "left"))
    source = str(tmp_path / "dots" / "evaluation")
    write_set(source, samples)
    manifest = build_masked(source, Masking(0.8))
    target = masked_set(source, Masking(0.8))
    assert target == f"{source}-masked80" and verify(target) == []
    assert (manifest.dataset, manifest.split, manifest.count) == ("freihand_synth", "test-masked80", 6)
    for before, after in zip(ShardSet.open(source), ShardSet.open(target), strict=True):
        assert after.sample.key == before.sample.key and after.sample.side == before.sample.side
        np.testing.assert_array_equal(after.sample.joints_cam_m, before.sample.joints_cam_m)  # type: ignore[arg-type]
        assert after.sample.image != before.sample.image
    assert build_masked(source, Masking(0.8)) == manifest
    assert masked_set(source, Masking(0.8, seed=3)) != target


@pytest.mark.parametrize("share", [0, 1.1, -0.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="expected a number above 0 and at most 1"):
        Masking(share)
