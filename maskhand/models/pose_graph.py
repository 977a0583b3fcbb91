"""The 2D pose encoder: a graph network over the hand's skeleton that gives context tokens (paper section 3.2.2).

Graph convolutions share their weights over joints, so a mean over joints could not distinguish a thumb from a wrist.
Every joint therefore has a learned embedding, and the single token of the paper's figure is a perceptron of the
concatenated joints, not a mean. With 21 tokens, each adds the features of its joint.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskhand.config import ModelConfig
from maskhand.conventions import BONES, NUM_JOINTS
from maskhand.models.image_joints import CHANNELS


def skeleton_adjacency() -> Tensor:
    """(21, 21) the fixed D^-1/2 (A + I) D^-1/2 of the hand skeleton (Kipf and Welling's normalization)."""
    adjacency = torch.eye(NUM_JOINTS)
    for parent, child in BONES:
        adjacency[parent, child] = adjacency[child, parent] = 1.0
    scale = adjacency.sum(1).rsqrt()
    return scale[:, None] * adjacency * scale[None, :]


class PoseGraph(nn.Module):
    """A graph network: keypoints (B, 21, 3), x, y in crop coordinates and confidence, -> (B, tokens, dim).

    A joint of confidence 0 is ignored. With `image_joints` the joints that the encoder sees are read beside them;
    without it a pose without any joint becomes a learned "no pose" token.
    """

    adjacency: Tensor
    scale: Tensor
    image_scale: Tensor

    def __init__(self, tokens: int, width: int, dim: int, image_joints: bool = False) -> None:
        super().__init__()
        if tokens not in (1, NUM_JOINTS):
            raise ValueError(f"model.pose2d_tokens is {tokens}; the pose graph gives 1 or {NUM_JOINTS} tokens")
        self.tokens = tokens
        with torch.device("cpu"):  # constants, see `model_from_weights`
            self.register_buffer("adjacency", skeleton_adjacency(), persistent=False)
            # Brings crop coordinates, with a standard deviation of about 0.25, to unit variance.
            self.register_buffer("scale", torch.tensor([4.0, 4.0, 1.0]), persistent=False)
        self.joint_proj = nn.Linear(3, width)
        self.joint_embedding = nn.Parameter(torch.randn(NUM_JOINTS, width))
        self.graph = nn.ModuleList(_GraphConvolution(width) for _ in range(2))
        self.pose_mlp = nn.Sequential(nn.Linear(width * NUM_JOINTS, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.joint_out_proj = nn.Linear(width, dim) if tokens > 1 else None
        self.type_embedding = nn.Parameter(torch.randn(tokens, dim))
        self.no_pose = None if image_joints else nn.Parameter(torch.randn(tokens, dim))
        self.image_proj = nn.Linear(CHANNELS, width) if image_joints else None
        with torch.device("cpu"):
            self.register_buffer("image_scale", torch.tensor([4.0, 4.0, 20.0, 20.0, 20.0]), persistent=False)

    def forward(self, keypoints: Tensor, image_joints: Tensor | None = None) -> Tensor:
        """keypoints (B, 21, 3); image_joints (B, 21, 5) as in `models.image_joints`, for a graph that reads them."""
        detected = keypoints[..., 2:] > 0
        x = self.joint_proj(keypoints * detected * self.scale) + self.joint_embedding
        if self.image_proj is not None:
            assert image_joints is not None
            x = x + self.image_proj(image_joints * self.image_scale)
        for layer in self.graph:
            x = layer(x, self.adjacency)
        tokens = self.pose_mlp(x.flatten(1))[:, None] + self.type_embedding
        if self.joint_out_proj is not None:
            tokens = tokens + self.joint_out_proj(x)
        if self.no_pose is None:
            return tokens
        return torch.where(detected.any(dim=1, keepdim=True), tokens, self.no_pose)


class _GraphConvolution(nn.Module):
    """A residual graph convolution x + GELU(LN(A x W)); without the residual, averaging would blur the joints."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return x + F.gelu(self.norm(self.weight(adjacency @ x)))


def make_pose_graph(cfg: ModelConfig) -> PoseGraph | None:
    """The recipe's; None without tokens of the 2D pose."""
    if not cfg.pose2d_tokens:
        return None
    return PoseGraph(cfg.pose2d_tokens, cfg.pose2d_width, cfg.dim, cfg.image_joints and cfg.sees_image)
