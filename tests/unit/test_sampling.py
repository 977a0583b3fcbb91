"""Confidence-guided sampling: the schedule, what stays fixed, what is counted, and draws that follow the softmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from maskhand.config import SamplerConfig
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import axis_angle_to_matrix, random_rotations
from maskhand.metrics.alignment import distances, procrustes_align
from maskhand.models import sampling
from maskhand.models.build import build_model
from maskhand.models.consensus import consensus
from maskhand.models.decoding import filter_logits, schedule
from maskhand.models.sampling import generate, predict, sample
from maskhand.models.vq_mano import VQMano
from support.model_parts import random_batch, random_poses, small_model, small_recipe


@pytest.fixture(scope="module")
def model():
    model = small_model(small_recipe(tokens=32))
    model.tokenizer.influence.uniform_(generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(model.code_classifier.linear.weight, std=1.0)  # logits large enough to differ
    return model


@pytest.fixture(scope="module")
def batch():
    return random_batch(3)


@pytest.mark.parametrize(
    ("length", "iterations", "expected"),
    [
        (64, 5, [61, 52, 38, 20, 0]),
        (64, 3, [56, 32, 0]),
        (64, 1, [0]),
        (96, 5, [92, 78, 57, 30, 0]),
        (16, 5, [16, 13, 10, 5, 0]),
    ],
)
def test_schedule(length: int, iterations: int, expected: list[int]) -> None:
    assert schedule(length, iterations) == expected


def test_schedule_needs_an_iteration() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        schedule(64, 0)


class Spy:
    """Counts calls and keeps the token sequences that `logits` is called with."""

    def __init__(self, model, monkeypatch) -> None:
        self.encoded = 0
        self.calls: list[torch.Tensor] = []
        encoder, logits = model.encoder.forward, model.logits

        def counted(image):
            self.encoded += 1
            return encoder(image)

        def recorded(ids, context, *looked):
            self.calls.append(ids.clone())
            return logits(ids, context, *looked)

        monkeypatch.setattr(model.encoder, "forward", counted)
        monkeypatch.setattr(model, "logits", recorded)


@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_the_image_is_encoded_once_for_any_number_of_iterations(model, batch, monkeypatch, iterations: int) -> None:
    spy = Spy(model, monkeypatch)
    predict(model, batch, SamplerConfig(iterations=iterations))
    assert spy.encoded == 1
    assert len(spy.calls) == iterations
    masked = [(ids == model.mask_id).sum(1).unique().tolist() for ids in spy.calls]
    assert masked == [[n] for n in [32, *schedule(32, iterations)[:-1]]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_kept_tokens_never_change(model, batch, monkeypatch, temperature: float) -> None:
    spy = Spy(model, monkeypatch)
    cfg = SamplerConfig(iterations=5, temperature=temperature)
    final = predict(model, batch, cfg, torch.Generator().manual_seed(0)).tokens.ids
    for ids in spy.calls:
        kept = ids != model.mask_id
        assert torch.equal(ids[kept], final[kept])


@pytest.mark.parametrize("remask_kept", [False, True])
def test_kept_tokens_are_remasked_only_with_remask_kept(model, batch, monkeypatch, remask_kept: bool) -> None:
    calls = []

    def surer_every_time(ids, context, *looked):
        calls.append(ids != model.mask_id)
        logits = torch.zeros(len(ids), 32, 20)
        logits[..., 0] = len(calls) + torch.linspace(0, 0.1, 32)
        return logits

    monkeypatch.setattr(model, "logits", surer_every_time)
    predict(model, batch, SamplerConfig(iterations=3, remask_kept=remask_kept))
    first, second = calls[1], calls[2]
    assert (first.sum(1) == 32 - 28).all() and (second.sum(1) == 32 - 16).all()
    assert (first & second).any() != remask_kept


def test_first_iteration_keeps_the_most_confident(model, batch, monkeypatch) -> None:
    spy = Spy(model, monkeypatch)
    predict(model, batch, SamplerConfig(iterations=3))
    context = model.encode(batch.image, batch.keypoints_2d)
    probability, best = model.logits(torch.full((3, 32), model.mask_id), context).softmax(-1).max(-1)
    keep = 32 - schedule(32, 3)[0]
    for row in range(3):
        most_confident = probability[row].topk(keep).indices
        expected = torch.full((32,), model.mask_id)
        expected[most_confident] = best[row, most_confident]
        assert torch.equal(spy.calls[1][row], expected)


def test_one_greedy_iteration_in_closed_form(model, batch) -> None:
    hands = {
        decode: predict(model, batch, SamplerConfig(iterations=1, decode=decode)) for decode in ("expectation", "codes")
    }
    context = model.encode(batch.image, batch.keypoints_2d)
    probability = model.logits(torch.full((3, 32), model.mask_id), context).softmax(-1)
    confidence, ids = probability.max(-1)
    hand = hands["codes"]
    assert torch.equal(hand.tokens.ids, ids)
    assert torch.allclose(hand.tokens.confidence, confidence)
    assert torch.allclose(hand.log_probability, confidence.log().mean(1)) and (hand.score == 0).all()
    assert torch.allclose(hand.rotmats, model.tokenizer.decode_codes(ids), atol=1e-6)
    soft = model.tokenizer.decode_soft(probability @ model.tokenizer.codebook)
    assert torch.allclose(hands["expectation"].rotmats, soft, atol=1e-6)
    mesh = model.mano(hand.rotmats, hand.betas)
    assert torch.allclose(hand.joints_m, mesh.joints_m)
    influence = model.tokenizer.influence
    by_joint = [
        [(row @ influence[:, j] / influence[:, j].sum()).item() for j in range(16)] for row in confidence.detach()
    ]
    assert torch.allclose(hand.token_confidence_of_joints, torch.tensor(by_joint), atol=1e-5)


def test_expectation_is_taken_when_a_token_is_fixed(model, batch, monkeypatch) -> None:
    context = model.encode(batch.image, batch.keypoints_2d)
    answers, logits = [], model.logits

    def recorded(ids, context, *looked):
        answers.append((ids == model.mask_id, logits(ids, context)))
        return answers[-1][1]

    monkeypatch.setattr(model, "logits", recorded)
    hand = sample(model, context, SamplerConfig(iterations=3, decode="expectation"))
    codes = torch.zeros(3, 32, 6)
    for masked, answer in answers:
        codes[masked] = (answer.softmax(-1) @ model.tokenizer.codebook)[masked]
    assert torch.allclose(hand.rotmats, model.tokenizer.decode_soft(codes), atol=1e-5)


def test_mixed_decoding_takes_codes_of_kept_tokens_and_means_of_the_last(model, batch, monkeypatch) -> None:
    context = model.encode(batch.image, batch.keypoints_2d)
    answers, logits = [], model.logits

    def recorded(ids, context, *looked):
        answers.append((ids == model.mask_id, logits(ids, context)))
        return answers[-1][1]

    monkeypatch.setattr(model, "logits", recorded)
    hand = sample(model, context, SamplerConfig(iterations=3, decode="mixed"))
    masked, answer = answers[-1]
    codes = model.tokenizer.codebook[hand.tokens.ids]
    codes[masked] = (answer.softmax(-1) @ model.tokenizer.codebook)[masked]
    assert 0 < masked.sum() < masked.numel()
    assert torch.allclose(hand.rotmats, model.tokenizer.decode_soft(codes), atol=1e-5)


@pytest.mark.parametrize("decode", ["expectation", "mixed", "codes"])
def test_drawn_hypotheses_are_the_hands_of_their_tokens(model, batch, decode: str) -> None:
    cfg = SamplerConfig(iterations=1, temperature=1.0, decode=decode)
    hands = predict(model, batch, cfg, torch.Generator().manual_seed(0), hypotheses=4)
    assert torch.allclose(hands.rotmats, model.tokenizer.decode_codes(hands.tokens.ids), atol=1e-6)
    assert (hands.vertices_m[0] - hands.vertices_m[3]).abs().max() > 1e-4, "expectations would be nearly equal"


def test_an_iteration_that_keeps_nothing_is_not_run(monkeypatch) -> None:
    small = small_model()
    spy = Spy(small, monkeypatch)
    predict(small, random_batch(1), SamplerConfig(iterations=5))
    assert len(spy.calls) == 4, "schedule(16, 5) begins with 16"


def test_hypotheses_are_sorted_varied_and_reproducible(model, batch) -> None:
    cfg = SamplerConfig(iterations=3, temperature=1.0)
    first, again = (predict(model, batch, cfg, torch.Generator().manual_seed(4), hypotheses=8) for _ in range(2))
    assert first.rotmats.shape == (24, 16, 3, 3)
    scores = first.score.view(3, 8)
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    assert len({tuple(row) for row in first.tokens.ids[:8].tolist()}) > 1
    assert torch.equal(first.tokens.ids, again.tokens.ids)
    assert torch.allclose(first.log_probability, first.tokens.confidence.log().mean(1))
    by_image = [x.view(3, 8, *x.shape[1:]) for x in (first.rotmats, first.joints_m)]
    assert torch.allclose(scores, consensus(*by_image), atol=1e-3)


def test_the_score_is_the_aligned_distance_from_the_middle_of_the_draws() -> None:
    """Whatever the order in which tokens were fixed; checked against scipy and the metric's own alignment."""
    mano = ManoLayer.from_default()
    rotmats = random_poses(6)
    rotmats[5, 1:] = rotmats[5, 1:] @ axis_angle_to_matrix(torch.tensor([0.0, 0.0, -1.2]))  # an outlier
    joints = mano(rotmats, torch.zeros(6, 10)).joints_m
    score = consensus(rotmats[None], joints[None] + torch.randn(1, 6, 1, 3))[0]  # wherever the hands are
    upright = [
        Rotation.from_matrix(r[0].numpy()).inv().apply((j - j[0]).numpy()) for r, j in zip(rotmats, joints, strict=True)
    ]
    middle = np.mean(upright, axis=0)
    for hand, value in zip(upright, score.tolist(), strict=True):
        fitted = procrustes_align(hand[None], middle[None], np.ones((1, 21), bool), reflection=False)
        assert -value == pytest.approx(1e3 * distances(fitted, middle[None]).mean(), rel=1e-4)
    assert int(score.argmin()) == 5
    turned = random_rotations(6)[:, None]
    elsewhere = torch.cat([turned @ rotmats[:, :1], rotmats[:, 1:]], 1), (joints - joints[:, :1]) @ turned[:, 0].mT
    again = consensus(*(x[None] for x in elsewhere))[0]
    assert torch.allclose(again, score, atol=1e-3), "a whole hand may be turned: PA-MPJPE does not see it either"
    assert consensus(rotmats[None, :1], joints[None, :1]).tolist() == [[0.0]]


def test_hypotheses_compute_the_first_logits_once_per_image(model, batch, monkeypatch) -> None:
    spy = Spy(model, monkeypatch)
    cfg = SamplerConfig(iterations=3, temperature=1.0)
    context = model.encode(batch.image, batch.keypoints_2d)
    sample(model, context, cfg, torch.Generator().manual_seed(0), hypotheses=8)
    assert [len(ids) for ids in spy.calls] == [3, 24, 24]


def test_many_hypotheses_are_decoded_in_parts(model, batch, monkeypatch) -> None:
    cfg = SamplerConfig(iterations=3, temperature=1.0)
    monkeypatch.setattr(sampling, "MAX_SEQUENCES", 9)  # three hypotheses of three images at a time
    spy = Spy(model, monkeypatch)
    hands = predict(model, batch, cfg, torch.Generator().manual_seed(0), hypotheses=8)
    assert spy.encoded == 1
    assert [len(ids) for ids in spy.calls] == [3, 9, 9, 3, 9, 9, 3, 6, 6]
    assert (hands.score.view(3, 8).diff(dim=1) <= 0).all()
    greedy = cfg.model_copy(update={"temperature": 0.0})
    many, one = predict(model, batch, greedy, hypotheses=8), predict(model, batch, greedy)
    assert torch.equal(many.tokens.ids, one.tokens.ids.repeat_interleave(8, 0)), "images are not mixed up"


def test_draws_follow_the_tempered_softmax(model) -> None:
    one = random_batch(1)
    context = model.encode(one.image, one.keypoints_2d)
    logits = model.logits(torch.full((1, 32), model.mask_id), context)
    cfg = SamplerConfig(iterations=1, temperature=2.0)
    drawn = sample(model, context, cfg, torch.Generator().manual_seed(0), hypotheses=4000)
    frequency = torch.nn.functional.one_hot(drawn.tokens.ids, 20).float().mean(0)
    assert (frequency - (logits[0] / 2).softmax(-1)).abs().max().item() < 0.04
    plain = logits[0].softmax(-1).detach()
    expected = plain.gather(1, drawn.tokens.ids[:5].T).T
    assert torch.allclose(drawn.tokens.confidence[:5], expected, atol=1e-5), "confidence is untempered"


def test_top_k_and_top_p_keep_the_right_codes() -> None:
    logits = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03]).log()[[3, 0, 4, 1, 2]]
    assert filter_logits(logits, 2, None).isfinite().tolist() == [False, True, False, True, False]
    assert filter_logits(logits, None, 0.7).isfinite().tolist() == [False, True, False, True, False]
    assert filter_logits(logits, None, 0.8).isfinite().tolist() == [False, True, False, True, True]
    assert filter_logits(logits, None, 1e-6).isfinite().tolist() == [False, True, False, False, False]
    assert torch.equal(filter_logits(logits, 5, 1.0), logits)


def test_noise_on_the_order_varies_which_tokens_come_first_and_nothing_else(model, batch, monkeypatch) -> None:
    spy = Spy(model, monkeypatch)
    plain = SamplerConfig(iterations=3)
    for cfg in (plain, plain.model_copy(update={"confidence_noise": 4.5})):
        predict(model, batch, cfg, torch.Generator().manual_seed(0))
    without, withal = spy.calls[1], spy.calls[4]
    assert not torch.equal(without, withal)
    assert torch.equal((without == model.mask_id).sum(1), (withal == model.mask_id).sum(1))
    both = (without != model.mask_id) & (withal != model.mask_id)
    assert torch.equal(without[both], withal[both])


def test_without_image_and_pose_hands_are_drawn_from_one_distribution(model, batch) -> None:
    cfg = SamplerConfig(iterations=3, temperature=1.0, top_k=10)
    hands = generate(model, 6, cfg, torch.Generator().manual_seed(1))
    assert hands.vertices_m.shape == (6, 778, 3) and (hands.betas == 0).all()
    assert len({tuple(row) for row in hands.tokens.ids.tolist()}) == 6
    assert (hands.score[1:] <= hands.score[:-1]).all()
    # the same tokens as from any image that is dropped
    drop = torch.ones(1, dtype=torch.bool)
    dropped = predict(
        model, batch[:1], cfg, torch.Generator().manual_seed(1), hypotheses=6, drop_image=drop, drop_pose=drop
    )
    assert torch.equal(dropped.tokens.ids, hands.tokens.ids)
    with pytest.raises(ValueError, match=r"temperature is 0"):
        generate(model, 2, SamplerConfig(), torch.Generator())


@pytest.mark.parametrize("decode", ["expectation", "codes"])
def test_half_precision_is_for_the_network_alone(model, batch, decode: str) -> None:
    """Under bf16 autocast the hands stay close, and everything after the logits is fp32."""
    cfg = SamplerConfig(iterations=1, decode=decode)
    full = predict(model, batch, cfg)
    with torch.autocast("cpu", torch.bfloat16):
        half = predict(model, batch, cfg)
        context = model.encode(batch.image, batch.keypoints_2d)
        logits = model.logits(torch.full((3, 32), model.mask_id), context).float()
    assert logits.dtype == torch.float32 and half.vertices_m.dtype == torch.float32
    assert not torch.equal(half.log_probability, full.log_probability)
    assert torch.allclose(half.log_probability, full.log_probability, atol=0.05)
    if decode == "codes":
        codes = model.tokenizer.codebook[half.tokens.ids]
    else:
        codes = logits.softmax(-1) @ model.tokenizer.codebook
        assert (half.vertices_m - full.vertices_m).norm(dim=-1).mean() < 2e-3
    rotmats = model.tokenizer.decode_soft(codes)
    assert torch.allclose(half.rotmats, rotmats, atol=1e-6)
    assert torch.allclose(half.vertices_m, model.mano(rotmats, half.betas).vertices_m, atol=1e-6)


def test_order_of_the_batch_is_the_order_of_the_hands(model, batch) -> None:
    order = torch.tensor([2, 0, 1])
    hands, permuted = (predict(model, b, SamplerConfig()) for b in (batch, batch[order]))
    assert torch.equal(hands.tokens.ids[order], permuted.tokens.ids)
    assert torch.allclose(hands.vertices_m[order], permuted.vertices_m, atol=1e-6)


@pytest.mark.parametrize("decoder", ["regression", "lifter"])
def test_a_network_without_tokens_predicts_one_hand_with_confidence_one(decoder: str, batch) -> None:
    recipe = small_recipe(decoder=decoder)
    torch.manual_seed(0)
    network = build_model(recipe, VQMano(recipe.tokenizer), ManoLayer.from_default()).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    output = network(batch.image, batch.keypoints_2d)
    hands = predict(network, batch, SamplerConfig(), hypotheses=2)
    assert torch.allclose(hands.rotmats, output.rotmats.repeat_interleave(2, 0), atol=1e-6)
    assert torch.allclose(hands.joints_m, network.mano(hands.rotmats, hands.betas).joints_m)
    assert torch.equal(hands.tokens.ids, network.tokenizer.encode(hands.rotmats))
    assert (hands.tokens.confidence == 1).all() and (hands.log_probability == 0).all()
    assert not torch.allclose(output.rotmats[0], output.rotmats[1], atol=1e-4), "it depends on the image"
