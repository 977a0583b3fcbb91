"""Subcommands for data: synthetic hands, shards, and their inspection; `annotate` writes sidecars."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from maskhand.commands import annotate
from maskhand.commands.options import (
    RebuildOption,
    SetsArgument,
    WorkspaceOption,
    each_set,
    examples,
    print_receipt,
    shown_progress,
    workspace_at,
    writable_workspace_at,
)

app = typer.Typer()
app.add_typer(annotate.app, name="annotate")


@app.command(epilog=examples("synth", "synth --hands 50 --evaluation-hands 10 --seed 7"))
def synth(
    hands: Annotated[int, typer.Option(help="Training hands.", min=1)] = 2000,
    evaluation_hands: Annotated[int, typer.Option(help="Evaluation hands.", min=1)] = 200,
    mocap_poses: Annotated[int, typer.Option(help="Poses without images.", min=1)] = 20000,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    second_hand: Annotated[
        float, typer.Option(help="Share of the training hands beside a left hand, often touching it.", min=0, max=1)
    ] = 0.0,
    rebuild: RebuildOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Render a synthetic dataset in FreiHAND's official layout into WORKSPACE/raw/freihand_synth."""
    from maskhand.steps import synthetic

    with shown_progress("render hands") as progress:
        receipt = synthetic.synthesize(
            writable_workspace_at(workspace), hands, evaluation_hands, mocap_poses, seed, progress, rebuild, second_hand
        )
    print_receipt(receipt)


@app.command(epilog=examples("find", "find ~/photos", "find ~/photos --rebuild"))
def find(
    folder: Annotated[
        str | None,
        typer.Argument(help="Folder of photos, with subfolders [default: WORKSPACE/raw/photos].", show_default=False),
    ] = None,
    rebuild: RebuildOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Find hands in photos without labels, as input of `shard photos`; photos that are already listed are kept."""
    from maskhand.steps import photos

    with shown_progress("find hands") as progress:
        receipt = photos.find(writable_workspace_at(workspace), folder, progress, rebuild)
    print_receipt(receipt)


@app.command(
    epilog=examples(
        "shard freihand --raw ~/FreiHAND_pub_v2",
        "shard interhand26m --raw DIR --split val",
        "shard dexycb --raw DIR --split s1_train --out s3://bucket/shards",
    )
)
def shard(
    name: Annotated[str, typer.Argument(help="A dataset of the catalog: a folder in datasets/.")],
    raw: Annotated[
        str | None,
        typer.Option(
            help="Folder or s3:// URI of the published files [default: WORKSPACE/raw/NAME].", show_default=False
        ),
    ] = None,
    split: Annotated[
        list[str],
        typer.Option(help="Only these splits [default: all of the card that are available].", show_default=False),
    ] = [],  # noqa: B006
    out: Annotated[
        str | None,
        typer.Option(
            help="Folder or s3:// URI for the sets, OUT/NAME/SPLIT [default: $MASKHAND_SHARDS, else WORKSPACE/shards].",
            show_default=False,
        ),
    ] = None,
    rebuild: RebuildOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Convert a dataset's published files to validated samples in byte-reproducible WebDataset tars with a manifest."""
    from maskhand import storage
    from maskhand.cluster.session import ray_session
    from maskhand.disk import check_writable
    from maskhand.steps import data

    place = workspace_at(workspace)
    if out is not None:
        place = replace(place, shards_uri=storage.absolute(out))
    splits = data.checked_splits(place, name, raw, split)
    check_writable(place.shards_uri)
    failed = []
    with ray_session():  # one for all: each step would start its own
        for one in splits:
            try:
                with shown_progress(f"shard {name}/{one}") as progress:
                    receipt = data.shard(place, name, one, raw, progress, rebuild)
            except ValueError as error:  # of this split only: the others may be complete
                typer.echo(f"error: {name}/{one}: {error}", err=True)
                failed.append(one)
            else:
                print_receipt(receipt)
    if failed:
        raise typer.Exit(1)


@app.command(epilog=examples("alphabet", "alphabet --per-letter 50 --seed 7 --rebuild"))
def alphabet(
    per_letter: Annotated[int, typer.Option(help="Images of each letter.", min=5)] = 20,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    rebuild: RebuildOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Render a synthetic ASL alphabet in Kaggle's layout, with shards, keypoints and MANO targets, for text to mesh."""
    from maskhand.steps import synthetic

    with shown_progress("letters") as progress:
        receipts = synthetic.alphabet(writable_workspace_at(workspace), per_letter, seed, progress, rebuild)
    for receipt in receipts:
        print_receipt(receipt)


@app.command(epilog=examples("mask freihand/evaluation", "mask hint/TEST_newdays_img --share 0.9"))
def mask(
    sets: SetsArgument,
    share: Annotated[float, typer.Option(help="Fraction of the hand's box to hide.", min=0.0, max=0.99)] = 0.8,
    seed: Annotated[int, typer.Option(help="Same seed, same masks.")] = 0,
    rebuild: RebuildOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Derive evaluation sets of masked hands, SET-masked80; annotate their keypoints before evaluating on them."""
    from maskhand.steps import data

    home = writable_workspace_at(workspace, sets=True)
    each_set(sets, "mask", lambda name, progress: data.mask(home, name, share, seed, progress, rebuild))


@app.command(epilog=examples("verify freihand_synth/training", "verify s3://bucket/shards/freihand/training"))
def verify(
    sets: SetsArgument,
    workspace: WorkspaceOption = None,
) -> None:
    """Check every tar against its manifest for truncated, altered, missing or surplus files."""
    from maskhand.steps import data

    damaged = False
    for name in sets:
        try:
            problems = data.verify(workspace_at(workspace), name)
        except ValueError as error:  # of this set only
            problems = [f"error: {error}"]
        damaged = damaged or bool(problems)
        for problem in problems:
            typer.echo(problem, err=True)
        if not problems:
            typer.echo(f"{name}: whole, with its sidecars")
    if damaged:
        raise typer.Exit(1)


@app.command(
    epilog=examples("inspect freihand_synth/training", "inspect s3://bucket/shards/freihand/training --limit 5000")
)
def inspect(
    sets: SetsArgument,
    out: Annotated[
        str | None, typer.Option(help="Folder or s3:// URI [default: WORKSPACE/reports/inspect].", show_default=False)
    ] = None,
    hands: Annotated[int, typer.Option(help="Hands on the contact sheet.", min=1)] = 16,
    limit: Annotated[
        int | None, typer.Option(help="Maximum number of samples to read [default: all].", min=1, show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of hands on the sheet.")] = 0,
    workspace: WorkspaceOption = None,
) -> None:
    """Show statistics of shard sets and write a contact sheet of each: keypoints, mesh, side and source."""
    from maskhand.progress import print_table
    from maskhand.steps import inspection

    home = writable_workspace_at(workspace) if out is None else workspace_at(workspace)
    for name in sets:
        with shown_progress(f"inspect {name}") as progress:
            receipt = inspection.inspect(home, name, progress, out=out, hands=hands, limit=limit, seed=seed)
        print_table(name, ("what", "value"), inspection.table(receipt))
        print_receipt(receipt)
