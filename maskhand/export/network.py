"""A masked transformer as an ONNX file: encoder, one decoding pass over all tokens, VQ-MANO's decoder, hand layer.

The hand is that of the expected code vectors (`expectation`, T = 1), which is the estimator of the models that ship and
needs no loop. Pixels are normalized inside the graph. It has any number of hands.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from maskhand import __version__, storage
from maskhand.batch import IMAGENET_MEAN, IMAGENET_STD, POSE_CHANNELS
from maskhand.conventions import NUM_JOINTS
from maskhand.export.runner import FACTS, FORMAT, INPUTS, ONNX, OUTPUTS, ExportError, require
from maskhand.models.bundle import ModelBundle
from maskhand.models.masked_transformer import MaskedTransformer
from maskhand.models.open_folder import open_hand_digest
from maskhand.models.shape_camera_head import place_camera
from maskhand.models.vq_mano import full_precision

LARGEST_FILE: Final = 3 * 2**29
"""Bytes of weights above which they get a file of their own: protocol buffers end at 2 GiB."""
OPEN_HAND: Final = "holds the open hand, which may be passed on (CC0, see maskhand/hand/open_hand/PROVENANCE.md)"
LICENSED_HAND: Final = (
    "holds the hand model that it was exported with; if that is MANO, its license holds for this file: no passing on, "
    "research only"
)


@dataclass(frozen=True)
class OnnxExport:
    """What was written."""

    network: Path
    facts: Path
    license: str
    """A sentence about the hand model inside."""


class DecodingPass(nn.Module):
    """(B, H, W, 3) uint8 RGB crops and 2D poses (B, 21, 7) as in HandBatch -> `OUTPUTS`, see `OnnxHands`."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: MaskedTransformer) -> None:
        super().__init__()
        self.model = model
        device = model.norm.weight.device
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, 255 * torch.tensor(values, device=device)[:, None, None], persistent=False)

    def forward(self, pixels: Tensor, keypoints_2d: Tensor) -> tuple[Tensor, ...]:
        model, tokenizer = self.model, self.model.tokenizer
        # Not `batch.normalize`: it writes into its planes, which ties an exported graph to the number of hands.
        image = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        context = model.encode(image, keypoints_2d)
        masked = torch.full((keypoints_2d.shape[0], model.num_tokens), model.mask_id, device=pixels.device)
        probability = model.logits(masked, context).float().softmax(-1)
        betas, placement = context.betas.float(), context.placement.float()
        with full_precision(pixels.device):
            rotmats = tokenizer.decode_soft(probability @ tokenizer.codebook)
            mesh = model.mano(rotmats, betas)
        return mesh.vertices_m, mesh.joints_m, rotmats, betas, place_camera(placement, mesh.joints_m), probability


def decoding_pass(bundle: ModelBundle) -> DecodingPass:
    """The pass that is exported, of a bundle. Raises ExportError for networks of another kind."""
    bundle.require("image")
    if not isinstance(bundle.model, MaskedTransformer):
        raise ExportError(
            f"model {bundle.digest} (recipe {bundle.recipe.name}) has model.decoder={bundle.recipe.model.decoder}; "
            "networks with model.decoder=masked are exported"
        )
    return DecodingPass(bundle.model).eval()


def export_onnx(bundle: ModelBundle, folder: str | Path) -> OnnxExport:
    """Write the model, on the CPU, to network.onnx and network.json in a folder; other files there stay.

    Raises ExportError for another kind of network, without the libraries, and where torch finds no graph.
    """
    require("onnx", "onnxscript")
    program = _program(decoding_pass(bundle), bundle)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    weights = sum(t.numel() * t.element_size() for t in bundle.model.state_dict().values())
    with tempfile.TemporaryDirectory(dir=target, prefix=".maskhand-") as part:
        program.save(Path(part) / ONNX, external_data=weights > LARGEST_FILE)
        facts = _facts(bundle, Path(part) / ONNX)
        for path in sorted(Path(part).iterdir()):
            os.replace(path, target / path.name)
    storage.write_bytes_atomic(target / FACTS, json.dumps(facts).encode() + b"\n")
    return OnnxExport(target / ONNX, target / FACTS, f"{target / ONNX} {facts['hand_model']['license']}")


def license_of(hand_digest: str) -> str:
    """What to say about a file that holds a hand model."""
    return OPEN_HAND if hand_digest == open_hand_digest() else LICENSED_HAND


def _program(network: DecodingPass, bundle: ModelBundle) -> Any:
    """`torch.onnx.ONNXProgram`."""
    height, width = bundle.recipe.data.image_size_px
    # Three hands: torch takes a size of 1 for a constant.
    pixels = torch.zeros(3, height, width, 3, dtype=torch.uint8)
    keypoints_2d = torch.zeros(3, NUM_JOINTS, POSE_CHANNELS)
    hands = {0: torch.export.Dim("hands", min=1)}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Strict: torch then follows len() of a tensor, and contexts of precision.
            graph = torch.export.export(network, (pixels, keypoints_2d), dynamic_shapes=(hands, hands), strict=True)
            program: Any = torch.onnx.export(
                graph, input_names=INPUTS, output_names=OUTPUTS, dynamo=True, verbose=False
            )
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ExportError(
                f"model {bundle.digest} (recipe {bundle.recipe.name}): torch {torch.__version__} makes no graph of it "
                f"({reason}); run again with --debug for the whole message"
            ) from error
    for value in (*program.model.graph.inputs, *program.model.graph.outputs):
        value.shape = type(value.shape)(["hands", *value.shape[1:]])
    return program


def _facts(bundle: ModelBundle, network: Path) -> dict[str, Any]:
    data = bundle.recipe.data
    return {
        "format": FORMAT,
        "maskhand": __version__,
        "sha256": storage.sha256(network),
        "model": {"digest": bundle.digest, "recipe": bundle.recipe.name},
        "estimator": "expectation, T=1",
        "input": {
            "image_size_px": list(data.image_size_px),
            "crop_px": data.crop_px,
            "crop_aspect": data.crop_aspect,
            "box_scale": data.box_scale,
            "upright": data.upright,
            "keypoint_detector": data.keypoints.detector,
            "normalized_inside": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD},
        },
        "hand_model": {"digest": bundle.hand_digest, "license": license_of(bundle.hand_digest)},
        "faces": bundle.model.mano.faces.tolist(),
        "recipe": bundle.recipe.model_dump(mode="json"),
    }
