"""The 2D pose as context tokens: a graph network over the hand's skeleton (paper section 3.2.2).

Graph convolutions share their weights over joints, so a plain mean over joints could not tell a thumb from a wrist.
Every joint therefore gets a learned embedding, and the single token of the paper's figure is a small network of all
joints side by side (each joint its own weights), not a mean. With 21 tokens, each adds its own joint's features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskhand.conventions import BONES, NUM_JOINTS


def skeleton_adjacency() -> Tensor:
    """(21, 21) fixed D^-1/2 (A + I) D^-1/2 of the hand skeleton (Kipf and Welling's normalization)."""
    adjacency = torch.eye(NUM_JOINTS)
    for parent, child in BONES:
        adjacency[parent, child] = adjacency[child, parent] = 1.0
    scale = adjacency.sum(1).rsqrt()
    return scale[:, None] * adjacency * scale[None, :]


class PoseGraph(nn.Module):
    """Keypoints (B, 21, 3), x, y in crop coordinates and confidence, -> (B, tokens, dim); tokens is 1 or 21.

    A joint with confidence 0 says nothing; a pose without any joint becomes a learned "no pose" token.
    """

    adjacency: Tensor
    scale: Tensor

    def __init__(self, tokens: int, width: int, dim: int) -> None:
        super().__init__()
        if tokens not in (1, NUM_JOINTS):
            raise ValueError(f"model.pose2d_tokens is {tokens}; the pose graph gives 1 or {NUM_JOINTS} tokens")
        self.tokens = tokens
        with torch.device("cpu"):  # constants, see `model_of_weights`
            self.register_buffer("adjacency", skeleton_adjacency(), persistent=False)
            # Hands fill their crop: coordinates spread by about a quarter, and layers like inputs that spread by one.
            self.register_buffer("scale", torch.tensor([4.0, 4.0, 1.0]), persistent=False)
        self.joint = nn.Linear(3, width)
        self.joint_embedding = nn.Parameter(torch.randn(NUM_JOINTS, width))
        self.graph = nn.ModuleList(_GraphConvolution(width) for _ in range(2))
        self.whole = nn.Sequential(nn.Linear(width * NUM_JOINTS, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.own = nn.Linear(width, dim) if tokens > 1 else None
        self.type_embedding = nn.Parameter(torch.randn(tokens, dim))
        self.no_pose = nn.Parameter(torch.randn(tokens, dim))

    def forward(self, keypoints: Tensor) -> Tensor:
        seen = keypoints[..., 2:] > 0
        x = self.joint(keypoints * seen * self.scale) + self.joint_embedding
        for layer in self.graph:
            x = layer(x, self.adjacency)
        tokens = self.whole(x.flatten(1))[:, None] + self.type_embedding
        if self.own is not None:
            tokens = tokens + self.own(x)
        return torch.where(seen.any(dim=1, keepdim=True), tokens, self.no_pose)


class _GraphConvolution(nn.Module):
    """x + GELU(LN(A x W)): the sum keeps a joint's own place sharp, which averaging over neighbors would blur."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return x + F.gelu(self.norm(self.weight(adjacency @ x)))
