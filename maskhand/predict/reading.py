"""Reading of hands from result files of prediction; meshes and joints are recomputed from the MANO parameters."""

from __future__ import annotations

import codecs
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from maskhand import local_files, storage
from maskhand.arrays import Array
from maskhand.conventions import MANO_16, MIRROR_AXIS_ANGLE, MIRROR_POINT, NUM_BETAS, NUM_JOINTS
from maskhand.film.video import read_frames
from maskhand.hand.layer import ManoLayer
from maskhand.json_text import JsonError, parse_json, parse_json_object
from maskhand.predict.modes import Mode
from maskhand.predict.photo import read_photo
from maskhand.predict.records import Hypothesis, PredictedHand, PredictError

T = TypeVar("T")

ROWS = "hands.jsonl"
"""The file of a result folder with the hands of all pictures, one JSON line each."""


@dataclass(frozen=True)
class ReadPicture:
    """The hands of a picture in a result."""

    name: str
    hands: tuple[PredictedHand, ...]
    image_rgb: Array | None
    """(H, W, 3) uint8; None if the picture, or the film with this frame, was not found."""


@dataclass(frozen=True)
class ReadResult:
    """The pictures that were read from a result."""

    pictures: tuple[ReadPicture, ...]
    total: int
    """Number of pictures with hands in the result."""


def read_result(path: str | Path, most: int | None = None) -> ReadResult:
    """The pictures with hands in a folder that `predict` wrote, in its `hands.jsonl`, or in the JSON of one picture.

    most: maximum number of pictures, evenly spaced; None: all. Raises PredictError for any other file, and for hands
    of another hand model than the configured one.
    """
    given = Path(path)
    if not given.is_dir():
        return _of_file(given, most)
    if (given / ROWS).is_file():
        return _of_file(given / ROWS, most)
    found = [picture for file in sorted(given.glob("*.json")) for picture in _of_file(file, None, False).pictures]
    if not found:
        raise PredictError(f"{given}: no {ROWS} and no JSON file of a picture with hands; give what `predict` wrote")
    return ReadResult(tuple(_evenly(found, most)), len(found))


def hands_from_json(rows: Sequence[dict[str, Any]]) -> tuple[PredictedHand, ...]:
    """The hands of JSON records; missing confidences become NaN, missing tokens empty arrays.

    Raises PredictError for hands of another hand model than the configured one.
    """
    layer = ManoLayer.from_default()
    return tuple(_hand(row, layer) for row in rows)


def _of_file(file: Path, most: int | None, required: bool = True) -> ReadResult:
    try:
        data = storage.read_bytes(file)
        if file.suffix == ".jsonl":
            lines = enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), 1)
            return _of_rows([_row(line, number) for number, line in lines if line.strip()], file, most)
        facts = parse_json(data)
        if isinstance(facts, dict) and isinstance(facts.get("hands"), list):
            shared = {name: facts[name] for name in ("method", "hand_model", "keypoint_detector") if name in facts}
            hands = hands_from_json([shared | hand for hand in facts["hands"]])
            name = str(facts["photo"])
            picture = ReadPicture(Path(name).name, hands, _image(name, file))
            return ReadResult((picture,), 1) if hands else ReadResult((), 0)
    except storage.StorageError as error:
        if required:
            raise PredictError(f"{error}; give what `maskhand predict` wrote") from None
        return ReadResult((), 0)
    except PredictError:  # of another hand model
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if required:
            said = str(error) if isinstance(error, ValueError) else "a field is of another kind"
            reason = f"no {error}" if isinstance(error, KeyError) else said
            raise PredictError(f"{file}: not a result of `maskhand predict` ({reason}); give what it wrote") from None
        return ReadResult((), 0)
    if required:
        raise PredictError(f"{file}: it has no list of hands; give a folder or a JSON file that `predict` wrote")
    return ReadResult((), 0)


def _row(line: bytes, number: int) -> dict[str, Any]:
    try:
        return parse_json_object(line)
    except JsonError as error:
        raise JsonError(f"line {number}: {error}") from None


def _of_rows(rows: Sequence[dict[str, Any]], file: Path, most: int | None) -> ReadResult:
    by_picture: dict[tuple[str, int | None], list[dict[str, Any]]] = {}
    for row in rows:
        if row.get("status", "hand") == "hand":
            by_picture.setdefault((row["picture"], row.get("frame")), []).append(row)
    keys = _evenly(list(by_picture), most)
    wanted: dict[str, set[int]] = {}
    for name, frame in keys:
        if frame is not None:
            wanted.setdefault(name, set()).add(frame)
    frames = {name: _frames(name, file, numbers) for name, numbers in wanted.items()}
    pictures = tuple(
        ReadPicture(
            Path(name).name + ("" if frame is None else f", frame {frame}"),
            hands_from_json(by_picture[name, frame]),
            _image(name, file) if frame is None else frames[name].get(frame),
        )
        for name, frame in keys
    )
    return ReadResult(pictures, len(by_picture))


def _evenly(items: Sequence[T], most: int | None) -> list[T]:
    if most is None or len(items) <= most:
        return list(items)
    return [items[round(k * (len(items) - 1) / max(most - 1, 1))] for k in range(most)]


def _places(name: str, result: Path) -> Iterator[Path]:
    """Existing candidate paths of a picture: its recorded path, or near the result file."""
    for place in (Path(name), result.parent / name, result.parent / Path(name).name, result.parent.parent / name):
        if local_files.size(place) is not None:
            yield place


def _image(name: str, result: Path) -> Array | None:
    for place in _places(name, result):
        try:
            return read_photo(place)
        except PredictError:
            continue
    return None


def _frames(name: str, result: Path, numbers: set[int]) -> dict[int, Array]:
    """The requested frames of a film that can be read, by number; decoding stops after the last one."""
    found: dict[int, Array] = {}
    for place in _places(name, result):
        try:
            for frame in read_frames(place, start=min(numbers)):
                if frame.index in numbers:
                    found[frame.index] = frame.image_rgb
                if frame.index >= max(numbers):
                    break
        except PredictError:
            pass
        if found:
            break
    return found


def _hand(row: dict[str, Any], layer: ManoLayer) -> PredictedHand:
    if row["hand_model"] != layer.digest:
        raise PredictError(
            f"the hands are of hand model {row['hand_model']}, configured is {layer.digest}; point MASKHAND_MANO_DIR "
            "to the one that predicted them, or unset it for the open hand"
        )
    side = row["mano"]["side"]
    if side not in ("right", "left"):
        raise ValueError(f"`side` is {side!r}, expected right or left")
    hypotheses = row.get("hypotheses", [])
    placed = _placed([row, *hypotheses], side, layer)
    unknown = [np.nan] * NUM_JOINTS
    camera = row["camera"]
    faces = layer.faces.cpu().numpy()
    return PredictedHand(
        **placed[0]
        | {
            "joints_px": _array(row, "joints_px", NUM_JOINTS, 2),
            "crop_camera": np.array([camera["crop"][name] for name in ("scale", "tx", "ty")]),
        },
        side=side,
        side_known=row["side"] is not None,
        box_xyxy_px=_array(row, "box_xyxy_px", 4).astype(np.float32),
        detection_score=row["detection_score"],
        keypoints_px=_array(row, "keypoints_px", NUM_JOINTS, 2),
        keypoints_confidence=_array(row, "keypoints_confidence", NUM_JOINTS),
        faces=faces[:, ::-1] if side == "left" else faces,
        K_px=_array(camera, "K_px", 3, 3),
        crop_from_image=_array(camera, "crop_from_image", 2, 3),
        p_within_10mm=np.array(row["p_within_10mm"] or unknown, np.float64),
        joint_error_mm=np.array(row["joint_error_mm"] or unknown, np.float64),
        detector=row["keypoint_detector"],
        method=row["method"],
        hand_model=row["hand_model"],
        camera_origin=camera.get("source", "assumed"),
        hypotheses=tuple(
            Hypothesis(**facts, drawn=h["drawn"], score=h["score"])
            for facts, h in zip(placed[1:], hypotheses, strict=True)
        ),
        modes=tuple(Mode(tuple(m["members"]), m["share"], m["medoid"]) for m in row.get("modes", [])),
    )


def _array(record: dict[str, Any], name: str, *shape: int) -> Array:
    """A field of finite numbers, float64 of this shape; ValueError for anything else."""
    value = record[name]
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"`{name}` is {reprlib.repr(value)}, expected {' x '.join(map(str, shape))} finite numbers")
    return array


def _placed(records: Sequence[dict[str, Any]], side: str, layer: ManoLayer) -> list[dict[str, Any]]:
    """The fields of a `PlacedHand` for each record; a left hand is computed as the mirrored right one."""
    manos = [record["mano"] for record in records]
    pose = np.stack([np.vstack([_array(mano, "global_orient", 3), _array(mano, "hand_pose", 15, 3)]) for mano in manos])
    betas, transl = (
        np.stack([_array(mano, name, count) for mano in manos])
        for name, count in {"betas": NUM_BETAS, "transl_cam_m": 3}.items()
    )
    turn, mirror = (MIRROR_AXIS_ANGLE, MIRROR_POINT) if side == "left" else (np.ones(3), np.ones(3))
    given = (torch.from_numpy(x).float() for x in (pose * turn, betas))
    mesh = layer.from_axis_angle(*given)
    vertices, joints = (x.double().numpy() * mirror + transl[:, None] for x in (mesh.vertices_m, mesh.joints_m))
    return [
        {
            "pose_aa": pose[k],
            "betas": betas[k],
            "transl_cam_m": transl[k],
            "vertices_cam_m": vertices[k],
            "joints_cam_m": joints[k],
            "joints_px": np.full((NUM_JOINTS, 2), np.nan),
            "crop_camera": np.full(3, np.nan),
            "token_confidence_of_joints": np.array(
                list(record.get("token_confidence_of_joints", dict.fromkeys(MANO_16, np.nan)).values())
            ),
            "tokens": np.array(record.get("tokens", []), np.int64),
            "token_confidence": np.array(record.get("token_confidence", [])),
            "log_probability": record.get("log_probability", np.nan),
        }
        for k, record in enumerate(records)
    ]
