"""What a training takes along to its workers, and what each of them checks before it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from maskhand.carried import CarriedFolder, NamedFile, OtherFileError, here
from maskhand.cluster.driver_state import DriverState
from maskhand.fetched_models import carried_hand_models
from maskhand.hand.model_file import default_hand_path
from maskhand.shipped_models import OPEN
from maskhand.steps.names import TOKENIZER_FILE
from maskhand.steps.step_inputs import training_code_digest
from maskhand.training.tokenizer_loop import TokenizerJob
from maskhand.training.transformer_loop import TransformerJob
from maskhand.training.worker import WorkerContext

Job = TokenizerJob | TransformerJob
Loop = Callable[[Any, WorkerContext], dict[str, float]]

_TOKENIZER_FILES = (TOKENIZER_FILE, "tokenizer.pt")


@dataclass(frozen=True)
class TakenAlong:
    """A training loop that has the driver's settings, hand, tokenizer and encoder wherever it runs; picklable.

    Called like the loop. Raises OtherFileError where a machine has another file or other code than the driver.
    """

    loop: Loop
    driver: DriverState
    compared: tuple[NamedFile, ...]
    """Pretrained weights that the recipe names, and pose-only files."""
    code: str
    """`step_inputs.training_code_digest` of the driver."""

    @classmethod
    def of(cls, loop: Loop, job: Job) -> TakenAlong:
        """`loop` for `job`, with the files of this machine that decide its result; some are fetched (AssetError)."""
        folders: list[CarriedFolder] = []
        if isinstance(job, TransformerJob):
            folders.append(CarriedFolder.of(job.tokenizer_dir, _TOKENIZER_FILES))
            if job.assets is not None and job.recipe.model.sees_image and job.recipe.model.backbone.is_hand_landmark:
                folders.append(carried_hand_models(job.assets))
        driver = DriverState.of_this_process(*folders)
        compared = tuple(NamedFile.of(path) for path in (*_checkpoints(job), *job.mocap))
        return cls(loop, driver, compared, training_code_digest())

    def __call__(self, job: Job, worker: WorkerContext) -> dict[str, float]:
        if (found := training_code_digest()) != self.code:
            raise OtherFileError(
                f"rank {worker.rank}: its machine has other code of maskhand ({found}) than the one that started the "
                f"training ({self.code}); install the same version on every machine"
            )
        self.driver.take_over()  # for good: curves are still written after the loop, and the process ends with the run
        for file in self.compared:
            file.check()
        if isinstance(job, TransformerJob):
            job = replace(job, tokenizer_dir=str(here(job.tokenizer_dir)))
        return self.loop(replace(job, mano_path=job.mano_path or str(default_hand_path())), worker)


def _checkpoints(job: Job) -> list[str]:
    """Files of pretrained weights that a transformer's recipe names by path."""
    if isinstance(job, TokenizerJob):
        return []
    model: Any = job.recipe.model
    path = model.text.checkpoint if model.condition == "text" else model.backbone.checkpoint
    return [] if path in (None, OPEN) else [path]
