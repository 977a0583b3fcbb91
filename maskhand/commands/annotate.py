"""The subcommands of `maskhand annotate`: sidecar shards of keypoints and MANO targets."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from maskhand.commands.options import (
    RebuildOption,
    SetsArgument,
    WorkspaceOption,
    each_set,
    examples,
    writable_workspace_at,
)

app = typer.Typer(help="Write sidecar shards beside image shards.", rich_markup_mode=None)


@app.command(
    epilog=examples(
        "annotate keypoints freihand_synth/training", "annotate keypoints freihand/training --detector openpose-hand"
    ),
)
def keypoints(
    sets: SetsArgument,
    detector: Annotated[str, typer.Option(help="litert-hand or openpose-hand.")] = "litert-hand",
    rebuild: RebuildOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Detect 2D keypoints in every image of shard sets."""
    from maskhand.steps import annotation

    home = writable_workspace_at(workspace, sets=True)
    each_set(
        sets,
        "keypoints",
        lambda name, progress: annotation.annotate_keypoints(home, name, detector, progress, rebuild),
    )


@app.command(
    epilog=examples(
        "annotate mano freihand_synth/training freihand_synth/evaluation",
        "annotate mano asl_alphabet/letters_train --from keypoints",
        "annotate mano asl_alphabet/letters_train --model models:/maskhand@champion",
    ),
)
def mano(
    sets: SetsArgument,
    model: Annotated[
        str | None,
        typer.Option(
            help="Use this model's predictions as targets: a folder, or models:/NAME@ALIAS.", show_default=False
        ),
    ] = None,
    source: Annotated[
        Literal["labels", "keypoints"],
        typer.Option("--from", help="The set's labels, or fits to the detected keypoints of images without labels."),
    ] = "labels",
    detector: Annotated[str, typer.Option(help="Keypoint detector for --from keypoints.")] = "litert-hand",
    rebuild: RebuildOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Write MANO targets in the canonical form, each with a flag whether it is good enough for training."""
    from maskhand.steps import annotation
    from maskhand.steps.models import model_folder

    home = writable_workspace_at(workspace, sets=True)
    exported = model_folder(home, model) if model else None
    seen_by = detector if source == "keypoints" else None
    each_set(
        sets,
        "mano",
        lambda name, progress: annotation.annotate_mano(home, name, progress, rebuild, exported, seen_by),
    )
