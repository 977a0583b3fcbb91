"""Tokens filled in step by step: recording changes no result, and its last step is the sampled hand."""

from __future__ import annotations

import itertools
import weakref

import pytest
import torch

from maskhand.models import sampling
from maskhand.models.decoding import decoding_passes, schedule
from maskhand.models.fill_in import fill_in_sampler, fill_in_steps
from maskhand.models.sampling import sample
from support.model_parts import random_batch, small_model, small_recipe

TOKENS = 32


@pytest.fixture(scope="module", params=["pose2d", "projected"])
def encoded(request):
    """A model, one that looks where the hand of the pass before lies too, and two encoded hands."""
    model = small_model(small_recipe(tokens=TOKENS, ref_points=request.param))
    torch.nn.init.normal_(model.code_classifier.linear.weight, std=1.0)
    batch = random_batch(2)
    with torch.no_grad():
        return model, model.encode(model.condition(batch), batch.keypoints_2d)


@pytest.mark.parametrize("iterations", [1, 5])
def test_the_last_step_is_the_sampled_hand(encoded, iterations) -> None:
    model, context = encoded
    cfg = fill_in_sampler(small_recipe().sampler, iterations)
    steps = fill_in_steps(model, context, cfg)
    wanted = sample(model, context, cfg)
    assert torch.equal(steps[-1].hands.vertices_m, wanted.vertices_m)
    assert torch.equal(steps[-1].hands.tokens.ids, wanted.tokens.ids)
    assert torch.equal(steps[-1].hands.tokens.confidence, wanted.tokens.confidence)
    first = sample(model, context, cfg.model_copy(update={"iterations": 1, "decode": "expectation"}))
    assert torch.allclose(steps[0].hands.vertices_m, first.vertices_m, atol=1e-7), "before: what the network expects"


def test_steps_fix_what_the_schedule_says_and_never_take_it_back(encoded) -> None:
    model, context = encoded
    steps = fill_in_steps(model, context, fill_in_sampler(small_recipe().sampler, 5))
    assert [int(s.fixed.sum()) for s in steps] == [0, *(2 * (TOKENS - left) for left in schedule(TOKENS, 5))]
    for before, after in itertools.pairwise(steps):
        ids, later = before.hands.tokens.ids, after.hands.tokens.ids
        assert (after.fixed | ~before.fixed).all()
        assert torch.equal(ids[before.fixed], later[before.fixed])
        assert (ids[~before.fixed] == model.mask_id).all()
        now = after.fixed & ~before.fixed
        for hand in range(2):
            surest = after.hands.tokens.confidence[hand][now[hand]].min()
            assert (surest >= after.hands.tokens.confidence[hand][~after.fixed[hand]]).all(), "the surest first"


def test_recording_draws_as_sampling_does(encoded) -> None:
    model, context = encoded
    cfg = small_recipe().sampler.model_copy(
        update={"temperature": 1.0, "decode": "codes", "iterations": 4, "confidence_noise": 1.0}
    )
    sampled = sample(model, context, cfg, torch.Generator().manual_seed(3))
    steps = fill_in_steps(model, context, cfg, torch.Generator().manual_seed(3))
    assert torch.equal(steps[-1].hands.tokens.ids, sampled.tokens.ids)


def test_decoding_keeps_no_more_than_one_pass(encoded, monkeypatch) -> None:
    """The probabilities of many hypotheses are large: those of a pass are gone before the next one's are made."""
    model, context = encoded
    alive, kept = [], []

    def watched(*args):
        for state in decoding_passes(*args):
            alive.append(weakref.ref(state.probability))
            yield state
            del state
            kept.append(sum(ref() is not None for ref in alive))

    monkeypatch.setattr(sampling, "decoding_passes", watched)
    sample(model, context, fill_in_sampler(small_recipe().sampler, 5))
    assert len(kept) >= 4 and max(kept) <= 1
