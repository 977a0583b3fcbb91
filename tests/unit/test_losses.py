"""Losses: expectation equals decoding at certainty, labels that are absent weigh nothing, batches cut anyhow."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from maskhand.batch import HandBatch
from maskhand.config import LossConfig, MaskingConfig
from maskhand.hand.camera import project_crop
from maskhand.models.network import TransformerOutput
from maskhand.models.shape_camera_head import place_camera
from maskhand.training.losses import TransformerLosses, expected_codes, most_probable_codes, transformer_losses
from maskhand.training.masking import CorruptedTokens, corrupt_tokens
from support.model_parts import random_batch, small_model


@pytest.fixture(scope="module")
def model():
    return small_model()


def corrupted(model, batch: HandBatch, slots: torch.Tensor | None = None) -> CorruptedTokens:
    slots = torch.arange(len(batch.pixels)) if slots is None else slots
    ids = model.tokenizer.encode(batch.rotmats)
    return corrupt_tokens(ids, batch.has_mano, MaskingConfig(), model.mask_id, seed=0, step=1, slots=slots)


def random_output(model, count: int) -> TransformerOutput:
    placement = torch.cat([10 + torch.rand(count, 1), 0.1 * torch.randn(count, 2)], dim=1)
    values = torch.randn(count, 16, 20), torch.randn(count, 10), placement
    return TransformerOutput(*(v.requires_grad_() for v in values))


def losses_of(model, output, batch, tokens=None, ce: str = "all", **weights: float) -> TransformerLosses:
    masking = MaskingConfig(ce_positions=ce)
    tokens = tokens or corrupted(model, batch)
    cfg = LossConfig(**weights)
    return transformer_losses(output, batch, tokens, model.tokenizer, model.mano, cfg, masking)


def test_expectation_of_certain_logits_is_the_hard_decode(model) -> None:
    ids = torch.randint(20, (3, 16))
    logits = 1e4 * torch.nn.functional.one_hot(ids, 20).float()
    soft = model.tokenizer.decode_soft(expected_codes(logits, model.tokenizer.codebook))
    assert torch.allclose(soft, model.tokenizer.decode_codes(ids), atol=1e-6)


def test_terms_against_plain_loops(model) -> None:
    batch, output = random_batch(3), random_output(model, 3)
    batch = replace(
        batch,
        joints_2d_conf=torch.rand(3, 21),
        joints_3d_valid=(torch.rand(3, 21) > 0.3).float().index_fill(1, torch.tensor(0), 1.0),
    )
    tokens = corrupted(model, batch)
    losses = losses_of(model, output, batch, tokens)
    mean_codes = expected_codes(output.logits, model.tokenizer.codebook)
    rotmats = model.tokenizer.decode_soft(mean_codes)
    joints = model.mano(rotmats, output.betas).joints_m
    projected = project_crop(joints, place_camera(output.placement, joints))
    sums = dict.fromkeys(("mask", "theta", "beta", "joints_3d", "joints_2d"), 0.0)
    for b in range(3):
        log_p = output.logits[b].log_softmax(-1)
        sums["mask"] += sum(-log_p[i, tokens.target_ids[b, i]].item() for i in range(16)) / 16
        sums["theta"] += (rotmats[b] - batch.rotmats[b]).square().sum().item()
        sums["beta"] += (output.betas[b] - batch.betas[b]).square().sum().item()
        for j in range(21):
            off = joints[b, j] - joints[b, 0] - (batch.joints_3d_m[b, j] - batch.joints_3d_m[b, 0])
            sums["joints_3d"] += (off.abs().sum() * batch.joints_3d_valid[b, j]).item()
            off = projected[b, j] - batch.joints_2d[b, j]
            sums["joints_2d"] += (off.abs().sum() * batch.joints_2d_conf[b, j]).item()
    for name, total in sums.items():
        assert getattr(losses, name).item() == pytest.approx(total / 3, rel=1e-4), name
    cfg = LossConfig()
    geometry = sum(getattr(cfg, n) * getattr(losses, n) for n in ("theta", "beta", "joints_3d", "joints_2d"))
    assert losses.total.item() == pytest.approx((losses.mask + 48 * geometry).item(), rel=1e-5)


def test_masked_cross_entropy_counts_masked_positions_only(model) -> None:
    batch, output = random_batch(2), random_output(model, 2)
    tokens = corrupted(model, batch)
    losses_of(model, output, batch, tokens, ce="masked").mask.backward()
    assert (output.logits.grad[~tokens.masked] == 0).all()
    assert (output.logits.grad[tokens.masked].abs().sum(-1) > 0).all()


def test_without_mano_only_the_joints_pull(model) -> None:
    batch = replace(random_batch(2), has_mano=torch.tensor([0.0, 1.0]))
    output = random_output(model, 2)
    only_tokens = losses_of(model, output, batch, joints_3d=0.0, joints_2d=0.0)
    only_tokens.total.backward()
    assert (output.logits.grad[0] == 0).all() and (output.betas.grad[0] == 0).all()
    assert output.logits.grad[1].abs().sum() > 0
    output = random_output(model, 2)
    losses_of(model, output, batch, mask=0.0, theta=0.0, beta=0.0, joints_3d=0.0).total.backward()
    assert output.logits.grad[0].abs().sum() > 0, "2D joints reach the logits through the expectation"
    assert output.placement.grad[0].abs().sum() > 0


def test_unannotated_joints_and_wrist_pull_nowhere(model) -> None:
    batch = random_batch(2)
    batch = replace(
        batch,
        joints_2d_conf=torch.zeros(2, 21),
        joints_3d_valid=torch.ones(2, 21).index_fill(1, torch.tensor(0), 0.0),  # no wrist: nothing to be relative to
    )
    losses = losses_of(model, random_output(model, 2), batch)
    assert losses.joints_2d.item() == 0
    assert losses.joints_3d.item() == 0


def test_gradients_reach_logits_but_never_the_tokenizer(model) -> None:
    output = random_output(model, 2)
    losses_of(model, output, random_batch(2), mask=0.0).total.backward()
    assert output.logits.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.tokenizer.parameters())


@pytest.mark.parametrize("ce", ["all", "masked"])
def test_mean_over_ranks_is_the_loss_of_one_process(model, ce: str) -> None:
    batch = replace(random_batch(8), has_mano=torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0]))
    output = random_output(model, 8)
    whole = losses_of(model, output, batch, ce=ce)
    whole.total.backward()
    gradient = output.logits.grad.clone()
    output.logits.grad = None
    parts = []
    for rank in range(2):
        rows = torch.arange(rank, 8, 2)
        part = TransformerOutput(output.logits[rows], output.betas[rows], output.placement[rows])
        parts.append(losses_of(model, part, batch[rows], corrupted(model, batch[rows], rows), ce=ce).total)
    mean = sum(parts) / 2
    assert mean.item() == pytest.approx(whole.total.item(), rel=1e-5)
    mean.backward()
    assert torch.allclose(output.logits.grad, gradient, atol=1e-6)


def test_token_accuracy_counts_masked_labeled_tokens(model) -> None:
    batch = replace(random_batch(2), has_mano=torch.tensor([1.0, 0.0]))
    tokens = corrupted(model, batch)
    right = torch.nn.functional.one_hot(tokens.target_ids, 20).float()
    right[1] = 0.0  # the unlabeled sample does not count
    right[0][~tokens.masked[0]] = 0.0  # nor is a visible token
    placement = torch.tensor([[10.0, 0.0, 0.0]]).expand(2, 3)
    output = TransformerOutput(right * 9, torch.zeros(2, 10), placement)
    assert losses_of(model, output, batch, tokens).token_accuracy.item() == 1.0
    assert set(losses_of(model, output, batch, tokens).scalars()) == {
        "total", "mask", "theta", "beta", "joints_3d", "joints_2d", "image_joints", "token_accuracy",
    }  # fmt: skip


def test_hard_codes_have_the_gradient_of_the_expectation(model) -> None:
    codebook = model.tokenizer.codebook
    logits, upstream = torch.randn(2, 16, 20), torch.randn(2, 16, codebook.shape[1])
    gradients = []
    for said_codes in (most_probable_codes, expected_codes):
        own = logits.clone().requires_grad_()
        codes = said_codes(own, codebook)
        (codes * upstream).sum().backward()
        gradients.append(own.grad)
        if said_codes is most_probable_codes:
            assert torch.allclose(codes, codebook[logits.argmax(-1)], atol=1e-6)
    assert torch.equal(*gradients)


LABELS = {
    "everything": {},
    "no MANO": {"has_mano": 0.0},
    "2D only": {"has_mano": 0.0, "joints_3d_valid": 0.0},
    "3D only": {"has_mano": 0.0, "joints_2d_conf": 0.0},
    "nothing": {"has_mano": 0.0, "joints_2d_conf": 0.0, "joints_3d_valid": 0.0},
}


@pytest.mark.parametrize("labels", LABELS)
def test_a_hand_trains_through_the_labels_it_has(labels: str) -> None:
    network = small_model().train()
    batch = random_batch(2)
    batch = replace(batch, **{k: torch.full_like(getattr(batch, k), v) for k, v in LABELS[labels].items()})
    tokens = corrupted(network, batch)
    output = network(batch.image, batch.keypoints_2d, tokens.ids)
    losses = losses_of(network, output, batch, tokens)
    losses.total.backward()
    has = {k: k not in LABELS[labels] for k in ("has_mano", "joints_3d_valid", "joints_2d_conf")}
    assert (losses.mask > 0) == (losses.theta > 0) == (losses.beta > 0) == has["has_mano"]
    assert (losses.joints_3d > 0) == has["joints_3d_valid"]
    assert (losses.joints_2d > 0) == has["joints_2d_conf"]
    moved = {
        part: any(p.grad is not None and p.grad.any() for p in getattr(network, part).parameters())
        for part in ("encoder", "synthesizer", "code_classifier", "shape_camera")
    }
    assert all(moved.values()) if labels != "nothing" else not any(moved.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert tokens.masked.all() or has["has_mano"]


def test_the_same_hands_twice_are_the_same_loss_and_gradient(model) -> None:
    batch, output = random_batch(3), random_output(model, 3)
    tokens = corrupted(model, batch)
    twice = torch.arange(6) % 3
    doubled = TransformerOutput(output.logits[twice], output.betas[twice], output.placement[twice])
    copies = CorruptedTokens(*(getattr(tokens, f.name)[twice] for f in fields(tokens)))
    once, double = losses_of(model, output, batch, tokens).total, losses_of(model, doubled, batch[twice], copies).total
    assert double.item() == pytest.approx(once.item(), rel=1e-6)
    gradients = [torch.autograd.grad(loss, output.logits)[0] for loss in (once, double)]
    assert torch.allclose(*gradients, atol=1e-7)


def test_half_precision_gives_nearly_the_loss_and_gradient_of_full() -> None:
    network, batch = small_model().train(), random_batch(8)
    tokens = corrupted(network, batch)
    totals, gradients = [], []
    for half in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = network(batch.image, batch.keypoints_2d, tokens.ids)
        losses = losses_of(network, output.float(), batch, tokens)
        losses.total.backward()
        totals.append(losses.total.item())
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert totals[0] != totals[1]
    assert totals[1] == pytest.approx(totals[0], rel=0.01)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99


def test_a_directly_predicted_pose_has_the_losses_of_a_decoded_one(model) -> None:
    batch, output = random_batch(3), random_output(model, 3)
    tokens = corrupted(model, batch)
    rotmats = model.tokenizer.decode_soft(expected_codes(output.logits, model.tokenizer.codebook))
    direct = TransformerOutput(None, output.betas, output.placement, rotmats)
    by_tokens, by_pose = losses_of(model, output, batch, tokens), losses_of(model, direct, batch, tokens)
    assert by_pose.mask.item() == 0
    for name in ("theta", "beta", "joints_3d", "joints_2d"):
        assert getattr(by_pose, name).item() == pytest.approx(getattr(by_tokens, name).item(), rel=1e-6)
    assert by_pose.total.item() == pytest.approx((by_tokens.total - by_tokens.mask).item(), rel=1e-5)
