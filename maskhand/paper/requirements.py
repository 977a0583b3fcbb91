"""What a row cannot be run without: shard sets, sidecars, weights; and how to get each of them."""

from __future__ import annotations

from collections.abc import Sequence

from maskhand.assets import list_assets
from maskhand.catalog import load_spec
from maskhand.config import Recipe
from maskhand.paper.tables import PaperRow, measured_set
from maskhand.shards.layout import IMAGES, MANO, keypoint_part
from maskhand.shards.manifest import find_manifest
from maskhand.workspace import Workspace

OPENPOSE, MANO_ASSET, BACKBONE = "OpenPose hand weights", "MANO", "ViTPose-H checkpoint"
TEXT_ENCODER = "CLIP text encoder"
"""Names in `maskhand assets`."""


def missing(
    row: PaperRow, recipe: Recipe, benchmark_sets: Sequence[str], workspace: Workspace, full_size: bool, gpus: int
) -> list[str]:
    """A sentence for each thing that this machine lacks; empty when the row can run.

    benchmark_sets: before any masking; a row of masked hands is measured on what is derived from them, which runs that
    are not of full size derive themselves. full_size: the paper's own size, which also wants its hand model and a
    pretrained encoder. gpus: of this machine.
    """
    data = recipe.data
    keypoints = keypoint_part(data.keypoints.detector)
    wanted: dict[str, set[str]] = {}
    if row.trains:
        for name in data.pose_sets:
            wanted.setdefault(name, set()).update({IMAGES, MANO})
    if row.trains and row.measure != "tokenizer":
        detected = {keypoints} if data.keypoints.trains_on_detections else set()
        for name in data.train:
            wanted.setdefault(name, set()).update({IMAGES, MANO} | detected)
    reads_pose = row.measure != "tokenizer" and data.keypoints.eval_source == "detected"
    for name in benchmark_sets:
        is_read = reads_pose and not row.mask
        wanted.setdefault(name, set()).update({IMAGES, keypoints} if is_read else {IMAGES})
        if row.measure in ("tokenizer", "text"):
            wanted[name].add(MANO)
    sentences = [s for name, parts in wanted.items() for s in _missing_parts(name, parts, workspace)]
    if row.mask and full_size:
        detector = data.keypoints.detector if reads_pose else None
        sentences += [s for name in benchmark_sets if (s := _missing_masked(row, name, detector, workspace))]
    if full_size and row.measure != "seconds":
        assets = {asset.name: asset for asset in list_assets(workspace.assets)}
        names = [MANO_ASSET]
        if row.measure == "text" and recipe.model.text.encoder == "clip" and recipe.model.text.checkpoint is None:
            names.append(TEXT_ENCODER)
        elif row.trains and row.measure not in ("tokenizer", "text") and wants_backbone(recipe):
            names.append(BACKBONE)
        if any(keypoints in s for s in sentences) and data.keypoints.detector == "openpose-hand":
            names.append(OPENPOSE)
        sentences += [f"{name}: {assets[name].how_to_get}" for name in names if not assets[name].present]
        if row.trains and recipe.engine.use_gpu and gpus < recipe.engine.workers:
            sentences.append(
                f"{recipe.engine.workers} GPUs (there are {gpus}): --set engine.workers=..., engine.use_gpu=..."
            )
    return sentences


def wants_backbone(recipe: Recipe) -> bool:
    """Does its network look at images, and name no weights of an encoder?"""
    backbone = recipe.model.backbone
    return recipe.model.sees_image and backbone.checkpoint is None and not backbone.is_hand_landmark


def _missing_parts(name: str, parts: set[str], workspace: Workspace) -> list[str]:
    dataset, _, split = name.partition("/")
    uri = workspace.shard_set(name)
    absent = sorted(part for part in parts if find_manifest(uri, part) is None)
    spec = load_spec(dataset)
    if IMAGES in absent:
        raw = workspace.raw / dataset
        how = "" if raw.is_dir() else f"{' '.join(spec.how_to_get.split())} Then "
        return [f"shard set {name}: {how}`maskhand shard {dataset} --split {split} --raw DIR`, then its sidecars"]
    unlabeled = spec.joint_order is None and spec.mano is None
    by_model = " --model MODEL" if unlabeled else ""  # the targets are a model's predictions
    commands = {MANO: f"maskhand annotate mano {name}{by_model}"}
    return [
        f"sidecar {part} of {name}: "
        f"`{commands.get(part) or f'maskhand annotate keypoints {name} --detector ' + part.partition('.')[2]}`"
        for part in absent
    ]


def _missing_masked(row: PaperRow, name: str, detector: str | None, workspace: Workspace) -> str:
    """What is to be done for the masked set of the set `name`; empty when it is there. detector: None = no 2D pose."""
    derived = measured_set(row, name)
    steps = {IMAGES: f"`maskhand mask {name} --share {row.mask:g}`"}
    if detector is not None:
        steps[keypoint_part(detector)] = f"`maskhand annotate keypoints {derived} --detector {detector}`"
    uri = workspace.shard_set(derived)
    absent = [command for part, command in steps.items() if find_manifest(uri, part) is None]
    return f"masked hands {derived}: {', then '.join(absent)}" if absent else ""
