"""Training on two Ray workers with ZeRO: it survives a killed worker, and the number of workers changes nothing."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import torch

from maskhand import lease
from maskhand.cluster.checkpoints import Checkpoints
from maskhand.cluster.run_folder import METRICS, FitResult, TrainingError, held_run
from maskhand.cluster.session import ray_session
from maskhand.cluster.train import fit
from maskhand.config import Recipe
from maskhand.hand.layer import ManoLayer
from maskhand.kept_json import read_steps
from maskhand.lock import LockedError
from maskhand.models.bundle import ModelBundle
from maskhand.models.tokenizer_files import load_tokenizer
from maskhand.training import tokenizer_loop, transformer_loop
from maskhand.training.exported_weights import BEST_BY
from maskhand.training.worker import WorkerContext
from support import training_fakes as fakes
from support.s3_server import s3_server

pytestmark = pytest.mark.slow

ELSEWHERE = """
import sys
from pathlib import Path
from maskhand import lease
lease.RENEWED_S, lease._machine = 0.3, lambda: "another machine"
import test_ray_training as here
with here.sent_along():
    here._fit(here.Job(here._recipe(), stop_at=10), Path(sys.argv[1]), checkpoints=sys.argv[2])
"""


@dataclass(frozen=True)
class Job:
    recipe: Recipe
    kind: str = "transformer"
    kill_after: int | None = None
    """Rank 1 kills itself, once, when it has taken this many steps and a checkpoint has been kept."""
    marker: str = ""
    fail: bool = False
    stop_at: int | None = None
    """Rank 1 stands still before this step."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables, which the session was started without."""


def loop(job: Job, worker: WorkerContext) -> dict[str, float]:
    """The real loops on hands in memory."""
    os.environ.update(job.settings)
    if job.fail and worker.rank == 1:
        raise ValueError("a mistake in the program")
    mano = ManoLayer.from_default()
    stream = fakes.poses if job.kind == "tokenizer" else fakes.batches
    source = _killing(stream(job.recipe, worker.rank, worker.world), job, worker)
    if job.kind == "tokenizer":
        return tokenizer_loop.train(job.recipe, mano, source, worker)
    hands = fakes.held_out_hands(job.recipe, worker.rank, worker.world)
    return transformer_loop.train(job.recipe, fakes.new_tokenizer(job.recipe), mano, source, worker, held_out=hands)


def _killing(stream, job: Job, worker: WorkerContext):
    def batches(first_step: int) -> Iterator:
        for step, batch in enumerate(stream(first_step), start=first_step):
            if job.stop_at == step and worker.rank == 1:
                time.sleep(600)
            if job.kill_after is not None and worker.rank == 1 and step == job.kill_after:
                marker = Path(job.marker)
                if not marker.exists():
                    marker.write_text(json.dumps(first_step))
                    os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    return batches


@contextmanager
def sent_along() -> Iterator[None]:
    """A session whose workers, which cannot import test modules, are sent their code."""
    import ray

    with ray_session():
        for module in (sys.modules[__name__], fakes):
            ray.cloudpickle.register_pickle_by_value(module)
        yield
        for module in (sys.modules[__name__], fakes):
            ray.cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with sent_along():
        yield


def _fit(
    job: Job,
    folder: Path,
    identity: str = "id",
    on_progress=None,
    counts: tuple[int, ...] = (2,),
    checkpoints: str | None = None,
) -> FitResult:
    engine = job.recipe.engine.model_copy(update={"workers": 2, "wait_s": 5.0})
    with held_run("run", folder, checkpoints) as run:
        return fit(loop, job, run, identity=identity, engine=engine, worker_counts=counts, on_progress=on_progress)


def _recipe() -> Recipe:
    """With averaged weights and validations, which both ranks take part in."""
    return fakes.small_recipe("training.ema_decay=0.8", "training.validate_every=4")


def _losses(run_dir: Path, name: str = "train/loss") -> dict[int, float]:
    return {int(row["step"]): row[name] for row in read_steps(run_dir / METRICS) if name in row}


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """An uninterrupted run."""
    return _fit(Job(_recipe()), tmp_path_factory.mktemp("whole"))


def test_a_killed_worker_changes_nothing(two_workers: FitResult, tmp_path: Path) -> None:
    # the checkpoint of step 4 has been kept for sure when the one of step 8 has been written
    result = _fit(Job(_recipe(), kill_after=10, marker=str(tmp_path / "killed")), tmp_path / "runs")
    assert Checkpoints(str(result.run_dir)).whole_steps() == [12, 8]
    assert (tmp_path / "killed").exists() and result.restarts == 1
    assert json.loads((tmp_path / "killed").read_text()) == 0, "it was killed in its first life"
    assert _losses(result.run_dir) == _losses(two_workers.run_dir), "bit for bit"
    errors = _losses(two_workers.run_dir, BEST_BY)
    assert sorted(errors) == [4, 8, 12] and _losses(result.run_dir, BEST_BY) == errors
    ours, theirs = ModelBundle.load(result.export_dir), ModelBundle.load(two_workers.export_dir)
    assert ours.digest == theirs.digest
    assert ours.metadata["exported_weights"] == theirs.metadata["exported_weights"]
    first_steps = [json.loads(line)["step"] for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert first_steps.count(2) == 1, "it went on from a checkpoint, not from the start"


def test_another_machine_takes_a_run_over_from_one_that_was_killed(
    two_workers: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_S", 4.0)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with s3_server(tmp_path / "s3") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        runs = f"s3://{server.bucket}/runs"
        command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "theirs"), runs]
        holder = psutil.Popen(command, env={**os.environ, "PYTHONPATH": path})
        try:
            deadline_s = time.monotonic() + 200
            while (kept := Checkpoints(f"{runs}/run").last()) is None or kept.step < 8:
                assert holder.poll() is None and time.monotonic() < deadline_s
                time.sleep(0.2)
            job = Job(_recipe(), settings=server.environment())
            with monkeypatch.context() as before, pytest.raises(LockedError, match=f"process {holder.pid} on .* at it"):
                before.setattr("maskhand.cluster.train.ray_session", lambda: pytest.fail("Ray was asked first"))
                _fit(job, tmp_path / "ours", checkpoints=runs)
        finally:
            for process in [holder, *holder.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            holder.wait()
        result = _fit(job, tmp_path / "ours", checkpoints=runs)
        assert Checkpoints(f"{runs}/run").whole_steps() == [12, 8]
    assert list(result.run_dir.glob("step-*")) == []
    whole = _losses(two_workers.run_dir)
    assert _losses(result.run_dir) == {step: loss for step, loss in whole.items() if step > 8}, "bit for bit"


def _alone(job: Job, folder: Path) -> tuple[dict[int, dict[str, float]], Path]:
    """The same training in this process, without Ray: metrics by step and the exported folder."""
    rows: dict[int, dict[str, float]] = {}
    worker = WorkerContext(0, 1, lambda step, row: rows.update({step: dict(row)}), fakes.FolderStore(folder))
    loop(job, worker)
    return rows, folder / "step-000000012" / "export"


def test_two_workers_train_like_one_process(two_workers: FitResult, tmp_path: Path) -> None:
    alone, export = _alone(Job(_recipe()), tmp_path)
    assert two_workers.restarts == 0 and two_workers.steps == 12
    assert sorted(alone) == [2, 4, 6, 8, 10, 12]
    for name in ("train/loss", BEST_BY):
        expected = {step: row[name] for step, row in alone.items() if name in row}
        assert _losses(two_workers.run_dir, name) == pytest.approx(expected, rel=1e-5)
    ours, theirs = (
        ModelBundle.load(folder).metadata["exported_weights"] for folder in (two_workers.export_dir, export)
    )
    assert ours == pytest.approx(theirs, rel=1e-5) and ours["ema_decay"] == 0.8


def test_the_tokenizer_trains_on_two_workers_like_in_one_process(tmp_path: Path) -> None:
    job = Job(fakes.small_recipe(), kind="tokenizer")
    progress: list[int] = []
    pair = _fit(job, tmp_path / "two", on_progress=lambda step, _: progress.append(step))
    alone, export = _alone(job, tmp_path / "alone")
    assert progress == [2, 4, 6, 8, 10, 12]
    assert _losses(pair.run_dir) == pytest.approx({step: row["train/loss"] for step, row in alone.items()}, rel=1e-5)
    ours, theirs = load_tokenizer(pair.export_dir).state_dict(), load_tokenizer(export).state_dict()
    assert all(torch.allclose(ours[name].float(), theirs[name].float(), atol=1e-4) for name in ours)


def test_a_finished_run_is_found_again_and_a_name_belongs_to_one_identity(two_workers: FitResult) -> None:
    folder = two_workers.run_dir.parent
    again = _fit(Job(_recipe()), folder)
    assert again.reused and again.seconds < 1 and again.metrics == two_workers.metrics and again.steps == 12
    with pytest.raises(TrainingError, match="identity id, this one is other"):
        _fit(Job(fakes.small_recipe()), folder, identity="other")


def test_a_mistake_of_the_program_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="ValueError: a mistake in the program") as refused:
        _fit(Job(fakes.small_recipe(), fail=True), tmp_path)
    assert not refused.value.retryable
    assert len((tmp_path / "run" / "starts.txt").read_text().splitlines()) <= 1
    assert not (tmp_path / "run" / "finished.json").exists()
