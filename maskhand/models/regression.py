"""The regression baseline: sixteen queries attend to image and 2D pose and regress the joint rotations directly.

HaMeR's design with the masked transformer's encoder, 2D pose tokens, shape and camera head and losses, so that a
comparison isolates the decoder. It predicts one hand without confidence, as it has no tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskhand.config import ModelConfig
from maskhand.conventions import NUM_MANO_JOINTS
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import rot6d_to_matrix
from maskhand.models.attention import DecoderLayer
from maskhand.models.network import Context, HandNetwork, TransformerOutput, with_missing
from maskhand.models.pose_graph import make_pose_graph
from maskhand.models.shape_camera_head import make_shape_camera_head, seen_joints
from maskhand.models.vq_mano import VQMano


class RegressionNetwork(HandNetwork):
    """`model.decoder: regression`. The keys of the masked decoder (pyramid, GAPR, synthesizer, ...) are not used."""

    def __init__(self, cfg: ModelConfig, tokenizer: VQMano, mano: ManoLayer, image_size_px: tuple[int, int]) -> None:
        super().__init__(cfg, tokenizer, mano, image_size_px)
        channels = self.encoder.channels
        self.shape_camera = make_shape_camera_head(cfg, channels)
        self.queries = nn.Parameter(torch.randn(NUM_MANO_JOINTS, cfg.dim))
        self.source_proj = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, cfg.dim))
        self.pose_graph = make_pose_graph(cfg)
        self.layers = nn.ModuleList(
            DecoderLayer(cfg.dim, cfg.heads, cfg.dim, cfg.dropout) for _ in range(cfg.synth_layers)
        )
        self.norm = nn.LayerNorm(cfg.dim)
        self.to_rot6d = flat_hand_readout(cfg.dim, 1)

    def encode(
        self,
        condition: Tensor,
        keypoints_2d: Tensor,
        *,
        drop_image: Tensor | None = None,
        drop_pose: Tensor | None = None,
    ) -> Context:
        seen, rows = self.image_maps(condition, drop_image)[0], len(keypoints_2d)
        image_joints = self.image_joints(seen)
        keypoints_2d = self.read_pose(keypoints_2d, image_joints, drop_image, drop_pose)
        image_joints = None if image_joints is None else with_missing(image_joints, rows)
        coarsest = with_missing(seen, rows)
        source = self.source_proj(coarsest.flatten(2).transpose(1, 2))
        pose_tokens = source[:, :0] if self.pose_graph is None else self.pose_graph(keypoints_2d, image_joints)
        betas, placement = self.shape_camera(coarsest, pose_tokens, seen_joints(keypoints_2d, image_joints))
        source = torch.cat([source, pose_tokens], dim=1)
        x = self.queries.expand(len(coarsest), -1, -1)
        for layer in self.layers:
            x = layer(x, source)
        rotmats = rot6d_to_matrix(self.to_rot6d(self.norm(x)).float())
        return Context((), x[:, :0], keypoints_2d, betas, placement, rotmats, image_joints)

    def forward(
        self,
        condition: Tensor,
        keypoints_2d: Tensor,
        ids: Tensor | None = None,
        drop_image: Tensor | None = None,
        drop_pose: Tensor | None = None,
    ) -> TransformerOutput:
        """As `MaskedTransformer.forward`; `ids` are ignored."""
        context = self.encode(condition, keypoints_2d, drop_image=drop_image, drop_pose=drop_pose)
        return TransformerOutput(None, context.betas, context.placement, context.rotmats, context.image_joints)


def flat_hand_readout(width: int, joints: int) -> nn.Linear:
    """A linear layer from features to the 6D rotations of `joints` joints, initialized to the flat hand."""
    readout = nn.Linear(width, 6 * joints)
    nn.init.xavier_uniform_(readout.weight, gain=0.01)
    readout.bias.data.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0] * joints))
    return readout
