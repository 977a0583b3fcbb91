"""The influence of tokens on joints: the measurement against brute force, and its uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from maskhand.config import SamplerConfig, TokenizerConfig
from maskhand.conventions import openpose_joint_of_mano_joint
from maskhand.hand.layer import ManoLayer
from maskhand.models.bundle import ModelBundle
from maskhand.models.bundle_records import BundleError
from maskhand.models.influence import (
    influenced_joints,
    initial_influence,
    joint_from_tokens,
    most_influenced_joint,
    token_influence,
)
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.sampling import predict
from maskhand.models.tokenizer_files import TokenizerFileError, load_tokenizer, save_tokenizer
from maskhand.models.vq_mano import VQMano
from maskhand.training import tokenizer_loop
from maskhand.training.worker import WorkerContext
from support.model_parts import random_batch, random_poses, small_model, small_recipe
from support.training_fakes import FolderStore, poses
from support.training_fakes import small_recipe as training_recipe

SMALL = TokenizerConfig(num_tokens=24, codebook_size=12, code_dim=6, width=16)


class NextTokens(nn.Module):
    """A decoder in which joint j is that of token j + 1, with a tenth of token j + 2."""

    def __init__(self, codebook: torch.Tensor) -> None:
        super().__init__()
        self.mean, self.std = codebook.mean(0)[:, None], codebook.std(0)[:, None]

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        codes = (codes - self.mean) / self.std
        flat = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])[:, None]
        return flat + 0.2 * codes.roll(-1, 2) + 0.02 * codes.roll(-2, 2)


def tokenizer_of_next_tokens() -> VQMano:
    """Token i influences joint i - 1, which its position in the sequence (the floor of 16 i / L) does not show."""
    torch.manual_seed(0)
    tokenizer = VQMano(SMALL.model_copy(update={"num_tokens": 16, "codebook_size": 64}))
    tokenizer.encoder = nn.Identity()  # 6D rotations are the vectors
    tokenizer(random_poses(64))  # starts the codebook
    tokenizer.decoder = NextTokens(tokenizer.codebook)
    return tokenizer.freeze()


def turned_rad(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((Rotation.from_matrix(a.numpy()).inv() * Rotation.from_matrix(b.numpy())).magnitude())


def test_influence_is_what_brute_force_finds() -> None:
    torch.manual_seed(0)
    tokenizer, hands = VQMano(SMALL), random_poses(5, seed=2)
    tokenizer(random_poses(64))
    tokenizer.freeze()
    ids = tokenizer.encode(hands)
    expected = np.zeros((24, 16))
    for joint in range(16):
        decoded = tokenizer.decode_codes(ids)[:, joint]
        between = np.mean([turned_rad(decoded[n], decoded[(n + 1) % 5]) for n in range(5)])
        for token in range(24):
            turns = []
            for n in range(5):
                swapped = ids[n : n + 1].clone()
                swapped[0, token] = ids[(n + 1) % 5, token]
                if swapped[0, token] != ids[n, token]:
                    turns.append(turned_rad(tokenizer.decode_codes(swapped)[0, joint], decoded[n]))
            expected[token, joint] = np.mean(turns) / between if turns else 0.0
    np.testing.assert_allclose(token_influence(tokenizer, hands).numpy(), expected, atol=2e-4)
    assert expected.max() > 0.05


def test_a_token_belongs_to_the_joint_that_it_moves_wherever_it_stands() -> None:
    influence = token_influence(tokenizer_of_next_tokens(), random_poses(64))
    assert most_influenced_joint(influence).tolist() == [15, *range(15)], "the floor of 16 i / L is 0, 1, ..., 15"
    assert torch.equal(influenced_joints(influence).sum(1), torch.ones(16, dtype=torch.int64)), (
        "a tenth as much is too little"
    )
    wide = influence.roll(-1, 1) * 0.6 + influence
    assert torch.equal(influenced_joints(wide).sum(1), torch.full((16,), 2))
    assert influence.amax(1).min() > 0.8 and influence.amax(1).max() < 1.2, "alone it determines its joint"


def test_a_joint_is_known_from_its_tokens_by_their_influence() -> None:
    influence = torch.rand(32, 16)
    influence[:, 3] = 0.0
    weights = joint_from_tokens(influence)
    assert torch.allclose(weights.sum(0), torch.ones(16))
    assert torch.allclose(weights[:, 0], influence[:, 0] / influence[:, 0].sum(), atol=1e-6)
    assert torch.allclose(weights[:, 3], torch.full((32,), 1 / 32)), "one that never moved weighs tokens equally"


@pytest.mark.parametrize("tokens", [8, 16, 24, 96])
def test_before_anything_is_measured_a_token_speaks_of_its_stretch(tokens: int) -> None:
    covered = initial_influence(tokens)
    assert covered.shape == (tokens, 16)
    assert torch.allclose(covered.sum(0), torch.ones(16)) and torch.allclose(
        covered.sum(1), torch.full((tokens,), 16 / tokens)
    )
    assert torch.equal(VQMano(SMALL.model_copy(update={"num_tokens": tokens})).influence, covered)


def test_confidence_reference_points_and_first_adjacency_follow_the_measurement() -> None:
    recipe = small_recipe(pose2d_tokens=21, ref_points="pose2d")
    tokenizer = tokenizer_of_next_tokens()
    tokenizer.influence.copy_(token_influence(tokenizer, random_poses(64)))
    model = MaskedTransformer(recipe.model, tokenizer, ManoLayer.from_default(), recipe.data.image_size_px).eval()
    moved = [15, *range(15)]
    of_token = [openpose_joint_of_mano_joint()[joint] for joint in moved]
    assert model.reference.joints[21:].tolist() == of_token
    neighbors = model.gapr[0].adjacency_logits[21:, :21] > 0
    assert all(neighbors[token, joint] for token, joint in enumerate(of_token))
    hands = predict(model, random_batch(2), SamplerConfig(iterations=1))
    main = hands.tokens.confidence[:, [1 + joint if joint < 15 else 0 for joint in range(16)]]
    assert torch.allclose(hands.token_confidence_of_joints, main, atol=0.1 * float(hands.tokens.confidence.amax()))
    correlation = torch.corrcoef(torch.stack([hands.token_confidence_of_joints[0], main[0]]))[0, 1]
    assert correlation > 0.95


def test_an_export_knows_its_joints_and_a_bundle_carries_them(tmp_path: Path) -> None:
    recipe = training_recipe()
    store = FolderStore(tmp_path / "run")
    tokenizer_loop.train(
        recipe, ManoLayer.from_default(), poses(recipe), WorkerContext(0, 1, lambda step, metrics: None, store)
    )
    folder = tmp_path / "run" / "step-000000012" / "export"
    tokenizer = load_tokenizer(folder)
    batch, settings = recipe.tokenizer_training.optim.batch, recipe.tokenizer_training
    stream = poses(recipe)(0)
    hands = torch.cat(
        [
            tokenizer_loop.rotate_hands(next(stream), torch.arange(batch), batch, settings, recipe.seed, step)
            for step in range(tokenizer_loop.INFLUENCE_HANDS // batch)
        ]
    )
    assert torch.allclose(tokenizer.influence, token_influence(tokenizer, hands), atol=1e-5)
    assert not torch.allclose(tokenizer.influence, initial_influence(16), atol=0.1)

    model = MaskedTransformer(recipe.model, tokenizer, ManoLayer.from_default(), recipe.data.image_size_px)
    ModelBundle.save(tmp_path / "bundle", model, recipe, {})
    loaded = ModelBundle.load(tmp_path / "bundle").model
    assert torch.equal(loaded.tokenizer.influence, tokenizer.influence)
    assert torch.equal(loaded.reference.joints, model.reference.joints)

    model = small_model(small_recipe())
    del model.tokenizer._buffers["influence"]
    ModelBundle.save(tmp_path / "older", model, small_recipe(), {})
    with pytest.raises(BundleError, match=r"(?s)model\.pt: weights do not fit.*influence.*export it again"):
        ModelBundle.load(tmp_path / "older")
    weights = {name: value for name, value in tokenizer.state_dict().items() if name != "influence"}
    save_tokenizer(tmp_path / "old", weights, recipe, {})
    with pytest.raises(TokenizerFileError, match=r"(?s)tokenizer\.pt.*influence.*train it again"):
        load_tokenizer(tmp_path / "old")
