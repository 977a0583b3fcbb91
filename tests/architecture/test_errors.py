"""Every error that the package raises on purpose is a MaskhandError and says whether another try may help."""

from __future__ import annotations

import ast
import builtins
import pickle
from pathlib import Path

from maskhand.cluster.run_folder import TrainingError
from maskhand.errors import MaskhandError
from maskhand.shards.layout import ShardError
from maskhand.storage import MissingFileError, StorageError

ROOT = Path(__file__).parents[2]


def _classes() -> dict[str, list[str]]:
    """Name of every class in the package -> the names of its bases."""
    return {
        node.name: [ast.unparse(base).rpartition(".")[2] for base in node.bases]
        for folder in ("maskhand", "pipelines")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }


CLASSES = _classes()


def _ancestors(name: str) -> set[str]:
    return {name}.union(*(_ancestors(base) for base in CLASSES.get(name, []) if base != name))


def _is_exception(name: str) -> bool:
    return isinstance(kind := getattr(builtins, name, None), type) and issubclass(kind, BaseException)


def test_every_exception_class_has_the_one_base() -> None:
    exceptions = {name for name in CLASSES if any(map(_is_exception, _ancestors(name)))}
    assert len(exceptions) > 20 and "MissingFileError" in exceptions
    assert {name for name in exceptions if "MaskhandError" not in _ancestors(name)} == set()


def test_lost_workers_and_connections_are_worth_another_try() -> None:
    assert StorageError("the store does not answer").retryable
    assert not MissingFileError("no such file").retryable
    assert not ShardError("no manifest").retryable
    assert not TrainingError("unknown key").retryable


def test_an_error_keeps_its_answer_on_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(TrainingError("workers lost", retryable=True)))
    assert isinstance(error, MaskhandError) and error.retryable and str(error) == "workers lost"
