"""An exported network on ONNX Runtime; of this package it needs neither PyTorch nor models.

    network = OnnxNetwork.load("exported")
    hands = network(batch.pixels.numpy(), batch.keypoints_2d.numpy())    # of a HandBatch

Crops and 2D poses are made as for the network itself: `loading.photo.photo_batch` with `network.facts["input"]`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from maskhand import storage
from maskhand.arrays import Array
from maskhand.errors import MaskhandError
from maskhand.json_text import JsonError, parse_json_object

FORMAT: Final = 1
ONNX, FACTS = "network.onnx", "network.json"
"""Files of an exported folder; weights of more than 1.5 GB are in a third, network.onnx.data."""
INPUTS: Final = ("pixels", "keypoints_2d")
OUTPUTS: Final = ("vertices_m", "joints_m", "rotmats", "betas", "camera", "token_probability")


class ExportError(MaskhandError, RuntimeError):
    """A network that cannot be exported, or an exported one that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class OnnxHands:
    """B predicted right hands, in the axes of their crops, as in `HandPrediction`."""

    vertices_m: Array
    """(B, 778, 3) before translation, meters."""
    joints_m: Array
    """(B, 21, 3) before translation, OpenPose order."""
    rotmats: Array
    """(B, 16, 3, 3) MANO rotations, global orientation first."""
    betas: Array
    """(B, 10)."""
    camera: Array
    """(B, 3) HaMeR's crop camera s, tx, ty."""
    token_probability: Array
    """(B, L, V) of each code at each token, all tokens masked; the hand is that of the expected code vectors."""


@dataclass(frozen=True)
class OnnxNetwork:
    """An encoder and one decoding pass."""

    facts: dict[str, Any]
    """Contents of network.json: what the input is, which model and which hand it was, faces of the mesh."""
    session: Any
    """`onnxruntime.InferenceSession`."""

    @classmethod
    def load(
        cls, folder: str | Path, threads: int | None = None, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> Self:
        """Load what `export_onnx` wrote into a folder. threads: of one operation; None: all cores.

        Raises ExportError when ONNX Runtime is missing, or a file is missing or is another one.
        """
        require("onnxruntime")
        import onnxruntime

        network, facts = Path(folder) / ONNX, _facts(Path(folder) / FACTS)
        if not network.is_file() or storage.sha256(network) != facts.get("sha256"):
            raise ExportError(f"{network}: not the file that {FACTS} beside it names; export the model again")
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        return cls(facts, onnxruntime.InferenceSession(str(network), options, providers=list(providers)))

    def __call__(self, pixels: Array, keypoints_2d: Array) -> OnnxHands:
        """The hands of B crops.

        pixels (B, H, W, 3 or 4) uint8 and keypoints_2d (B, 21, 7) float32 as in `HandBatch`: RGB, of what follows
        nothing is used; zeros for a joint that was not detected. Raises ExportError for other shapes or types.
        """
        height, width = self.facts["input"]["image_size_px"]
        batch = len(pixels)
        if pixels.dtype != np.uint8 or pixels.shape not in [(batch, height, width, c) for c in (3, 4)] or not batch:
            raise ExportError(f"pixels: {_said(pixels)}; expected uint8 (B, {height}, {width}, 3) with B > 0")
        if keypoints_2d.shape != (batch, 21, 7):
            raise ExportError(f"keypoints_2d: {_said(keypoints_2d)}; expected float32 ({batch}, 21, 7)")
        given = (np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(keypoints_2d, np.float32))
        return OnnxHands(*self.session.run(list(OUTPUTS), dict(zip(INPUTS, given, strict=True))))


def require(*modules: str) -> None:
    """Raise ExportError for libraries that are not installed."""
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        verb = "is" if len(missing) == 1 else "are"
        raise ExportError(f"{' and '.join(missing)} {verb} not installed; pip install 'maskhand[onnx]' brings them")


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = parse_json_object(path.read_bytes())
    except FileNotFoundError:
        raise ExportError(f"{path.parent}: no {path.name}; make it with `maskhand export {path.parent}`") from None
    except JsonError as error:
        raise ExportError(f"{path}: {error}; export the model again") from None
    if facts.get("format") != FORMAT:
        raise ExportError(
            f"{path}: format {facts.get('format')!r}, this version reads {FORMAT}; export the model again"
        )
    return facts


def _said(values: Array) -> str:
    return f"{values.dtype} of shape {values.shape}"
