"""Masking: counts against the formula, support of the distribution, and masks that do not know the world size."""

from __future__ import annotations

import math

import pytest
import torch

from maskhand.config import MaskingConfig
from maskhand.models.decoding import schedule
from maskhand.recipe_files import load_recipe
from maskhand.training.masking import corrupt_tokens, mask_count, uniform

L, V = 64, 100


def corrupt(cfg: MaskingConfig, count: int = 512, step: int = 3, has_mano: float = 1.0, seed: int = 1):
    ids = torch.randint(V, (count, L), generator=torch.Generator().manual_seed(0))
    flags = torch.full((count,), has_mano)
    return corrupt_tokens(ids, flags, cfg, V, seed=seed, step=step, slots=torch.arange(count))


def test_mask_count_at_the_ends_of_tau() -> None:
    ends = torch.tensor([0.0, 1.0])
    assert mask_count(ends, L, MaskingConfig(tau_max=0.7)).tolist() == [64, 30]
    assert mask_count(ends, L, MaskingConfig(tau_max=1.0)).tolist() == [64, 1]
    assert mask_count(ends, L, MaskingConfig(tau_max=0.7, tau_reading="ratio")).tolist() == [1, 45]


def test_mask_count_is_the_paper_formula() -> None:
    tau = torch.linspace(0.01, 0.99, 50)
    expected = [math.ceil(math.cos(math.pi / 2 * 0.7 * t) * L) for t in tau.double().tolist()]
    assert mask_count(tau, L, MaskingConfig()).tolist() == expected


@pytest.mark.parametrize("name", ["tiny", "base", "open", "tiny_text"])
def test_training_masks_as_few_tokens_as_the_last_pass_of_the_recipes_own_sampler(name: str) -> None:
    """And not only at the very end of the range: a tenth of the training sequences are at least as full."""
    recipe = load_recipe(name)
    length = recipe.tokenizer.num_tokens
    taus = torch.linspace(0, 1, 20_001)[:-1]
    for iterations in {recipe.sampler.iterations, *recipe.evaluate.iterations} - {1}:
        last = schedule(length, iterations)[-2]
        share = (mask_count(taus, length, recipe.training.masking) <= last).float().mean().item()
        assert share > 0.1, (iterations, last)


def test_the_papers_masking_ends_before_the_last_of_five_passes_begins() -> None:
    """Why the other recipes differ: table 13's cap is kept where the paper is taken literally."""
    paper = load_recipe("paper")
    fewest = mask_count(torch.ones(1), 64, paper.training.masking).item()
    assert (paper.training.masking.tau_max, fewest, schedule(64, 5)[-2]) == (0.7, 30, 20)


def test_masked_counts_fill_their_support() -> None:
    counts = corrupt(MaskingConfig(), 4000).masked.sum(1)
    assert counts.min() == 30
    assert counts.max() == 64
    assert counts.unique().numel() == 35


def test_mask_id_stands_exactly_where_masked() -> None:
    corrupted = corrupt(MaskingConfig(random_token_rate=0.0))
    assert torch.equal(corrupted.ids == V, corrupted.masked)
    assert torch.equal(corrupted.ids[~corrupted.masked], corrupted.target_ids[~corrupted.masked])


def test_random_token_rate_is_kept_among_the_visible() -> None:
    corrupted = corrupt(MaskingConfig(random_token_rate=0.2), 4000)
    visible = ~corrupted.masked
    changed = (corrupted.ids != corrupted.target_ids) & visible
    assert (changed.sum() / visible.sum()).item() == pytest.approx(0.2 * (1 - 1 / V), abs=0.01)
    assert corrupted.ids[visible].max() < V


def test_every_position_is_masked_equally_often() -> None:
    share = corrupt(MaskingConfig(), 8000).masked.float().mean(0)
    assert (share.max() - share.min()).item() < 0.04


def test_image_is_dropped_at_its_rate() -> None:
    assert corrupt(MaskingConfig(drop_image=0.3), 8000).drop_image.float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert not corrupt(MaskingConfig(drop_image=0.0)).drop_image.any()


def test_pose_is_dropped_with_the_image_alone_and_at_its_rate() -> None:
    corrupted = corrupt(MaskingConfig(drop_image=0.4, drop_pose_too=0.5), 8000)
    assert not corrupted.drop_pose[~corrupted.drop_image].any()
    assert corrupted.drop_pose.float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_samples_without_mano_are_wholly_masked() -> None:
    assert corrupt(MaskingConfig(), has_mano=0.0).masked.all()


def test_a_share_of_the_samples_is_wholly_masked_and_the_others_are_as_before() -> None:
    before = corrupt(MaskingConfig(), 8000)
    mixed = corrupt(MaskingConfig(all_masked=0.3), 8000)
    whole = mixed.masked.all(1)
    assert whole[~before.masked.all(1)].float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(mixed.ids[~whole], before.ids[~whole])
    assert corrupt(MaskingConfig(all_masked=1.0)).masked.all()


def test_masks_do_not_depend_on_how_the_batch_is_cut() -> None:
    cfg = MaskingConfig()
    ids = torch.randint(V, (12, L))
    whole = corrupt_tokens(ids, torch.ones(12), cfg, V, seed=5, step=9, slots=torch.arange(12))
    for rank in range(3):
        mine = torch.arange(rank, 12, 3)
        part = corrupt_tokens(ids[mine], torch.ones(4), cfg, V, seed=5, step=9, slots=mine)
        assert torch.equal(part.ids, whole.ids[mine])
        assert torch.equal(part.drop_image, whole.drop_image[mine])


def test_steps_and_seeds_give_other_masks() -> None:
    first = corrupt(MaskingConfig()).masked
    assert torch.equal(first, corrupt(MaskingConfig()).masked)
    assert not torch.equal(first, corrupt(MaskingConfig(), step=4).masked)
    assert not torch.equal(first, corrupt(MaskingConfig(), seed=2).masked)


def test_uniform_is_splitmix64_and_uniform() -> None:
    def mix(x: int) -> int:
        bits = (1 << 64) - 1
        x = (x + 0x9E3779B97F4A7C15) & bits
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & bits
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & bits
        return x ^ (x >> 31)

    assert mix(1234567) == 6457827717110365317, "published test vector"
    wrap = (1 << 64) - 1
    state = mix((mix((mix(7) + 11) & wrap) + 13) & wrap)
    expected = [(mix((state + k * 0x9E3779B97F4A7C15) & wrap) >> 11) / 2**53 for k in range(5)]
    assert uniform(7, 11, torch.tensor([13]), 5)[0].tolist() == expected
    draws = uniform(0, 0, torch.arange(1000), 100).flatten()
    assert draws.mean().item() == pytest.approx(0.5, abs=0.005)
    assert draws.histc(10, 0, 1).div(draws.numel()).sub(0.1).abs().max().item() < 0.005
