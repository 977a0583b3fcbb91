"""HaMeR's preprocessed data as published: tars of pickled hands, evaluation npz beside other sets' images."""

from __future__ import annotations

import io
import pickle
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from maskhand.catalog import DatasetSpec
from support.published_layouts.hands import Fixture, PosedHand, Truth, random_hand, write_image

SIZE = (320, 240)
K_PX = np.array([[400.0, 0, 160], [0, 400, 120], [0, 0, 1]])
"""Not published: keypoints alone say where a hand is."""


@dataclass
class Image:
    """One image of a tar with its pickled hands, before it is written."""

    key: str
    extension: str
    hands: list[dict[str, Any]] = field(default_factory=list)
    labels: bytes | None = None
    """Other bytes than the pickled hands."""
    drop: tuple[str, ...] = ()
    """Members to leave out."""


@dataclass(frozen=True)
class TarFixture(Fixture):
    """`rewrite` writes the tars again from `images`, a list per tar."""

    images: tuple[list[Image], ...] = ()
    loose: Path = Path()

    def rewrite(self) -> None:
        for number, images in enumerate(self.images):
            _write_tar(self.joints_file.with_name(f"{number:06d}.tar"), images, self.loose)


def write_tars(folder: Path, spec: DatasetSpec, split: str, count: int, seed: int = 0) -> TarFixture:
    """Two tars of `count` images; image k of a tar holds k % 3 hands, of both sides; the truths are whole hands."""
    rng = np.random.default_rng(seed)
    root, loose = folder / "hamer_training_data" / "dataset_tars" / split, folder.parent / "loose"
    truths: dict[str, Truth] = {}
    places: list[tuple[int, int, int]] = []
    tars: tuple[list[Image], ...] = ([], [])
    for number, images in enumerate(tars):
        for k in range(count):
            image = Image(f"seq{number}/frame_{k:04d}", ("jpg", "jpeg", "png")[k % 3])
            path = loose / f"{image.key}.{image.extension}"
            write_image(path, rng, SIZE)
            for h in range((k + 2) % 3):
                hand = random_hand(rng, ("right", "left")[(k + h) % 2], np.array([*rng.uniform(-0.05, 0.05, 2), 0.7]))
                valid = np.ones(21, bool)
                valid[[4, 20]] = h == 0
                valid[9] = k % 3 > 0
                image.hands.append(_hand(hand, valid))
                key = f"{split}-{number:06d}-{k:06d}-{h}"
                truths[key] = Truth(hand.side, K_PX, hand.joints_m, valid, hand.vertices_m, path)
                places.append((number, k, h))
            images.append(image)
    root.mkdir(parents=True)

    def damage_joints(position: int, value: Any) -> None:
        number, k, h = places[position]
        tars[number][k].hands[h]["keypoints_3d"] = np.array(value)
        fixture.rewrite()

    fixture = TarFixture(folder, truths, root / "000000.tar", damage_joints, images=tars, loose=loose)
    fixture.rewrite()
    return fixture


def _hand(hand: PosedHand, valid: np.ndarray) -> dict[str, Any]:
    """The published dictionary. Joints without annotation keep garbage and have confidence 0."""
    uvw = hand.joints_m @ K_PX.T
    keypoints_2d = np.column_stack([uvw[:, :2] / uvw[:, 2:], valid])
    low, high = keypoints_2d[:, :2].min(0), keypoints_2d[:, :2].max(0)
    keypoints_2d[~valid, :2] = -1000.0
    return {
        "keypoints_2d": keypoints_2d.astype(np.float32),
        "keypoints_3d": np.column_stack([np.where(valid[:, None], hand.joints_m, 7.0), valid]),
        "center": (low + high) / 2,
        "scale": (high - low) * 1.2 / 200.0,
        "right": np.float32(hand.side == "right"),
        "hand_pose": np.concatenate([hand.global_aa, hand.fingers_aa.ravel()]),
        "betas": hand.betas,
        "has_hand_pose": np.float32(1),
        "has_betas": np.float32(1),
        "extra_info": {
            "fitting_loss": np.array({"reprojection_loss": 12.5}, dtype=object),
            "detection_npz_idx": 0,
        },
    }


def _write_tar(path: Path, images: list[Image], loose: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for image in images:
            masks = io.BytesIO()
            np.savez_compressed(masks, masks=np.zeros((max(len(image.hands), 1), *SIZE[::-1]), bool))
            members = {
                image.extension: (loose / f"{image.key}.{image.extension}").read_bytes(),
                "data.pyd": pickle.dumps(image.hands) if image.labels is None else image.labels,
                "detection.npz": masks.getvalue(),
            }
            for extension, data in members.items():
                if extension not in image.drop:
                    header = tarfile.TarInfo(f"{image.key}.{extension}")
                    header.size = len(data)
                    tar.addfile(header, io.BytesIO(data))


def write_npz(
    folder: Path,
    spec: DatasetSpec,
    split: str,
    count: int,
    seed: int = 0,
    *,
    absent: tuple[str, ...] = (),
    scale_columns: int = 2,
    extra: dict[str, Any] | None = None,
) -> Fixture:
    """`count` hands of both sides (right ones only without `right`), an image each; two or three joints are hidden."""
    rng = np.random.default_rng(seed)
    images = folder / spec.image_folders[split]
    truths: dict[str, Truth] = {}
    rows: dict[str, list[Any]] = {}
    for k in range(count):
        side = "right" if "right" in absent else ("right", "left")[k % 2]
        hand = random_hand(rng, side, np.array([*rng.uniform(-0.05, 0.05, 2), rng.uniform(0.6, 0.8)]))
        name = f"video{k % 2}/frame_{k:05d}.jpg"
        write_image(images / name, rng, SIZE)
        valid = np.ones(21, bool)
        valid[[8, 12]] = False
        valid[9] = k % 3 > 0
        stored = _hand(hand, valid)
        size = stored["scale"] * 200.0 if scale_columns == 2 else np.full(2, (stored["scale"] * 200.0).max())
        row = {
            "imgname": name.encode() if k % 2 else name,
            "center": stored["center"],
            "scale": size[:scale_columns],
            "right": stored["right"],
            "hand_keypoints_2d": stored["keypoints_2d"],
            "hand_keypoints_3d": stored["keypoints_3d"],
            "extra_info": stored["extra_info"],
        } | {name: stored[name] for name in ("hand_pose", "betas", "has_hand_pose", "has_betas")}
        for column, value in row.items():
            if column not in absent:
                rows.setdefault(column, []).append(value)
        box = np.concatenate([stored["center"] - size / 2, stored["center"] + size / 2])
        truths[f"{split}-{k:08d}"] = Truth(
            side, K_PX, hand.joints_m, valid, hand.vertices_m, images / name, box_xyxy_px=box
        )
    path = folder / "hamer_evaluation_data" / f"{split}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        objects = ("imgname", "extra_info")
        columns = {n: np.array(v, dtype=object if n in objects else None) for n, v in rows.items()}
        np.savez(path, **columns, **(extra or {}))  # type: ignore[arg-type]

    def damage_joints(position: int, value: Any) -> None:
        rows["hand_keypoints_3d"][position] = np.array(value)
        save()

    save()
    return Fixture(folder, truths, path, damage_joints)
