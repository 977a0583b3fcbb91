"""The subcommand for users' own pictures and films."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from maskhand.commands.options import WorkspaceOption, examples, print_receipt, shown_progress, workspace_at

if TYPE_CHECKING:
    from maskhand.steps.given_options import GivenOptions

app = typer.Typer()


@app.command(
    epilog=examples(
        "predict hand.jpg --out out",
        "predict holiday 'more/**/*.heic' film.mp4 --out out --every 5",
        "predict hand.jpg --out out --box 120,80,360,330 --side left",
        "predict holiday --out out --boxes detections.json --save overlay,mesh",
        "predict hand.jpg --out out --method model --model models:/maskhand@champion",
        "predict hand.jpg --out out --hypotheses 100",
        "predict s3://bucket/photos film.mp4 --out s3://bucket/hands --workers 16",
        "predict crowd.jpg --out out --small",
        "predict hand.jpg --out out --convention smplx --pca 12",
    )
)
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Pictures, films, folders of them, patterns such as 'photos/**/*.jpg'."
        ),
    ],
    out: Annotated[str, typer.Option(help="Folder for the results of this run; with --workers also s3://.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="`open` (the shipped model), an exported folder, or models:/NAME@ALIAS [default: open].",
            show_default=False,
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="The hand's box in pixels, for one picture [default: detected]."),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Hand boxes of any detector for all pictures: COCO JSON, or JSON Lines."),
    ] = None,
    small: Annotated[
        bool,
        typer.Option("--small", help="Also search for hands of 10 to 50 pixels in finer tiles: seconds per megapixel."),
    ] = False,
    side: Annotated[Literal["right", "left"] | None, typer.Option(help="The hands' side [default: detected].")] = None,
    focal: Annotated[
        float | None, typer.Option(metavar="PX", help="The pictures' focal length [default: from EXIF, else assumed].")
    ] = None,
    intrinsics: Annotated[
        str | None, typer.Option(metavar="FX,FY,CX,CY", help="The camera of all pictures, in pixels.")
    ] = None,
    camera: Annotated[
        Literal["keypoints", "model"], typer.Option(help="Place the mesh by the 2D keypoints, or by the model alone.")
    ] = "keypoints",
    method: Annotated[
        Literal["fit", "model", "refine"] | None,
        typer.Option(
            help="A fit to the detected keypoints, the network, or a fit to both [default: refine; or fit, if the hand "
            "model is not the open one].",
            show_default=False,
        ),
    ] = None,
    hypotheses: Annotated[
        int, typer.Option(min=0, help="Number of plausible hands to sample for each hand, nearest to their mean first.")
    ] = 0,
    min_confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out hands with a lower mean keypoint confidence.")
    ] = 0.0,
    every: Annotated[int, typer.Option(min=1, metavar="N", help="Process every N-th frame of films.")] = 1,
    smooth: Annotated[
        Literal["whole", "causal", "none", "frames"] | None,
        typer.Option(
            help="For films: track hands and smooth them over the whole film, causally, or not at all; `frames`: treat "
            "each frame as a separate picture [default: whole].",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(
            help="Files for each picture: any of overlay,mesh,json, or none [default: all for a single picture, "
            "overlay for several]. For a tracked film: an overlay film.",
            show_default=False,
        ),
    ] = None,
    vertices: Annotated[bool, typer.Option("--vertices", help="Also write the mesh vertices to the tables.")] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Use this number of Ray workers; the results are shards, the same for any number.",
            show_default=False,
        ),
    ] = None,
    convention: Annotated[
        Literal["mano", "smplx", "smplh"],
        typer.Option(help="Also write poses in the convention of this body model of the smplx library."),
    ] = "mano",
    pca: Annotated[
        int | None,
        typer.Option(
            min=1, max=45, metavar="N", show_default=False, help="These poses as N components [default: axis-angle]."
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Replace the results of an earlier run there.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Predict the hands in pictures and films; write hands.jsonl, hands.parquet, run.json, and files of each picture.

    A picture that cannot be read, or shows no hand, is a row with the reason. The exit code is 0 if all pictures could
    be read, even if none shows a hand, else 1. After an interruption, the same command continues the run.
    """
    from maskhand.predict.pictures import GivenCamera
    from maskhand.steps.given_options import GivenOptions
    from maskhand.steps.hands_report import report
    from maskhand.steps.prepare_predict import prepare_run

    given = GivenOptions(
        model=model,
        method=method,
        placed_by=camera,
        hypotheses=hypotheses,
        boxes=boxes,
        side=side,
        camera=GivenCamera(focal, _numbers("--intrinsics", intrinsics, "FX,FY,CX,CY")),
        min_confidence=min_confidence,
        every=every,
        vertices=vertices,
        again=again,
    )
    if workers is not None:
        alone = {
            "--box": box is not None, "--save": save not in (None, "none"), "--small": small, "--pca": pca is not None,
            "--smooth": smooth not in (None, "frames"), "--convention": convention != "mano",
        }  # fmt: skip
        _by_workers(workspace, inputs, out, given, [name for name, is_given in alone.items() if is_given], workers)
        return
    run = prepare_run(
        workspace_at(workspace),
        inputs,
        _folder(out),
        given,
        box_xyxy_px=_numbers("--box", box, "X0,Y0,X1,Y1"),
        smooth=smooth,
        save=save,
        small=small,
        convention=convention,
        components=pca,
    )
    if run.note:
        typer.echo(run.note, err=True)
    result = run.finished()
    if result is not None:
        typer.echo("nothing is processed again: an earlier run has finished this (--again begins anew)", err=True)
    else:
        from maskhand.steps import hands as step  # imports torch, which a finished run does not need

        with shown_progress("predict") as progress:
            result = step.predict(run, progress)
    for line in report(result):
        typer.echo(line)
    if result.counts["unreadable"]:
        raise typer.Exit(1)


def _by_workers(
    workspace: Path | None, inputs: list[str], out: str, given: GivenOptions, alone: list[str], workers: int
) -> None:
    """alone: options that are given, and only supported without workers."""
    from maskhand.predict.records import PredictError
    from maskhand.steps.prepare_predict_shards import prepare_shard_run

    if alone:
        raise PredictError(
            f"--workers: the results are rows in shards, of single pictures and frames; {', '.join(alone)} "
            f"{'is' if len(alone) == 1 else 'are'} for runs without workers"
        )
    run = prepare_shard_run(workspace_at(workspace), inputs, out, given)
    if run.note:
        typer.echo(run.note, err=True)
    from maskhand.steps import predict_shards as step  # imports torch, after the options were checked

    with shown_progress("predict") as progress:
        receipt = step.predict_by_workers(run, progress, workers=workers)
    print_receipt(receipt)
    if receipt.unreadable:
        raise typer.Exit(1)


def _folder(out: str) -> Path:
    if "://" in out:
        raise ValueError(f"--out {out}: give a folder of this machine, or --workers N, which writes shards")
    return Path(out)


def _numbers(option: str, text: str | None, form: str) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        first, second, third, fourth = (float(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"{option} {text!r}: expected four numbers {form} in pixels") from None
    return first, second, third, fourth
