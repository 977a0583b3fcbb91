"""The lifting baseline: a small network that predicts a hand from 2D keypoints alone.

A residual multilayer perceptron after Martinez et al. (ICCV 2017), from 21 keypoints with their confidences to 6D
rotations, shape and placement: no image, no tokens. The difference between an image network and this one, trained on
the same hands with the same losses, shows what the image contributes.
"""

from __future__ import annotations

from torch import Tensor, nn

from maskhand.batch import HandBatch
from maskhand.config import ModelConfig
from maskhand.conventions import NUM_BETAS, NUM_JOINTS, NUM_MANO_JOINTS
from maskhand.hand.layer import ManoLayer
from maskhand.hand.rotations import rot6d_to_matrix
from maskhand.models.network import Context, HandNetwork, TransformerOutput, drop_keypoints
from maskhand.models.pose_graph import PoseInputs
from maskhand.models.regression import flat_hand_readout
from maskhand.models.shape_camera_head import placement_from
from maskhand.models.vq_mano import VQMano


class LiftingNetwork(HandNetwork):
    """`model.decoder: lifter`. Of the model's keys it uses `pose2d_inputs`, `lifter_width`, `lifter_blocks` and
    `dropout`."""

    def __init__(self, cfg: ModelConfig, tokenizer: VQMano, mano: ManoLayer, image_size_px: tuple[int, int]) -> None:
        super().__init__(cfg, tokenizer, mano, image_size_px)
        width = cfg.lifter_width
        self.inputs = PoseInputs(cfg.pose2d_inputs)
        self.input_proj = nn.Linear(self.inputs.channels * NUM_JOINTS, width)
        self.blocks = nn.ModuleList(_Block(width, cfg.dropout) for _ in range(cfg.lifter_blocks))
        self.norm = nn.LayerNorm(width)
        self.to_rot6d = flat_hand_readout(width, NUM_MANO_JOINTS)
        self.to_betas = nn.Linear(width, NUM_BETAS)
        self.to_camera = nn.Linear(width, 3)
        for readout in (self.to_betas, self.to_camera):  # initialized to the mean hand in the middle of the crop
            nn.init.xavier_uniform_(readout.weight, gain=0.01)
            nn.init.zeros_(readout.bias)

    def _build_encoder(self, cfg: ModelConfig, image_size_px: tuple[int, int]) -> None:
        return None

    def condition(self, batch: HandBatch) -> Tensor:
        """(B, 0), so that no image is normalized."""
        return batch.keypoints_2d.new_zeros(len(batch.keypoints_2d), 0)

    def encode(
        self,
        condition: Tensor,
        keypoints_2d: Tensor,
        *,
        drop_image: Tensor | None = None,
        drop_pose: Tensor | None = None,
    ) -> Context:
        """As `HandNetwork.encode`; `condition` and `drop_image` are ignored."""
        keypoints_2d = drop_keypoints(keypoints_2d, drop_pose)
        x = self.input_proj(self.inputs(keypoints_2d).flatten(1))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        rotmats = rot6d_to_matrix(self.to_rot6d(x).unflatten(1, (NUM_MANO_JOINTS, 6)).float())
        return Context((), x[:, None, :0], keypoints_2d, self.to_betas(x), placement_from(self.to_camera(x)), rotmats)

    def forward(
        self,
        condition: Tensor,
        keypoints_2d: Tensor,
        ids: Tensor | None = None,
        drop_image: Tensor | None = None,
        drop_pose: Tensor | None = None,
    ) -> TransformerOutput:
        """As `MaskedTransformer.forward`; `condition`, `ids` and `drop_image` are ignored."""
        context = self.encode(condition, keypoints_2d, drop_pose=drop_pose)
        return TransformerOutput(None, context.betas, context.placement, context.rotmats)


class _Block(nn.Module):
    """A pre-norm residual block of two linear layers with a GELU."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)
