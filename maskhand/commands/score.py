"""`maskhand score`: the official evaluators, for prediction files of any method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskhand.commands.options import examples, output_file
from maskhand.scoring.formats import FORMATS

app = typer.Typer()


@app.command(
    epilog=examples(
        "score freihand --gt FreiHAND_pub_v2_eval --pred pred.zip",
        "score ho3d --gt HO3D_v3_eval --pred pred.json",
        "score dexycb --gt s0_test.npz --pred results.txt --json scores.json",
        "score hint --gt hamer_evaluation_data/TEST_newdays_img --pred newdays.npz",
        "score interhand --gt test.npz --pred pred.npz",
    )
)
def score(
    benchmark: Annotated[
        str, typer.Argument(metavar=f"[{'|'.join(FORMATS)}]", help="The benchmark; or package.module:FORMAT.")
    ],
    gt: Annotated[Path, typer.Option(help="The ground truth: a folder or file, see docs/evaluation.md.")],
    pred: Annotated[Path, typer.Option(help="The predictions, in the benchmark's official format.")],
    split: Annotated[str, typer.Option(help="Split of DexYCB, if --gt is its original folder.")] = "s0_test",
    json: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", show_default=False, help="Write all metrics to this file or s3:// URI, also per joint."
        ),
    ] = None,
) -> None:
    """Score a prediction file exactly as the benchmark's official program does; no model is needed."""
    from maskhand import storage
    from maskhand.progress import print_table
    from maskhand.scoring.benchmarks import score_files

    out = None if json is None else output_file(json, pred, gt)
    found = score_files(benchmark, gt, pred, split)
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    print_table(benchmark, ("metric", "value"), found.table())
    typer.echo(", ".join(f"{name} {value:,}" for name, value in found.counts.items()))
    if out is not None:
        storage.write_bytes_atomic(out, found.to_json())
        typer.echo(out)
