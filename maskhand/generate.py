"""Text-to-hand generation: meshes, an image of them and their parameters, from a model with `model.condition: text`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from maskhand import storage
from maskhand.batch import POSE_CHANNELS, HandPrediction
from maskhand.config import SamplerConfig
from maskhand.conventions import NUM_JOINTS
from maskhand.hand.mesh import glb_bytes, obj_bytes
from maskhand.hand.rotations import matrix_to_axis_angle
from maskhand.models.bundle import ModelBundle
from maskhand.models.sampling import sample
from maskhand.render import contact_sheet, overlay_mesh
from maskhand.text import caption_ids

TOP_FRACTION = 0.05
"""Size of the top-k filter, as a fraction of the codebook (supplement B)."""
TILE_PX, DISTANCE_M, FILL = 256, 0.8, 0.85
SPACING_M = 0.22
COLUMNS = 4


def generation_sampler(sampler: SamplerConfig, codes: int) -> SamplerConfig:
    """The sampler with temperature 1 and a top-k filter (`TOP_FRACTION` of `codes`), unless it samples already."""
    if sampler.temperature > 0:
        return sampler
    top_k = max(1, round(TOP_FRACTION * codes))
    return sampler.model_copy(update={"temperature": 1.0, "top_k": top_k, "decode": "codes"})


@torch.inference_mode()
def hands_from_text(bundle: ModelBundle, text: str, count: int, seed: int) -> HandPrediction:
    """Generate `count` hands for a text, ranked, without 2D pose. Raises BundleError, TextError."""
    bundle.require("text")
    model, recipe = bundle.model, bundle.recipe
    device = model.mano.weights.device
    ids = torch.from_numpy(caption_ids([text], recipe.model.text)).to(device)
    context = model.encode(ids, torch.zeros(1, NUM_JOINTS, POSE_CHANNELS, device=device))
    generator = torch.Generator(device).manual_seed(seed)
    sampler = generation_sampler(recipe.sampler, recipe.tokenizer.codebook_size)
    return sample(model, context, sampler, generator, count).to("cpu")


def generate_files(bundle: ModelBundle, text: str, out_dir: str | Path, count: int, seed: int) -> list[Path]:
    """Write hands.png, hand0.obj ..., hands.glb and, last, hands.json; returns the paths."""
    hands = hands_from_text(bundle, text, count, seed)
    faces = bundle.model.mano.faces.cpu().numpy()
    centered = (hands.vertices_m - hands.vertices_m.mean(1, keepdim=True)).double().numpy()
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    sheet, scene, summary = out / "hands.png", out / "hands.glb", out / "hands.json"
    storage.write_bytes_atomic(sheet, _sheet(text, centered, faces, hands.log_probability.tolist()))
    meshes = [out / f"hand{k}.obj" for k in range(count)]
    for path, vertices in zip(meshes, centered, strict=True):
        storage.write_bytes_atomic(path, obj_bytes(vertices, faces, path.stem, "origin at the middle of the hand"))
    in_a_row = [(vertices + np.array([SPACING_M * k, 0, 0]), faces) for k, vertices in enumerate(centered)]
    storage.write_bytes_atomic(scene, glb_bytes(in_a_row, frame="hands side by side"))
    facts = {
        "text": text,
        "seed": seed,
        "text_encoder": bundle.recipe.model.text.encoder,
        "model": {"digest": bundle.digest, "recipe": bundle.recipe.name, "hand_model": bundle.hand_digest},
        "hands": [
            {
                "mesh": mesh.name,
                "score": round(float(hands.score[k]), 4),
                "log_probability": round(float(hands.log_probability[k]), 4),
                "pose_aa": matrix_to_axis_angle(hands.rotmats[k].double()).numpy().round(5).tolist(),
                "betas": hands.betas[k].double().numpy().round(5).tolist(),
            }
            for k, mesh in enumerate(meshes)
        ],
    }
    storage.write_json_atomic(summary, facts)
    return [sheet, *meshes, scene, summary]


def _sheet(text: str, centered_m: np.ndarray, faces: np.ndarray, log_probabilities: list[float]) -> bytes:
    """A contact sheet of the hands, each from a camera in front of it."""
    extent = np.abs(centered_m[..., :2]).max()
    focal = FILL * TILE_PX / 2 * DISTANCE_M / extent
    K = np.array([[focal, 0, TILE_PX / 2], [0, focal, TILE_PX / 2], [0, 0, 1]])
    blank = np.full((TILE_PX, TILE_PX, 3), 244, np.uint8)
    tiles = [overlay_mesh(blank, v + np.array([0, 0, DISTANCE_M]), faces, K, opacity=1.0) for v in centered_m]
    captions = [f"log probability {value:.2f}" for value in log_probabilities]
    rows = range(0, len(tiles), COLUMNS)
    return contact_sheet(
        [tiles[r : r + COLUMNS] for r in rows], [captions[r : r + COLUMNS] for r in rows], title=text, tile_px=TILE_PX
    )
