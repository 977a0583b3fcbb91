"""Subcommands for training the tokenizer and the transformer."""

from __future__ import annotations

from typing import Annotated

import typer

from maskhand.commands.options import (
    LabelOption,
    RecipeOption,
    SetOption,
    WorkspaceOption,
    examples,
    print_receipt,
    shown_progress,
    writable_workspace_at,
)

app = typer.Typer()
train_app = typer.Typer(help="Train with DeepSpeed on Ray workers; repeating resumes.", rich_markup_mode=None)
app.add_typer(train_app, name="train")


@train_app.command(
    "tokenizer", epilog=examples("train tokenizer", "train tokenizer --set tokenizer_training.optim.steps=500")
)
def train_tokenizer(
    recipe: RecipeOption = "tiny",
    set_: SetOption = [],  # noqa: B006
    label: LabelOption = "",
    workspace: WorkspaceOption = None,
) -> None:
    """Train VQ-MANO, the tokenizer with a codebook of hand poses."""
    from maskhand.recipe_files import load_recipe

    load_recipe(recipe, set_)  # a mistyped key should not wait for torch and Ray
    from maskhand.steps import train

    train.check_tokenizer_overrides(set_)
    with shown_progress("train VQ-MANO") as progress:
        receipt = train.train_tokenizer(writable_workspace_at(workspace), recipe, set_, label, progress)
    print_receipt(receipt)


@train_app.command(
    "transformer",
    epilog=examples(
        "train transformer",
        "train transformer --tokenizer DIR --set training.optim.steps=200",
        "train transformer -r open --tokenizer open",
    ),
)
def train_transformer(
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Folder of a trained VQ-MANO, or the shipped `open` or `open_model`, for the recipes of these names "
            "[default: tokenizer_training.checkpoint, or the recipe's own, found or trained]",
            show_default=False,
        ),
    ] = None,
    recipe: RecipeOption = "tiny",
    set_: SetOption = [],  # noqa: B006
    label: LabelOption = "",
    workspace: WorkspaceOption = None,
) -> None:
    """Train the masked transformer with a frozen VQ-MANO."""
    from maskhand.recipe_files import load_recipe

    wanted = load_recipe(recipe, set_)  # a mistyped key should not wait for torch and Ray
    from maskhand.steps import train

    home, tokenizer = writable_workspace_at(workspace), tokenizer or wanted.tokenizer_training.checkpoint
    if tokenizer is None:
        train.check_before_tokenizer(home, recipe, set_, label)
        with shown_progress("train VQ-MANO") as progress:
            tokenizer = train.train_tokenizer(home, recipe, set_, "", progress).folder
    with shown_progress("train masked transformer") as progress:
        receipt = train.train_transformer(home, recipe, set_, tokenizer, label, progress)
    print_receipt(receipt)
    typer.echo(f"measure it:  maskhand evaluate --model {receipt.folder}")
