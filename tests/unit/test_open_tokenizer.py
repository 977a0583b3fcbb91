"""The tokenizer that ships: small, complete, of the recipe that names it, and as accurate as documented."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from maskhand.conventions import NUM_BETAS
from maskhand.hand.anatomy import pose_table, to_axis_angle
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix
from maskhand.loading.poses import PosePool
from maskhand.models.influence import most_influenced_joint, token_influence
from maskhand.models.tokenizer_files import TokenizerFileError, load_tokenizer, tokenizer_folder
from maskhand.paper.measures.tokenizer import reconstruction_errors
from maskhand.recipe_files import load_recipe
from maskhand.shipped_models import OPEN_TOKENIZERS
from maskhand.synth.pose_prior import sample_poses

OPEN_TOKENIZER = OPEN_TOKENIZERS["open"]


def turned(angles_deg: np.ndarray, seed: int) -> PosePool:
    pose = to_axis_angle(angles_deg)
    pose[:, 0] = Rotation.random(len(pose), random_state=np.random.default_rng(seed)).as_rotvec()
    return PosePool(pose.astype(np.float32), np.zeros((len(pose), NUM_BETAS), np.float32))


def test_it_is_small_and_fits_the_recipe_open(tmp_path) -> None:
    assert sum(path.stat().st_size for path in OPEN_TOKENIZER.iterdir()) < 10e6
    load_tokenizer(tokenizer_folder("open"), load_recipe("open").tokenizer)
    with pytest.raises(TokenizerFileError, match="num_tokens"):
        load_tokenizer(OPEN_TOKENIZER, load_recipe("tiny").tokenizer)
    assert tokenizer_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("group", ["prior", "grasp", "alphabet"])
def test_it_loses_less_than_a_millimeter_of_poses_it_has_not_seen(group: str) -> None:
    table = pose_table()
    named = table.angles_deg[[g == group for g in table.groups]]
    poses = turned(sample_poses(np.random.default_rng(99), 200) if group == "prior" else named.repeat(6, 0), seed=7)
    errors = reconstruction_errors(load_tokenizer(OPEN_TOKENIZER), ManoLayer.from_default(), poses)
    assert errors["pa_mpjpe_mm"] < 0.6 and errors["pa_mpvpe_mm"] < 0.5
    assert errors["mpjpe_mm"] < 2 and errors["orientation_deg"] < 1.6 and errors["rotation_deg"] < 0.8


def test_it_has_the_measured_influence_of_its_tokens() -> None:
    """Measured again on a few other hands; the floor of 16 i / L names the wrong joint for most tokens."""
    tokenizer = load_tokenizer(OPEN_TOKENIZER)
    poses = turned(sample_poses(np.random.default_rng(5), 24), seed=8)
    again = token_influence(tokenizer, axis_angle_to_matrix(torch.from_numpy(poses.pose_aa)))
    own = most_influenced_joint(tokenizer.influence)
    assert int((own != torch.arange(64) * 16 // 64).sum()) == 54
    assert int((own != most_influenced_joint(again)).sum()) <= 10
    correlation = np.corrcoef(tokenizer.influence.flatten(), again.flatten())[0, 1]
    assert correlation > 0.97
