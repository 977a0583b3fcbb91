"""Which joints a pose token speaks of: measured on the tokenizer, by swapping tokens between hands.

A token's place in the string does not say it: convolutions spread what a token says over its neighbors, and training
decides how far. Confidences, reference points and GAPR's first adjacency all read this one matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskhand.conventions import NUM_MANO_JOINTS
from maskhand.hand.rotations import geodesic_rad

if TYPE_CHECKING:
    from maskhand.models.vq_mano import VQMano

LEAST = 1e-6
"""Added to every influence on a joint, so that one that never moved listens to all tokens alike."""
STILL_RAD = 1e-3
"""A joint that turns less than this between hands is taken to turn by it."""
SPOKEN_OF = 0.5
"""A token speaks of the joints that it moves at least this much as it moves its own."""


@torch.no_grad()
def token_influence(tokenizer: VQMano, rotmats: Tensor) -> Tensor:
    """(L, 16) how far each joint turns when a token is swapped, as a share of how far it turns between two hands.

    rotmats (N, 16, 3, 3): hands such as the tokenizer is for, two or more. Each is decoded with one token after the
    other taken from the next hand (the last one's next is the first): N L strings, a place of the string at a time. The
    mean is over the hands in which the two codes differ; a place where they never do gets zeros.
    """
    ids = tokenizer.encode(rotmats)
    others = ids.roll(-1, 0)
    hands = tokenizer.decode_codes(ids)
    between_hands_rad = geodesic_rad(hands, hands.roll(-1, 0)).mean(0)
    rows = []
    for place in range(tokenizer.num_tokens):
        swapped = ids.clone()
        swapped[:, place] = others[:, place]
        turned_rad = geodesic_rad(tokenizer.decode_codes(swapped), hands).sum(0)
        rows.append(turned_rad / (swapped != ids).sum().clamp_min(1))
    return torch.stack(rows) / between_hands_rad.clamp_min(STILL_RAD)


def covered_joints(num_tokens: int) -> Tensor:
    """(L, 16) where a tokenizer begins, before anything is measured: each token speaks of the joints that its stretch
    of the sequence covers, by the share that it covers of each."""
    token, joint = torch.arange(num_tokens)[:, None], torch.arange(NUM_MANO_JOINTS)
    begin = torch.maximum(token / num_tokens, joint / NUM_MANO_JOINTS)
    end = torch.minimum((token + 1) / num_tokens, (joint + 1) / NUM_MANO_JOINTS)
    return (end - begin).clamp_min(0.0) * NUM_MANO_JOINTS


def own_joint(influence: Tensor) -> Tensor:
    """(L,) int64: of (L, 16) the joint that each token moves most."""
    return influence.argmax(1)


def spoken_of(influence: Tensor) -> Tensor:
    """(L, 16) bool: the joints that a token moves at least `SPOKEN_OF` as much as its own."""
    return influence >= SPOKEN_OF * influence.amax(1, keepdim=True)


def joint_from_tokens(influence: Tensor) -> Tensor:
    """(L, 16) weights, columns sum to one: what is known of tokens is known of a joint by their influence on it."""
    weights = influence + LEAST
    return weights / weights.sum(0)
