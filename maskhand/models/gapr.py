"""Graph-based anatomical pose refinement: pose tokens and 2D pose tokens refine each other (paper section 3.2.2).

Per block, on K = 2D tokens + pose tokens:
    X = Q + W (A LN(Q))                                learnable adjacency A, K x K, rows sum to one
    Y = X + MHA(LN(X)) + Conv1x1(LN(X))                equation (1)
    figure:   X + SE(LN(Y))                            the authors' figure 4 adds the graph's output
    equation: SE(LN(Y))                                equation (2) as printed; no skip connection around the gate
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from maskhand.conventions import openpose_joint_of_mano_joint
from maskhand.models.attention import Attention
from maskhand.models.influence import influenced_joints
from maskhand.models.pose_graph import skeleton_adjacency


class GaprBlock(nn.Module):
    """One refinement block, (B, K, dim) -> (B, K, dim). neighbors (K, K) bool: see `initial_neighbors`."""

    def __init__(
        self,
        neighbors: Tensor,
        dim: int,
        heads: int,
        se_ratio: int,
        residual: Literal["figure", "equation"],
        dropout: float,
    ) -> None:
        super().__init__()
        self.residual = residual
        # Rows are initialized close to the mean over the neighbors (softmax of 4 against zeros), then learned freely.
        self.adjacency_logits = nn.Parameter(4.0 * neighbors.float())
        self.graph_norm = nn.LayerNorm(dim)
        self.graph = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dropout)
        self.pointwise = nn.Linear(dim, dim)  # a 1x1 convolution over tokens
        self.gate_norm = nn.LayerNorm(dim)
        self.squeeze_excite = SqueezeExcite(dim, se_ratio)
        self.dropout = nn.Dropout(dropout)

    def forward(self, q: Tensor) -> Tensor:
        x = q + self.graph(self.adjacency() @ self.graph_norm(q))
        normed = self.norm(x)
        y = x + self.dropout(self.attention(normed, normed) + self.pointwise(normed))
        gated = self.squeeze_excite(self.gate_norm(y))
        return x + gated if self.residual == "figure" else gated

    def adjacency(self) -> Tensor:
        """(K, K) learned, rows sum to one."""
        return self.adjacency_logits.softmax(-1)


def initial_neighbors(pose_tokens: int, influence: Tensor) -> Tensor:
    """(K, K) bool, K = 2D tokens + pose tokens: the adjacency that GAPR is initialized with.

    Every token is its own neighbor. influence (L, 16): of each pose token on MANO's joints. A single 2D token is a
    neighbor of all pose tokens; of 21, the neighbors of a pose token are the joints that it influences and those that
    share a bone with them. Without this initialization the 2D pose would be one of K equal neighbors, and training
    would start to use it late.
    """
    neighbors = torch.eye(pose_tokens + len(influence), dtype=torch.bool)
    if pose_tokens == 1:
        neighbors[1:, 0] = True
    elif pose_tokens:
        bones = skeleton_adjacency()[list(openpose_joint_of_mano_joint())]
        neighbors[pose_tokens:, :pose_tokens] = influenced_joints(influence).float() @ bones > 0
    return neighbors


class SqueezeExcite(nn.Module):
    """A gate per channel, computed from the mean over tokens (Hu et al. 2018)."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(dim, max(dim // ratio, 4)), nn.ReLU(), nn.Linear(max(dim // ratio, 4), dim), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean(dim=1, keepdim=True))
