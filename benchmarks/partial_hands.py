"""What a fit to a part of a hand is worth: which observations tell good targets from made-up ones.

    python benchmarks/partial_hands.py --hands 4000

Truth as in `fit.py`. Of each hand a part is seen: all joints; whole fingers hidden (one to four, with or without the
knuckle); what lies beyond a straight border of the image; the joints farthest from the camera; or joints at random. In
the image the hand's longer side is 10 to 200 px (log-uniform) and a coordinate's noise 1.5 % of it and half a pixel;
in space the noise is 1 to 8 mm. Printed per rule: which share of the hands that fit well it keeps, how many of those
are more than 10 mm off (all 21 joints, after similarity alignment), and how far hidden joints fall from their places.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from fit import Truth, make_truth, mesh, project

from maskhand.annotate.fit.evidence import Evidence
from maskhand.annotate.fit.fitter import Fits, ManoFitter
from maskhand.annotate.fit.hands import MAX_BETA, MAX_RESIDUAL_OF_HAND, MIN_HAND_PX, MIN_OBSERVED
from maskhand.annotate.fit.observed import Observed, no_relative
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.metrics.alignment import distances, procrustes_align

LIMIT_MM, MAX_RESIDUAL_MM = 10.0, 10.0
PATTERNS = 5
PALM = [0, 1, 5, 9, 13, 17]


@dataclass(frozen=True)
class Outcome:
    """B fitted hands that meet what was seen of them: the ones that a residual alone calls good."""

    seen: np.ndarray
    """(B, 21) bool."""
    hand_px: np.ndarray
    """(B,) longer side of the seen keypoints' box."""
    error_mm: np.ndarray
    """(B,) PA-MPJPE over all 21 joints."""
    hidden_off: np.ndarray
    """(B,) of the hidden joint farthest from its place in the image, in sides of the hand; 0 where all are seen."""

    def __len__(self) -> int:
        return len(self.seen)

    def __getitem__(self, rows: np.ndarray) -> Outcome:
        return Outcome(*(value[rows] for value in vars(self).values()))

    @property
    def fingers(self) -> np.ndarray:
        return np.array([Evidence.of(row.astype(float)).fingers for row in self.seen])


def hide(truth: Truth, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(B, 21) which joints are seen."""
    seen = np.ones(pixels.shape[:2], bool)
    for k, pattern in enumerate(rng.integers(0, PATTERNS, len(seen))):
        if pattern == 1:
            for finger in rng.permutation(5)[: rng.integers(1, 5)]:
                seen[k, 1 + 4 * finger + rng.integers(2) : 5 + 4 * finger] = False
        elif pattern > 1:
            angle = rng.uniform(0, 2 * np.pi)
            orders = (pixels[k] @ [np.cos(angle), np.sin(angle)], rng.random(21), truth.joints_m[k, :, 2])
            seen[k, np.argsort(orders[pattern - 2])[rng.integers(6, 21) :]] = False
    return seen


def fitted(truth: Truth, in_3d: bool, rng: np.random.Generator) -> Outcome:
    count = len(truth.joints_m)
    size_px = np.exp(rng.uniform(np.log(10), np.log(200), count))
    K = truth.K_px.copy()
    K[:, :2] *= (size_px / np.ptp(truth.joints_px, axis=1).max(1))[:, None, None]
    pixels = project(truth.joints_m, K)
    seen = hide(truth, pixels, rng)
    noise_px = np.hypot(0.015 * size_px, 0.5)[:, None, None] * rng.standard_normal(pixels.shape)
    noise_m = np.exp(rng.uniform(np.log(1e-3), np.log(8e-3), count))[:, None, None]
    weights = (seen.astype(float), np.zeros(seen.shape))
    joint_weight, keypoint_weight = weights if in_3d else weights[::-1]
    joints = truth.joints_m + noise_m * rng.standard_normal(truth.joints_m.shape)
    observed = Observed(joints, joint_weight, pixels + noise_px, keypoint_weight, K, *no_relative(count))
    fits = ManoFitter(load_hand_model(default_hand_path("right"))).fit(observed)
    found, _ = mesh(fits.pose_aa, fits.betas, fits.transl_cam_m)
    error_mm = 1000 * distances(procrustes_align(found, truth.joints_m, reflection=False), truth.joints_m).mean(1)
    off = np.linalg.norm(project(found, K) - pixels, axis=2) / size_px[:, None]
    outcome = Outcome(seen, fits.hand_px, error_mm, np.where(seen, 0.0, off).max(1))
    return outcome[_meets(fits) & (seen.sum(1) >= MIN_OBSERVED)]


def _meets(fits: Fits) -> np.ndarray:
    near = (fits.residual_mm <= MAX_RESIDUAL_MM) | (fits.residual_px <= MAX_RESIDUAL_OF_HAND * fits.hand_px)
    return near & (np.abs(fits.betas).max(1) <= MAX_BETA)


def say(name: str, outcome: Outcome, kept: np.ndarray) -> None:
    error, hidden = outcome.error_mm[kept], outcome.hidden_off[kept]
    print(
        f"| {name} | {kept.mean():.0%} | {(error > LIMIT_MM).mean():.1%} | {np.median(error):.1f} | "
        f"{np.quantile(error, 0.95):.1f} | {(hidden > 0.25).mean():.1%} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hands", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=11)
    given = parser.parse_args()
    torch.set_num_threads(1)
    head = f"kept | more than {LIMIT_MM:.0f} mm off | median mm | 95 % | a hidden joint off by a quarter of the hand"
    for in_3d in (True, False):
        outcome = fitted(make_truth(given.hands, given.seed), in_3d, np.random.default_rng(given.seed))
        large = outcome if in_3d else outcome[outcome.hand_px >= MIN_HAND_PX]
        count, fingers, palm = large.seen.sum(1), large.fingers, large.seen[:, PALM].sum(1)
        place = "3D joints" if in_3d else f"keypoints of hands of {MIN_HAND_PX:.0f} px or more"
        print(f"\n{len(large)} fits that meet their {place}\n| seen | {head} |\n|---|---|---|---|---|---|")
        for least in (8, 12, 16, 21):
            say(f"{least} joints", large, count >= least)
        say("16 joints, whole palm", large, (count >= 16) & (palm == len(PALM)))
        for least in (4, 5):
            say(f"2 joints of {least} fingers", large, fingers >= least)
        say("2 joints of 5 fingers, 4 of the palm", large, (fingers >= 5) & (palm >= 4))
        if not in_3d:
            good = outcome[outcome.fingers == 5]
            print(f"\n2 joints of 5 fingers, by the keypoints' box\n| px | {head} |\n|---|---|---|---|---|---|")
            for low, high in ((0, 12), (12, 17), (17, 24), (24, 34), (34, 68), (68, 200)):
                say(f"{low} to {high}", good, (good.hand_px >= low) & (good.hand_px < high))


if __name__ == "__main__":
    main()
