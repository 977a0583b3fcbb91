"""Flow `train-vq-mano`: train the pose tokenizer."""

from __future__ import annotations

from prefect import flow

from maskhand.pipelines.runtime import workspace_for
from maskhand.pipelines.step import progress_artifact, run_cached, step, table
from maskhand.steps import train


@step("train-tokenizer")
def tokenizer(workspace: str, recipe: str, overrides: list[str], label: str) -> train.TrainingReceipt:
    with progress_artifact("train VQ-MANO", "progress-train-vq-mano") as progress:
        return train.train_tokenizer(workspace_for(workspace), recipe, overrides, label, progress)


@flow(name="train-vq-mano")
def train_vq_mano(
    recipe: str = "tiny",
    overrides: list[str] = [],  # noqa: B006
    label: str = "",
    workspace: str | None = None,
) -> train.TrainingReceipt:
    """Train VQ-MANO on the recipe's shard sets.

    recipe: a shipped recipe or a YAML file; overrides: such as tokenizer_training.optim.steps=200; label: distinguishes
    another training with the same settings; workspace: default `$MASKHAND_WORKSPACE`.
    """
    home = workspace_for(workspace)
    digests = train.input_digests(home, recipe, overrides, label)
    receipt = run_cached(tokenizer, digests, str(home.root), recipe, overrides, label)
    table("vq-mano", [{"tokenizer": receipt.uri, **receipt.facts}], "trained pose tokenizers")
    return receipt
