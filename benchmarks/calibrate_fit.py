"""Make maskhand/predict/fit_calibration.json: what a fit's residual and its keypoints' confidence say of its joints.

    python benchmarks/calibrate_fit.py WORKSPACE [--out FILE]

Reads the training hands of the synthetic set (images, `keypoints.litert-hand`, annotated joints) that trainings hold
out (`data.held_out` of recipe `tiny`), fits them as `maskhand predict` does (assumed camera), fits the calibration, and
measures it on the evaluation set: expected calibration error, AUROC, and both for a constant per joint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from maskhand.annotate.detectors import Detections
from maskhand.annotate.fit.detected import fit_features, observe
from maskhand.annotate.fit.fitter import ManoFitter
from maskhand.conventions import MIRROR_POINT
from maskhand.evaluation.calibrate import fit
from maskhand.hand.assumed_camera import assumed_camera
from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.loading.loader import eval_range, held_out_rows
from maskhand.metrics.calibration import JointConfidenceQuality
from maskhand.metrics.samples import pa_joint_errors
from maskhand.models.calibration import WITHIN_MM
from maskhand.recipe_files import load_recipe
from maskhand.shards.reader import ShardSample

TRAINING, EVALUATION = "freihand_synth/training", "freihand_synth/evaluation"
DETECTOR = "litert-hand"


def fitted(rows: list[ShardSample]) -> tuple[np.ndarray, np.ndarray]:
    """(N, 21) errors in mm after alignment and (N, 21, 2) features of the hands that the detector saw."""
    seen = Detections.of_hands([keypoints for row in rows if (keypoints := row.keypoints(DETECTOR))])
    sides, sizes = [row.sample.side for row in rows], np.array([row.sample.image_size_px for row in rows])
    observed = observe(seen, sides, sizes, np.stack([assumed_camera(row.sample.image_size_px) for row in rows]))
    model = load_hand_model(default_hand_path("right"))
    fits = ManoFitter(model).fit(observed)
    pose = (torch.from_numpy(v.astype(np.float32)) for v in (fits.pose_aa, fits.betas, fits.transl_cam_m))
    joints = ManoLayer(model).from_axis_angle(*pose).joints_m.double().numpy()
    truth = np.stack([row.sample.joints_cam_m * (MIRROR_POINT if row.sample.side == "left" else 1.0) for row in rows])
    return 1e3 * pa_joint_errors(joints, truth, np.ones(joints.shape[:2], bool)), fit_features(observed, fits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--out", type=Path, default=Path("maskhand/predict/fit_calibration.json"))
    options = parser.parse_args()
    recipe, shards = load_recipe("tiny"), options.workspace / "shards"
    held_out = [
        row
        for rows in held_out_rows(recipe, str(shards / TRAINING), 256, 10_000)
        for row in rows.samples
        if row.keypoints(DETECTOR) is not None
    ]
    error_mm, features = fitted(held_out)
    calibration = fit(error_mm, features)
    options.out.write_text(calibration.model_dump_json(indent=1) + "\n")
    print(f"{len(held_out)} held-out hands, PA-MPJPE {error_mm.mean():.2f} mm -> {options.out}")
    measured = [row for rows in eval_range(recipe, str(shards / EVALUATION), 0, 10_000, 256) for row in rows.samples]
    error_mm, features = fitted([row for row in measured if row.keypoints(DETECTOR) is not None])
    said = calibration(features)
    quality = JointConfidenceQuality.of(said.p_within_10mm, said.p_by_joint, said.joint_error_mm, error_mm, WITHIN_MM)
    print(f"{len(error_mm)} evaluation hands, PA-MPJPE {error_mm.mean():.2f} mm")
    for name, value in vars(quality).items():
        print(f"{name}: {value:.3f}")


if __name__ == "__main__":
    main()
