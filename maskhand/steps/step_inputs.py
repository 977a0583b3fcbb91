"""What decides the outcome of a step, as digests: a flow runs a step again when one of them has changed."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from maskhand import storage
from maskhand.annotate.registry import load_detector
from maskhand.catalog import load_spec
from maskhand.config import Recipe
from maskhand.conventions import Side
from maskhand.digest import short_digest
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.loading.detector_errors import SHIPPED as DETECTOR_ERRORS
from maskhand.shards.layout import IMAGES, MANO, keypoint_part
from maskhand.shards.manifest import check_hand_model, find_manifest, read_manifest
from maskhand.shipped_models import OPEN, OPEN_WEIGHTS
from maskhand.training.run_identity import Kind
from maskhand.workspace import Workspace

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
TRAINING_CODE = (
    "models/*.py", "training/*.py", "loading/*.py", "hand/*.py", "shards/mixture.py",
    "evaluation/held_out.py", "evaluation/truth.py", "metrics/alignment.py", "metrics/samples.py",
)  # fmt: skip
"""Source that decides the weights: networks, losses, masking, augmentation, the order of samples, the hand, and the
error by which the best ones are kept."""
MOCAP = "mocap.npz"
"""Poses without images, beside the files of a raw dataset."""


def data_digest(workspace: Workspace, name: str) -> str:
    """Digest of the images and annotations of a shard set (12 hex digits)."""
    return read_manifest(workspace.shard_set(name), IMAGES).digest


def raw_fingerprint(folder: str) -> str:
    """12 hex digits that change when published files do: name, size and time (S3: ETag) of all but the images.

    A local folder is walked whole, links followed: 100,000 images take 0.05 s, as many label files, which must be
    asked for their time, 0.4 s.
    """
    if storage.is_remote(folder):
        etags = storage.list_etags(folder).items()
        facts = [f"{uri} {etag}" for uri, etag in etags if not uri.lower().endswith(IMAGE_SUFFIXES)]
    else:
        facts = [f"{path} {about.st_size} {about.st_mtime_ns}" for path, about in _labels_below(Path(folder))]
    return short_digest("\n".join(sorted(facts)))


def _labels_below(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """(path relative to `root`, its facts) of every file that is no image."""
    been: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(root, followlinks=True):
        about = os.stat(here)
        if (about.st_dev, about.st_ino) in been:  # a link to a folder above it would be walked for ever
            folders.clear()
            continue
        been.add((about.st_dev, about.st_ino))
        folders.sort()  # which of two names of a folder comes first must not depend on the file system
        inside = here.removeprefix(str(root))
        for name in files:
            if not name.lower().endswith(IMAGE_SUFFIXES):
                with contextlib.suppress(FileNotFoundError):  # a link to nothing
                    yield f"{inside}/{name}", os.stat(f"{here}/{name}")


def has_rejects(workspace: Workspace, name: str) -> bool:
    """Does a finished shard set lack samples of its plan?"""
    manifest = find_manifest(workspace.shard_set(name), IMAGES)
    return manifest is not None and sum(manifest.rejects.values()) > 0


def detector_version(workspace: Workspace, detector: str) -> str:
    """Names a detector's weights and procedure; its model files are fetched where that is needed (AssetError)."""
    return load_detector(detector, workspace.assets).version


def source_digests(dataset: str) -> dict[str, str]:
    """What decides the samples and targets made of a dataset's published files, beside these: card and hand models."""
    digests = {"card": load_spec(dataset).digest(), "hand_model": _hand_digest()}
    with contextlib.suppress(FileNotFoundError):  # sets without annotated left hands do without it
        digests["left_hand_model"] = _hand_digest("left")
    return digests


def training_digests(workspace: Workspace, kind: Kind, recipe: Recipe) -> dict[str, str]:
    """Everything outside the recipe that decides the outcome of a training: name -> digest (12 hex digits).

    ShardError where sets or sidecars are missing, or MANO targets were made with another hand than the one in use.
    """
    sets: Iterable[str] = ()
    parts: list[str] = []
    if kind == "transformer":
        sets, parts = recipe.data.train, [IMAGES, MANO]
        if recipe.data.keypoints.trains_on_detections:
            parts.append(keypoint_part(recipe.data.keypoints.detector))
    digests = {
        f"{name}/{part}": read_manifest(workspace.shard_set(name), part).digest for name in sets for part in parts
    }
    if kind == "tokenizer" or recipe.data.posed_hands:
        digests |= {
            f"{name}/{MANO}": read_manifest(workspace.shard_set(name), MANO).digest for name in recipe.data.pose_sets
        }
        digests |= {f"mocap.{k}": _sha256_12(path) for k, path in enumerate(mocap_files(workspace, recipe))}
    if kind == "transformer":
        digests |= _more_of_a_transformer(workspace, recipe)
    hand = _hand_digest()
    for name in sorted({key.removesuffix(f"/{MANO}") for key in digests if key.endswith(f"/{MANO}")}):
        check_hand_model(workspace.shard_set(name), hand, "the training")
    return digests | {"hand_model": hand, "code": training_code_digest()}


def _more_of_a_transformer(workspace: Workspace, recipe: Recipe) -> dict[str, str]:
    """What ships with this package, and the sidecars that validations read where they are there."""
    keypoints, found = recipe.data.keypoints, dict[str, str]()
    if keypoints.simulates_detections:
        found["detector_errors"] = _sha256_12(str(DETECTOR_ERRORS))
    encoder = recipe.model.backbone.checkpoint if recipe.training.start_from is None else None
    if recipe.model.sees_image and encoder == OPEN:
        found["open_model"] = _sha256_12(str(OPEN_WEIGHTS))
    if (start := recipe.training.start_from) is not None:
        # where it is missing, the training says so
        weights = OPEN_WEIGHTS if start == OPEN else Path(start) / "model.pt"
        found["start_from"] = _sha256_12(str(weights)) if weights.is_file() else ""
    if recipe.training.validate_every and keypoints.eval_source == "detected":
        part = keypoint_part(keypoints.detector)
        for name in recipe.data.train:
            if (manifest := find_manifest(workspace.shard_set(name), part)) is not None:
                found[f"{name}/{part}"] = manifest.digest
    return found


def mocap_files(workspace: Workspace, recipe: Recipe) -> tuple[str, ...]:
    """The pose-only files beside the raw datasets of a recipe that wants them; FileNotFoundError without any."""
    if not recipe.data.mocap:
        return ()
    paths = [
        workspace.raw / dataset / MOCAP for dataset in sorted({n.partition("/")[0] for n in recipe.data.pose_sets})
    ]
    found = tuple(str(path) for path in paths if path.is_file())
    if not found:
        raise FileNotFoundError(
            f"{', '.join(map(str, paths))}: not found, but data.mocap is true; `maskhand synth` makes the file of the "
            "synthetic set, --set data.mocap=false does without"
        )
    return found


def _hand_digest(side: Side = "right") -> str:
    return load_hand_model(default_hand_path(side)).digest


@functools.cache
def training_code_digest(package: Path = Path(__file__).parents[1]) -> str:
    """Digest of what the code behind a training does (12 hex digits): another kind of loss makes another training.

    Comments, docstrings and layout are left out: a remark written beside a running training does not part the two.
    """
    digest = hashlib.sha256()
    for path in sorted(path for part in TRAINING_CODE for path in package.glob(part)):
        module = ast.parse(path.read_bytes())
        for node in ast.walk(module):
            if body := getattr(node, "body", None):
                node.body = [s for s in body if not _is_remark(s)] if isinstance(body, list) else body  # type: ignore[attr-defined]
        digest.update(f"{path.relative_to(package).as_posix()} {ast.dump(module)}\n".encode())
    return digest.hexdigest()[:12]


def _is_remark(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _sha256_12(path: str) -> str:
    return short_digest(Path(path).read_bytes())
