"""The 2D pose encoder: a graph network over the hand skeleton that outputs context tokens (paper section 3.2.2).

Graph convolutions share their weights over joints, so a mean over joints could not distinguish a thumb from a wrist.
Every joint therefore has a learned embedding, and the single token of the paper's figure is an MLP of the concatenated
joints, not a mean. With 21 tokens, each is the sum of this MLP's output and its joint's features; if
`model.token_queries` already has an MLP of the whole pose, each is its joint's features alone.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskhand.config import ModelConfig
from maskhand.conventions import BONES, NUM_JOINTS
from maskhand.models.image_joints import CHANNELS
from maskhand.models.image_joints import INPUT_SCALE as INPUT_SCALE_OF_IMAGE_JOINTS

PoseInputKind = Literal["xy", "xyz_world"]

INPUT_SCALE: dict[PoseInputKind, tuple[float, ...]] = {
    "xy": (4.0, 4.0, 1.0),
    "xyz_world": (4.0, 4.0, 1.0, 8.0, 16.0, 16.0, 16.0),
}
"""Factors that scale a joint's inputs to about unit variance: the standard deviation of crop coordinates is about 0.25,
of depths 0.12 crop sides, of world landmarks 0.06 m."""


def skeleton_adjacency() -> Tensor:
    """(21, 21) the fixed D^-1/2 (A + I) D^-1/2 of the hand skeleton (Kipf and Welling's normalization)."""
    adjacency = torch.eye(NUM_JOINTS)
    for parent, child in BONES:
        adjacency[parent, child] = adjacency[child, parent] = 1.0
    scale = adjacency.sum(1).rsqrt()
    return scale[:, None] * adjacency * scale[None, :]


class PoseInputs(nn.Module):
    """Network inputs from `HandBatch.keypoints_2d` (B, 21, 7): the first 3 or all 7 numbers of a joint (by
    `model.pose2d_inputs`), scaled to about unit variance; zeros for a joint with confidence 0."""

    scale: Tensor

    def __init__(self, inputs: PoseInputKind) -> None:
        super().__init__()
        self.channels = len(INPUT_SCALE[inputs])
        with torch.device("cpu"):  # constants, see `model_from_weights`
            self.register_buffer("scale", torch.tensor(INPUT_SCALE[inputs]), persistent=False)

    def forward(self, keypoints: Tensor) -> Tensor:
        return keypoints[..., : self.channels] * (keypoints[..., 2:3] > 0) * self.scale


class PoseGraph(nn.Module):
    """A graph network: keypoints (B, 21, 7) as in HandBatch -> (B, tokens, dim).

    A joint with confidence 0 is ignored. With `image_joints` the joints predicted by the encoder are inputs too;
    without it a pose without any detected joint becomes a learned "no pose" token.
    """

    adjacency: Tensor
    image_scale: Tensor

    def __init__(
        self,
        tokens: int,
        width: int,
        dim: int,
        inputs: PoseInputKind = "xy",
        image_joints: bool = False,
        pose_mlp: bool = True,
    ) -> None:
        super().__init__()
        if tokens not in (1, NUM_JOINTS):
            raise ValueError(f"model.pose2d_tokens is {tokens}; the pose graph gives 1 or {NUM_JOINTS} tokens")
        self.tokens = tokens
        with torch.device("cpu"):  # constants, see `model_from_weights`
            self.register_buffer("adjacency", skeleton_adjacency(), persistent=False)
        self.inputs = PoseInputs(inputs)
        self.joint_proj = nn.Linear(self.inputs.channels, width)
        self.joint_embedding = nn.Parameter(torch.randn(NUM_JOINTS, width))
        self.graph = nn.ModuleList(_GraphConvolution(width) for _ in range(2))
        self.pose_mlp = None
        if pose_mlp or tokens == 1:
            self.pose_mlp = nn.Sequential(nn.Linear(width * NUM_JOINTS, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.joint_out_proj = nn.Linear(width, dim) if tokens > 1 else None
        self.type_embedding = nn.Parameter(torch.randn(tokens, dim))
        self.no_pose = None if image_joints else nn.Parameter(torch.randn(tokens, dim))
        self.image_proj = nn.Linear(CHANNELS, width) if image_joints else None
        with torch.device("cpu"):  # scales to about unit variance, as `PoseInputs`
            self.register_buffer("image_scale", torch.tensor(INPUT_SCALE_OF_IMAGE_JOINTS), persistent=False)

    def forward(self, keypoints: Tensor, image_joints: Tensor | None = None) -> Tensor:
        """keypoints (B, 21, 7); image_joints (B, 21, 5) as in `models.image_joints`, for a graph that reads them."""
        x = self.joint_proj(self.inputs(keypoints)) + self.joint_embedding
        if self.image_proj is not None:
            assert image_joints is not None
            x = x + self.image_proj(image_joints * self.image_scale)
        for layer in self.graph:
            x = layer(x, self.adjacency)
        tokens = self.type_embedding
        if self.pose_mlp is not None:
            tokens = self.pose_mlp(x.flatten(1))[:, None] + tokens
        if self.joint_out_proj is not None:
            tokens = tokens + self.joint_out_proj(x)
        if self.no_pose is None:
            return tokens
        detected = (keypoints[..., 2:3] > 0).any(dim=1, keepdim=True)
        return torch.where(detected, tokens, self.no_pose)


class _GraphConvolution(nn.Module):
    """A residual graph convolution x + GELU(LN(A x W)); without the residual, averaging would blur the joints."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return x + F.gelu(self.norm(self.weight(adjacency @ x)))


def make_pose_graph(cfg: ModelConfig) -> PoseGraph | None:
    """The pose graph of the recipe; None if it has no 2D pose tokens."""
    if not cfg.pose2d_tokens:
        return None
    reads_image = cfg.image_joints and cfg.sees_image
    has_mlp = cfg.token_queries == "position" or not cfg.sees_image
    return PoseGraph(cfg.pose2d_tokens, cfg.pose2d_width, cfg.dim, cfg.pose2d_inputs, reads_image, has_mlp)
