"""The losses of tokenizer and transformer (paper sections 3.1 and 3.3; weights: docs/method.md#evidence-losses).

Reductions do not depend on how a batch is distributed: every term is a sum over samples divided by the number of
samples B of this rank, *not* by the number of samples that have the label. The mean over ranks of equal B is then
exactly the value of one process with the whole batch, and so is the gradient. The price: in a batch with few labels,
these have less weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from maskhand.batch import HandBatch
from maskhand.config import LossConfig, MaskingConfig, TokenizerLossConfig
from maskhand.conventions import NUM_BETAS
from maskhand.hand.camera import project_crop
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import matrix_to_axis_angle
from maskhand.models.network import TransformerOutput
from maskhand.models.shape_camera_head import place_camera
from maskhand.models.vq_mano import VQMano, VQManoOutput
from maskhand.training.masking import CorruptedTokens

_CROPS_PER_METER = 5.0
_UNITS_PER_METER = {"m": 1.0, "dm": 10.0, "mm": 1000.0}


class _Scalars:
    """A record of loss terms."""

    def scalars(self) -> dict[str, Tensor]:
        """All terms, detached; converting one to a float synchronizes with the device, so do it only when logging."""
        return {f.name: getattr(self, f.name).detach() for f in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class TokenizerLosses(_Scalars):
    """The loss terms of the tokenizer; all () and unweighted, except `total`."""

    total: Tensor
    theta: Tensor
    """Mean L1 of rotation matrices, or of axis-angle with `rot_repr: aa`."""
    vertices: Tensor
    """Mean L1 of wrist-relative vertices of the mean shape, in `mano_loss_unit`."""
    joints: Tensor
    commitment: Tensor


def tokenizer_losses(
    output: VQManoOutput, rotmats: Tensor, mano: ManoLayer, cfg: TokenizerLossConfig
) -> TokenizerLosses:
    """rotmats (B, 16, 3, 3): the encoded poses. The mean shape is used, as tokens represent poses only."""
    mean_shape = rotmats.new_zeros(len(rotmats), NUM_BETAS)
    with torch.no_grad():
        target = mano(rotmats, mean_shape)
    mesh = mano(output.rotmats, mean_shape)
    scale = _UNITS_PER_METER[cfg.mano_loss_unit]
    wrist, target_wrist = mesh.joints_m[:, :1], target.joints_m[:, :1]
    vertices = scale * F.l1_loss(mesh.vertices_m - wrist, target.vertices_m - target_wrist)
    joints = scale * F.l1_loss(mesh.joints_m - wrist, target.joints_m - target_wrist)
    if output.pose.shape[-1] == 3:
        theta = F.l1_loss(output.pose, nearest_axis_angle(matrix_to_axis_angle(rotmats), output.pose.detach()))
    else:
        theta = F.l1_loss(output.rotmats, rotmats)
    reconstruction = cfg.theta * theta + cfg.vertices * vertices + cfg.joints * joints
    total = cfg.recon * reconstruction + cfg.commitment * output.commitment
    return TokenizerLosses(total, theta, vertices, joints, output.commitment)


def nearest_axis_angle(target: Tensor, towards: Tensor) -> Tensor:
    """Of the two vectors shorter than 2 pi that represent the rotation `target` (..., 3), the one nearer to `towards`.

    Otherwise the loss would be discontinuous at the angle pi, which augmented hands often reach.
    """
    angle = target.norm(dim=-1, keepdim=True)
    other = target * (1 - 2 * math.pi / angle.clamp_min(1e-6))
    is_nearer = (other - towards).square().sum(-1, keepdim=True) < (target - towards).square().sum(-1, keepdim=True)
    return torch.where(is_nearer & (angle > 1e-6), other, target)


@dataclass(frozen=True)
class TransformerLosses(_Scalars):
    """The loss terms of the transformer; all () and unweighted, except `total`."""

    total: Tensor
    mask: Tensor
    """Cross-entropy per token, nats."""
    theta: Tensor
    """Squared error of rotation matrices, summed over joints."""
    beta: Tensor
    """Squared error of betas, summed."""
    joints_3d: Tensor
    """L1 of wrist-relative joints, meters, summed over joints and axes."""
    joints_2d: Tensor
    """L1 of projected joints, crop sides, weighted by confidence, summed over joints and axes."""
    image_joints: Tensor
    """L1 of the joints predicted by the encoder (`models.image_joints`), in crop sides; meters count five crop sides
    each (a crop shows about .2 m); summed over joints and axes. 0 without that readout."""
    token_accuracy: Tensor
    """Fraction of masked tokens whose most probable code is the true one, over samples with MANO labels. A metric, not
    a loss: reports average it over ranks and steps, regardless of their numbers of tokens."""


def transformer_losses(
    output: TransformerOutput,
    batch: HandBatch,
    corrupted: CorruptedTokens,
    tokenizer: VQMano,
    mano: ManoLayer,
    cfg: LossConfig,
    masking: MaskingConfig,
) -> TransformerLosses:
    """The paper's total loss: cross-entropy, MANO parameters, 3D and 2D joints through the expected code vectors.

    Samples without MANO labels contribute to the joint terms only; a network without tokens has no cross-entropy. MANO
    and joint terms are sums per hand (HaMeR), times `batch_ref`, so that at any batch size the weights have the scale
    of HaMeR's sums over 48 samples.
    """
    if output.rotmats is not None:  # a network without tokens
        cross_entropy = accuracy = output.rotmats.new_zeros(())
        rotmats = output.rotmats
    else:
        assert output.logits is not None
        logits = output.logits.float()
        cross_entropy, accuracy = _token_terms(logits, batch.has_mano, corrupted, masking)
        code_vectors = expected_codes if cfg.differential == "expectation" else most_probable_codes
        rotmats = tokenizer.decode_soft(code_vectors(logits, tokenizer.codebook))
    betas = output.betas.float()
    joints = mano(rotmats, betas).joints_m
    camera = place_camera(output.placement.float(), joints)

    theta = (rotmats - batch.rotmats).square().flatten(1).sum(1) * batch.has_mano
    beta = (betas - batch.betas).square().sum(1) * batch.has_mano
    error_3d = (joints - joints[:, :1]) - (batch.joints_3d_m - batch.joints_3d_m[:, :1])
    # relative to the wrist: without an annotated wrist no joint is valid
    valid = batch.joints_3d_valid * batch.joints_3d_valid[:, :1]
    joints_3d = (error_3d.abs().sum(-1) * valid).sum(1)
    error_2d = project_crop(joints, camera) - batch.joints_2d
    joints_2d = (error_2d.abs().sum(-1) * batch.joints_2d_conf).sum(1)

    image_joints = (
        torch.zeros_like(beta) if output.image_joints is None else _image_joint_error(output.image_joints, batch, valid)
    )
    image_joints = image_joints * (torch.arange(len(beta), device=beta.device) < len(batch.pixels))

    theta, beta, joints_3d, joints_2d, image_joints = (
        term.mean() for term in (theta, beta, joints_3d, joints_2d, image_joints)
    )
    geometry = (
        cfg.theta * theta
        + cfg.beta * beta
        + cfg.joints_3d * joints_3d
        + cfg.joints_2d * joints_2d
        + cfg.image_joints * image_joints
    )
    total = cfg.mask * cross_entropy + cfg.batch_ref * geometry
    return TransformerLosses(total, cross_entropy, theta, beta, joints_3d, joints_2d, image_joints, accuracy)


def _image_joint_error(image_joints: Tensor, batch: HandBatch, valid: Tensor) -> Tensor:
    """(B,) error of image_joints (B, 21, 5), in crop sides; valid (B, 21): joints with a 3D label."""
    points, world_m = image_joints[..., :2], image_joints[..., 2:]
    error_2d = (points - batch.joints_2d).abs().sum(-1) * batch.joints_2d_conf
    relative_m = batch.joints_3d_m - batch.joints_3d_m[:, :1]
    error_3d = (world_m - world_m[:, :1] - relative_m).abs().sum(-1) * valid
    return (error_2d + _CROPS_PER_METER * error_3d).sum(1)


def expected_codes(logits: Tensor, codebook: Tensor) -> Tensor:
    """(B, L, V) -> (B, L, C): the mean code vector under the predicted distribution, in fp32 (paper section 3.3)."""
    return logits.float().softmax(-1) @ codebook.float()


def most_probable_codes(logits: Tensor, codebook: Tensor) -> Tensor:
    """(B, L, V) -> (B, L, C): the code of the largest logit, with the expectation's gradient (straight-through)."""
    expected = expected_codes(logits, codebook)
    return expected + (codebook.float()[logits.argmax(-1)] - expected).detach()


def _token_terms(
    logits: Tensor, has_mano: Tensor, corrupted: CorruptedTokens, masking: MaskingConfig
) -> tuple[Tensor, Tensor]:
    target = corrupted.target_ids
    per_token = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
    masked = corrupted.masked.float()
    weight = torch.ones_like(masked) if masking.ce_positions == "all" else masked
    per_sample = (per_token * weight).sum(1) / weight.sum(1)
    valid = masked * has_mano[:, None]
    correct = (logits.argmax(-1) == target).float() * valid
    return (per_sample * has_mano).mean(), correct.sum() / valid.sum().clamp_min(1)
