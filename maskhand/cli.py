"""The `maskhand` command: every step of the pipeline is one verb that calls one library function.

Nothing heavy is imported before a verb needs it, so that `--help` is instant. Errors are one sentence and exit code 1;
`--debug`, anywhere on the line, shows the traceback.
"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from maskhand.progress import Progress
    from maskhand.steps.receipt import Receipt
    from maskhand.workspace import Workspace

app = typer.Typer(
    help="MaskHand: 3D hand meshes from one picture, from raw data to a registered model.",
    epilog="\b\nStart here:\n  maskhand quickstart         everything, small, on this machine\n"
    "  maskhand doctor             is this machine ready?\n  maskhand VERB --help        examples of a verb",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
annotate_app = typer.Typer(help="Write sidecar shards beside image shards.", rich_markup_mode=None)
train_app = typer.Typer(help="Train with DeepSpeed on Ray workers; repeated, it resumes.", rich_markup_mode=None)
app.add_typer(annotate_app, name="annotate")
app.add_typer(train_app, name="train")


def _use_workspace(folder: Path | None) -> Path | None:
    if folder is not None:
        os.environ["MASKHAND_WORKSPACE"] = str(folder.resolve())
    return folder


WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        callback=_use_workspace,
        show_default=False,
        help="Folder of everything that is made [default: $MASKHAND_WORKSPACE, else ./workspace].",
    ),
]
RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="Name of a shipped recipe, or a YAML file.")]
SetOption = Annotated[
    list[str], typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a recipe's key; may be repeated.")
]
LabelOption = Annotated[str, typer.Option(help="Sets apart another training of the same settings and data.")]
RebuildOption = Annotated[bool, typer.Option("--rebuild", help="Replace what other settings or data have made there.")]
SetsArgument = Annotated[list[str], typer.Argument(metavar="SET...", help="Shard sets, such as freihand/training.")]


def _examples(*lines: str) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  maskhand {line}" for line in lines)


@app.command(
    epilog=_examples(
        "quickstart",
        "quickstart --hands 100 --evaluation-hands 50 --set training.optim.steps=100",
        "quickstart -w /tmp/w",
    )
)
def quickstart(
    hands: Annotated[int, typer.Option(help="Synthetic training hands.", min=8)] = 2000,
    evaluation_hands: Annotated[int, typer.Option(help="Synthetic evaluation hands.", min=8)] = 200,
    mocap_poses: Annotated[int, typer.Option(help="Poses without pictures, for the tokenizer.", min=1)] = 20000,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic data.")] = 0,
    recipe: RecipeOption = "tiny",
    set_: SetOption = [],  # noqa: B006
    workspace: WorkspaceOption = None,
) -> None:
    """The whole pipeline on this machine, from nothing to an evaluated, registered model. Repeating it continues."""
    _prepare()
    from pipelines.quickstart import quickstart as flow

    flow(hands, evaluation_hands, mocap_poses, seed, recipe, set_, str(_workspace().root))


@app.command(epilog=_examples("synth", "synth --hands 50 --evaluation-hands 10 --seed 7"))
def synth(
    hands: Annotated[int, typer.Option(help="Training hands.", min=1)] = 2000,
    evaluation_hands: Annotated[int, typer.Option(help="Evaluation hands.", min=1)] = 200,
    mocap_poses: Annotated[int, typer.Option(help="Poses without pictures.", min=1)] = 20000,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    rebuild: RebuildOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Render a synthetic data set in FreiHAND's official layout into WORKSPACE/raw/freihand_synth."""
    from maskhand.steps import data

    with _progress("render hands") as progress:
        receipt = data.synthesise(_workspace(), hands, evaluation_hands, mocap_poses, seed, progress, rebuild)
    _say(receipt)


@app.command(epilog=_examples("shard freihand --raw ~/FreiHAND_pub_v2", "shard interhand26m --raw DIR --split val"))
def shard(
    name: Annotated[str, typer.Argument(help="A data set of the catalogue: a folder in datasets/.")],
    raw: Annotated[
        Path | None,
        typer.Option(help="Folder of the published files [default: WORKSPACE/raw/NAME].", show_default=False),
    ] = None,
    split: Annotated[
        list[str], typer.Option(help="Only these splits [default: those that are there].", show_default=False)
    ] = [],  # noqa: B006
    rebuild: RebuildOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Raw published files -> validated samples -> byte-reproducible WebDataset tars with a manifest."""
    from maskhand.steps import data

    for one in split or data.splits(_workspace(), name, str(raw) if raw else None):
        with _progress(f"shard {name}/{one}") as progress:
            receipt = data.shard(_workspace(), name, one, str(raw) if raw else None, progress, rebuild)
        _say(receipt)


@annotate_app.command(
    "keypoints",
    epilog=_examples(
        "annotate keypoints freihand_synth/training", "annotate keypoints freihand/training --detector openpose-hand"
    ),
)
def annotate_keypoints(
    sets: SetsArgument,
    detector: Annotated[str, typer.Option(help="litert-hand or openpose-hand.")] = "litert-hand",
    rebuild: RebuildOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Detect 2D keypoints in every picture of shard sets."""
    from maskhand.steps import data

    for name in sets:
        with _progress(f"keypoints {name}") as progress:
            receipt = data.annotate_keypoints(_workspace(), name, detector, progress, rebuild)
        _say(receipt)


@annotate_app.command("mano", epilog=_examples("annotate mano freihand_synth/training freihand_synth/evaluation"))
def annotate_mano(sets: SetsArgument, rebuild: RebuildOption = False, workspace: WorkspaceOption = None) -> None:
    """Write MANO targets in the one canonical form, checked against the annotated joints."""
    from maskhand.steps import data

    for name in sets:
        with _progress(f"mano {name}") as progress:
            receipt = data.annotate_mano(_workspace(), name, progress, rebuild)
        _say(receipt)


@app.command(epilog=_examples("verify freihand_synth/training", "verify s3://bucket/shards/freihand/training"))
def verify(
    sets: Annotated[list[str], typer.Argument(metavar="SET...", help="Shard sets, or URIs of their folders.")],
    workspace: WorkspaceOption = None,
) -> None:
    """Compare every tar with its manifest: truncated, altered, missing or surplus files."""
    from maskhand.steps import data

    problems = [problem for name in sets for problem in data.verify(_workspace(), name)]
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{len(sets)} shard set(s) and their sidecars are whole")


@app.command(
    epilog=_examples("inspect freihand_synth/training", "inspect s3://bucket/shards/freihand/training --limit 5000")
)
def inspect(
    sets: Annotated[list[str], typer.Argument(metavar="SET...", help="Shard sets, or URIs of their folders.")],
    out: Annotated[
        str | None, typer.Option(help="Folder or s3:// URI [default: WORKSPACE/reports/inspect].", show_default=False)
    ] = None,
    hands: Annotated[int, typer.Option(help="Hands on the contact sheet.", min=1)] = 16,
    limit: Annotated[
        int | None, typer.Option(help="Read no more samples than this [default: all].", min=1, show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed shows other hands.")] = 0,
    workspace: WorkspaceOption = None,
) -> None:
    """Statistics of shard sets and a contact sheet of each: keypoints, mesh, side and source."""
    from maskhand.progress import print_table
    from maskhand.steps import inspection

    for name in sets:
        with _progress(f"inspect {name}") as progress:
            receipt = inspection.inspect(_workspace(), name, progress, out=out, hands=hands, limit=limit, seed=seed)
        print_table(name, ("what", "value"), inspection.table(receipt))
        _say(receipt)


@train_app.command("tokenizer", epilog=_examples("train tokenizer", "train tokenizer --set engine.workers=1"))
def train_tokenizer(
    recipe: RecipeOption = "tiny",
    set_: SetOption = [],  # noqa: B006
    label: LabelOption = "",
    workspace: WorkspaceOption = None,
) -> None:
    """VQ-MANO: learn a codebook of hand poses."""
    from maskhand.steps import train

    with _progress("train VQ-MANO") as progress:
        receipt = train.train_tokenizer(_workspace(), recipe, set_, label, progress)
    _say(receipt)


@train_app.command(
    "transformer",
    epilog=_examples("train transformer --tokenizer workspace/runs/tokenizer-tiny-0123456789ab/export"),
)
def train_transformer(
    tokenizer: Annotated[Path, typer.Option(help="Folder written by `maskhand train tokenizer`.")],
    recipe: RecipeOption = "tiny",
    set_: SetOption = [],  # noqa: B006
    label: LabelOption = "",
    workspace: WorkspaceOption = None,
) -> None:
    """The masked transformer, on a frozen VQ-MANO."""
    from maskhand.steps import train

    with _progress("train masked transformer") as progress:
        receipt = train.train_transformer(_workspace(), recipe, set_, str(tokenizer), label, progress)
    _say(receipt)


@app.command(
    epilog=_examples(
        "evaluate", "evaluate --model workspace/runs/.../export --on freihand/evaluation", "evaluate --on X"
    )
)
def evaluate(
    model: Annotated[
        str, typer.Option(help="An exported folder, or models:/NAME@ALIAS.")
    ] = "models:/maskhand@champion",
    on: Annotated[
        list[str], typer.Option(metavar="SET", help="Shard sets [default: the recipe's].", show_default=False)
    ] = [],  # noqa: B006
    workspace: WorkspaceOption = None,
) -> None:
    """Measure a model on held-out shard sets, beside a predictor that always says the mean pose."""
    from maskhand.progress import print_table
    from maskhand.steps import evaluate as step

    with _progress("evaluate") as progress:
        receipt = step.evaluate(_workspace(), model, on, progress)
    print_table("evaluation", *step.table(receipt))
    _say(receipt)


@app.command(
    epilog=_examples("predict hand.jpg --out out", "predict hand.jpg --out out --box 120,80,360,330 --side left")
)
def predict(
    photo: Annotated[Path, typer.Argument(help="A JPEG or PNG file.")],
    out: Annotated[Path, typer.Option(help="Folder for overlay, meshes and JSON.")],
    model: Annotated[
        str, typer.Option(help="An exported folder, or models:/NAME@ALIAS.")
    ] = "models:/maskhand@challenger",
    box: Annotated[
        str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="The hand's box in pixels [default: found].")
    ] = None,
    side: Annotated[Literal["right", "left"] | None, typer.Option(help="The hand's side [default: found].")] = None,
    focal: Annotated[
        float | None, typer.Option(metavar="PX", help="The photo's focal length [default: assumed].")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Find the hands in a photo and write overlay PNG, meshes (.obj, .glb) and a JSON with MANO parameters."""
    from maskhand.steps import evaluate as step

    for path in step.predict(_workspace(), photo, out, model, _numbers(box), side, focal):
        typer.echo(str(path))


@app.command(epilog=_examples("assets", "assets --fetch"))
def assets(
    fetch: Annotated[bool, typer.Option("--fetch", help="Fetch what may be fetched, with checksums.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """What is there, what is missing, what each file is for, its licence and where to get it."""
    from maskhand.assets import hand_models, list_assets
    from maskhand.progress import print_table

    folder = _workspace().assets
    if fetch:
        hand_models(folder)
    rows = [
        ("ok" if a.present else "missing", a.name, a.purpose, a.licence, a.where if a.present else a.how_to_get)
        for a in list_assets(folder)
    ]
    print_table("assets", ("", "asset", "what it is for", "licence", "where / how to get it"), rows)


@app.command(epilog=_examples("doctor", "doctor -w /data/maskhand"))
def doctor(workspace: WorkspaceOption = None) -> None:
    """Is this machine ready? Every line says what to do; exit code 1 when something must be mended first."""
    from maskhand.doctor import examine
    from maskhand.progress import print_table

    findings = examine(_workspace())
    print_table("doctor", ("", "what", "found", "what to do"), [(f.state, f.what, f.found, f.advice) for f in findings])
    if any(f.state == "fail" for f in findings):
        raise typer.Exit(1)


@app.command(epilog=_examples("run train-maskhand --param recipe=tiny --watch", "run evaluate-maskhand"))
def run(
    flow: Annotated[str, typer.Argument(help="A deployment's name, such as train-maskhand.")],
    param: Annotated[
        list[str], typer.Option("--param", "-p", metavar="KEY=VALUE", help="A flow parameter; JSON or text.")
    ] = [],  # noqa: B006
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the end; exit code 0 only if it completed.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Ask the Prefect server for a run of a deployment; a worker executes it (`maskhand serve`)."""
    _prepare()
    from pipelines import server

    raise typer.Exit(server.run_deployment(_workspace(), flow, param, watch))


@app.command(epilog=_examples("deploy"))
def deploy(workspace: WorkspaceOption = None) -> None:
    """Create the work pool and every deployment of prefect.yaml on the Prefect server."""
    _prepare()
    from pipelines import server

    raise typer.Exit(server.deploy(_workspace()))


@app.command(epilog=_examples("serve", "serve --port 4300"))
def serve(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 4200,
    workspace: WorkspaceOption = None,
) -> None:
    """A Prefect server on 127.0.0.1 with the workspace's runs, all deployments and a worker, until Ctrl-C."""
    _prepare()
    from pipelines import server

    raise typer.Exit(server.serve(_workspace(), port))


DEBUG = "--debug"


def main(arguments: list[str] | None = None) -> None:
    """Entry point: one sentence for an error, a traceback only with `--debug`."""
    words = sys.argv[1:] if arguments is None else arguments
    if DEBUG in words:
        os.environ["MASKHAND_DEBUG"] = "1"
    try:
        app(args=[word for word in words if word != DEBUG], prog_name="maskhand")
    except Exception as error:
        if DEBUG in words:
            raise
        typer.echo(f"error: {sentence(error)}", err=True)
        raise SystemExit(1) from None


def sentence(error: BaseException) -> str:
    """What to tell a person: our own errors and missing files speak for themselves; others name their type."""
    cause = getattr(error, "cause", None)  # Ray wraps what a worker raised
    if isinstance(cause, BaseException):
        return sentence(cause)
    text = " ".join(str(error).split())
    ours = type(error).__module__.split(".")[0] in ("maskhand", "pipelines")
    if text and (ours or isinstance(error, ValueError | OSError) or type(error) is LookupError):
        return text
    return f"{type(error).__name__}: {text}; run again with {DEBUG} for the traceback"


def _workspace() -> Workspace:
    from maskhand.workspace import Workspace

    return Workspace.default()


def _progress(title: str) -> AbstractContextManager[Progress]:
    from maskhand.progress import shown

    return shown(title)


def _say(receipt: Receipt) -> None:
    typer.echo(f"{receipt.uri}  {'  '.join(f'{name}={value}' for name, value in receipt.numbers.items())}".rstrip())


def _prepare() -> None:
    import warnings

    from pipelines import runtime

    debug = bool(os.environ.get("MASKHAND_DEBUG"))
    if not debug:
        warnings.simplefilter("ignore")  # other people's deprecations are nothing a user can act on
    runtime.prepare(_workspace(), debug)


def _numbers(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        x0, y0, x1, y1 = (float(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"--box {text!r}: expected four numbers X0,Y0,X1,Y1 in pixels") from None
    return x0, y0, x1, y1


if __name__ == "__main__":
    main()
