"""Random hands posed by smplx, and what a reader of a layout must find again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import smplx
import torch

from maskhand.hand.model_file import OPEN_HAND_FOLDER, HandModel, load_hand_model

TIPS = {"thumb": 744, "index": 320, "middle": 443, "ring": 554, "little": 671}
_MANO_NAMES = ["wrist"] + [
    f"{finger}_{k}" for finger in ("index", "middle", "little", "ring", "thumb") for k in range(3)
]
JOINT_NAMES = ["wrist"] + [f"{f}_{k}" for f in ("thumb", "index", "middle", "ring", "little") for k in range(4)]
"""OpenPose order, base to tip; `finger_3` is the tip."""


@dataclass(frozen=True)
class PosedHand:
    """A hand in the frame it was posed in, meters."""

    side: str
    global_aa: np.ndarray
    fingers_aa: np.ndarray
    """(15, 3) absolute."""
    betas: np.ndarray
    transl_m: np.ndarray
    vertices_m: np.ndarray
    joints_m: np.ndarray
    """(21, 3) in the order of JOINT_NAMES."""

    def named(self, tips: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
        """Joints by name; `tips` are the vertices of another dataset's fingertips."""
        by_name = dict(zip(JOINT_NAMES, self.joints_m, strict=True))
        return by_name | {f"{finger}_3": self.vertices_m[vertex] for finger, vertex in (tips or {}).items()}


@dataclass(frozen=True)
class Truth:
    """The values that the adapter must read for one key."""

    side: str
    K_px: np.ndarray | None
    """None: no camera is published, or none that holds for the whole image."""
    joints_cam_m: np.ndarray | None
    """(21, 3) OpenPose order; None where only the image is annotated."""
    valid: np.ndarray
    """(21,) annotated joints."""
    vertices_cam_m: np.ndarray | None
    image_path: Path
    visible: np.ndarray | None = None
    """(21,) what the 2D confidence says; the annotated joints where None."""
    box_xyxy_px: np.ndarray | None = None
    """The published box; the one around the annotated joints where None."""
    mano: bool = True
    """Whether the hand model in use can express the stored parameters, if the dataset has any."""
    joints_px: np.ndarray | None = None
    """(21, 2) pixels where no K_px gives them."""
    occluded: np.ndarray | None = None
    """(21,) bool of joints_2d_occluded."""
    label: Any = None
    """Hands with an equal label share one entry of the joints file; hands with equal joints where None."""
    origin: dict[str, Any] = field(default_factory=dict)
    """Entries of `origin` that must be there."""

    def points_px(self) -> np.ndarray | None:
        """(21, 2), None where no joints are annotated."""
        if self.joints_px is not None or self.joints_cam_m is None:
            return self.joints_px
        uvw = self.joints_cam_m @ self.K_px.T
        return uvw[:, :2] / uvw[:, 2:]

    def shares_label(self, other: Truth) -> bool:
        if self.label is not None:
            return self.label == other.label
        return np.array_equal(self.joints_cam_m, other.joints_cam_m)


@dataclass(frozen=True)
class Fixture:
    """A written dataset."""

    raw_dir: Path
    truths: dict[str, Truth]
    """Key that the adapter must give -> truth, in the official order."""
    joints_file: Path
    damage_joints: Callable[[int, Any], None]
    """Overwrite the joints of the hand at this position in the joints file."""
    rejects: dict[str, str] = field(default_factory=dict)
    """Key -> reason, for hands that the raw split names and that must not become samples."""
    file_per_sample: bool = False
    """Whether joints_file is the label of one sample alone, so that damage to it costs only that sample."""
    other_splits: frozenset[str] = frozenset()
    """Splits that the same files hold as well."""


@lru_cache(maxsize=2)
def model(side: str) -> HandModel:
    return load_hand_model(OPEN_HAND_FOLDER / f"OPEN_HAND_{side.upper()}.pkl")


ShapeSigns = tuple[int, int, int]
"""Signs of the x, y and z rows of the shape directions; left models of some datasets have wrong ones."""


@lru_cache(maxsize=6)
def _smplx_mano(side: str, shape_signs: ShapeSigns) -> smplx.MANO:
    hand = model(side)
    fields = {
        "v_template": hand.v_template_m,
        "f": hand.faces.astype(np.uint32),
        "weights": hand.weights,
        "J_regressor": hand.j_regressor,
        "kintree_table": np.stack([hand.parents, np.arange(16)]),
        "shapedirs": hand.shapedirs * np.array(shape_signs)[:, None],
        "posedirs": hand.posedirs,
        "hands_mean": hand.hands_mean_aa.reshape(45),
        "hands_components": hand.hands_components,
    }
    return smplx.MANO(
        "",
        data_struct=smplx.utils.Struct(**fields),
        is_rhand=side == "right",
        use_pca=False,
        flat_hand_mean=True,
        dtype=torch.float64,
    )


def pose_hand(
    side: str,
    global_aa: np.ndarray,
    fingers_aa: np.ndarray,
    betas: np.ndarray,
    transl_m: np.ndarray,
    shape_signs: ShapeSigns = (1, 1, 1),
) -> PosedHand:
    """Absolute axis-angle -> mesh and joints by smplx.MANO with flat_hand_mean=True."""
    as_row = lambda values: torch.from_numpy(np.asarray(values, np.float64).reshape(1, -1))  # noqa: E731
    with torch.no_grad():
        out = _smplx_mano(side, shape_signs)(
            betas=as_row(betas), global_orient=as_row(global_aa), hand_pose=as_row(fingers_aa), transl=as_row(transl_m)
        )
    vertices = out.vertices[0].numpy()
    by_name = dict(zip(_MANO_NAMES, out.joints[0].numpy(), strict=True))
    by_name |= {f"{finger}_3": vertices[vertex] for finger, vertex in TIPS.items()}
    joints = np.stack([by_name[name] for name in JOINT_NAMES])
    return PosedHand(side, global_aa, fingers_aa.reshape(15, 3), betas, transl_m, vertices, joints)


def random_hand(
    rng: np.random.Generator, side: str, transl_m: np.ndarray, shape_signs: ShapeSigns = (1, 1, 1)
) -> PosedHand:
    return pose_hand(side, rng.normal(0, 1, 3), rng.normal(0, 0.3, 45), rng.normal(0, 0.7, 10), transl_m, shape_signs)


def write_image(path: Path, rng: np.random.Generator, size_px: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rng.integers(0, 255, (size_px[1], size_px[0], 3), dtype=np.uint8))


def write_large_image(path: Path, index: int, size_px: tuple[int, int]) -> None:
    """One of a few images, by the ending of its name; encoded once, since thousands of them are written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded(index % 4, size_px, path.suffix))


@lru_cache(maxsize=32)
def _encoded(variant: int, size_px: tuple[int, int], suffix: str) -> bytes:
    coarse = np.random.default_rng(variant).integers(0, 255, (size_px[1] // 8, size_px[0] // 8, 3), dtype=np.uint8)
    return cv2.imencode(suffix, cv2.resize(coarse, size_px, interpolation=cv2.INTER_NEAREST))[1].tobytes()


def licensed_folder(folder: Path) -> Path:
    """A folder as $MASKHAND_MANO_DIR expects it; the open hand stands in for the licensed files."""
    folder.mkdir(parents=True, exist_ok=True)
    for side in ("RIGHT", "LEFT"):
        shutil.copy(OPEN_HAND_FOLDER / f"OPEN_HAND_{side}.pkl", folder / f"MANO_{side}.pkl")
    return folder


def seen_hand(rng: np.random.Generator, side: str, size_px: tuple[int, int]) -> np.ndarray:
    """(21, 2) pixels, in the order of JOINT_NAMES, of a random hand well inside an image, by a pinhole camera."""
    width, height = size_px
    depth = rng.uniform(0.6, 0.9)
    place = np.array([rng.uniform(-0.25, 0.25) * width, rng.uniform(-0.25, 0.25) * height]) * depth / height
    uvw = random_hand(rng, side, np.array([*place, depth])).joints_m
    return height * uvw[:, :2] / uvw[:, 2:] + np.array([width, height]) / 2


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
