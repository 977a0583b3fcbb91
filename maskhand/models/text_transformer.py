"""The masked transformer conditioned on a text instead of an image (paper section 4.3, supplement B).

The text encoder replaces the image encoder and its pyramid, cross-attention to the text's tokens replaces deformable
attention to feature maps; tokens, 2D pose, GAPR, losses and sampling are those of `MaskedTransformer`. Shape and camera
are regressed from the pooled token of the text: the mean over the hands that the text describes.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from maskhand.batch import HandBatch
from maskhand.config import ModelConfig
from maskhand.models.clip_text import ClipTextEncoder
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.network import Context, drop_keypoints
from maskhand.models.shape_camera_head import seen_joints
from maskhand.models.synthesizer import SynthesizerLayer
from maskhand.models.text_attention import TextCrossAttention
from maskhand.models.text_encoder import ByteTextEncoder, TextEncoder

ENCODERS: dict[str, type[ByteTextEncoder] | type[ClipTextEncoder]] = {"bytes": ByteTextEncoder, "clip": ClipTextEncoder}


class TextTransformer(MaskedTransformer):
    """`model.condition: text`. The keys for images (backbone, feature scales, reference points) are not used."""

    encoder: TextEncoder  # type: ignore[assignment]

    def _build_encoder(self, cfg: ModelConfig, image_size_px: tuple[int, int]) -> nn.Module:
        return ENCODERS[cfg.text.encoder](cfg.text)

    def _build_visual_context(self, cfg: ModelConfig) -> None:
        self.reference = None

    def _build_cross_attention(self, cfg: ModelConfig) -> nn.Module:
        return TextCrossAttention(cfg.dim, cfg.heads, self.encoder.channels)

    def condition(self, batch: HandBatch) -> Tensor:
        return batch.text_ids

    def encode(
        self,
        condition: Tensor,
        keypoints_2d: Tensor,
        *,
        drop_image: Tensor | None = None,
        drop_pose: Tensor | None = None,
    ) -> Context:
        """condition (B, W): ids of the captions."""
        text = self.encoder(condition)
        if drop_image is not None:
            text = text.drop(drop_image)
        values = tuple(cast(SynthesizerLayer, layer).cross_attn.project(text) for layer in self.synthesizer)
        keypoints_2d = drop_keypoints(keypoints_2d, drop_pose)
        pose_tokens = self._pose_tokens(keypoints_2d)
        betas, placement = self.shape_camera(text.pooled[..., None, None], pose_tokens, seen_joints(keypoints_2d, None))
        return Context(values, pose_tokens, keypoints_2d, betas, placement)
