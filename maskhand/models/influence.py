"""The influence of each pose token on the joints, measured on the tokenizer by swapping tokens between hands.

The position in the sequence does not determine it, because the receptive fields of the convolutions overlap; it is a
result of training. Joint confidences, reference points and GAPR's initial adjacency use this matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskhand.conventions import NUM_MANO_JOINTS
from maskhand.hand.rotations import geodesic_rad

if TYPE_CHECKING:
    from maskhand.models.vq_mano import VQMano

MIN_INFLUENCE = 1e-6
"""Added to every entry, so that all tokens have equal weight for a joint that never moved."""
MIN_ROTATION_RAD = 1e-3
"""Lower bound of the mean rotation of a joint between hands, by which influences are divided."""
INFLUENCE_THRESHOLD = 0.5
"""A token influences the joints with at least this fraction of its maximum influence."""


@torch.no_grad()
def token_influence(tokenizer: VQMano, rotmats: Tensor) -> Tensor:
    """(L, 16) mean rotation of each joint when a token is swapped, relative to its mean rotation between two hands.

    rotmats (N, 16, 3, 3): two or more hands of the tokenizer's domain. Each hand is decoded with one of its tokens
    replaced by that of the next hand (cyclically), for every position: N L token sequences. The mean is over the hands
    whose two codes differ; a position where they never differ gets zeros.
    """
    ids = tokenizer.encode(rotmats)
    others = ids.roll(-1, 0)
    hands = tokenizer.decode_codes(ids)
    between_hands_rad = geodesic_rad(hands, hands.roll(-1, 0)).mean(0)
    rows = []
    for position in range(tokenizer.num_tokens):
        swapped = ids.clone()
        swapped[:, position] = others[:, position]
        turned_rad = geodesic_rad(tokenizer.decode_codes(swapped), hands).sum(0)
        rows.append(turned_rad / (swapped != ids).sum().clamp_min(1))
    return torch.stack(rows) / between_hands_rad.clamp_min(MIN_ROTATION_RAD)


def initial_influence(num_tokens: int) -> Tensor:
    """(L, 16) influence assumed before training: the fraction of a joint's interval that a token's covers."""
    token, joint = torch.arange(num_tokens)[:, None], torch.arange(NUM_MANO_JOINTS)
    begin = torch.maximum(token / num_tokens, joint / NUM_MANO_JOINTS)
    end = torch.minimum((token + 1) / num_tokens, (joint + 1) / NUM_MANO_JOINTS)
    return (end - begin).clamp_min(0.0) * NUM_MANO_JOINTS


def most_influenced_joint(influence: Tensor) -> Tensor:
    """(L, 16) -> (L,) int64: the joint that each token influences most."""
    return influence.argmax(1)


def influenced_joints(influence: Tensor) -> Tensor:
    """(L, 16) bool: the joints that a token influences (`INFLUENCE_THRESHOLD`)."""
    return influence >= INFLUENCE_THRESHOLD * influence.amax(1, keepdim=True)


def joint_from_tokens(influence: Tensor) -> Tensor:
    """(L, 16) weights whose columns sum to one: (B, L) values of tokens times them are (B, 16) values of joints."""
    weights = influence + MIN_INFLUENCE
    return weights / weights.sum(0)
