"""Who may import whom, read from the syntax trees, inner imports included.

docs/architecture.md has these tables too: `python tests/architecture/test_imports.py` writes them into it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

ONLY_IN = {
    "ray": ("maskhand/cluster/",),
    "deepspeed": ("maskhand/training/engine.py",),
    "mlflow": ("maskhand/tracking/", "maskhand/serving.py"),
    "prefect": ("pipelines/",),
    "webdataset": ("maskhand/shards/",),
    "boto3": ("maskhand/s3.py",),
    "botocore": ("maskhand/s3.py",),
    "smplx": ("maskhand/hand/smplx_layer.py",),
    "typer": ("maskhand/cli.py", "maskhand/commands/"),
    "rich": ("maskhand/cli.py", "maskhand/progress.py"),
    "pipelines": (),  # installed as maskhand.pipelines
    "maskhand.pipelines": ("pipelines/", "maskhand/commands/"),
}
"""Outside tool, or the flows -> the places that may know it."""

TOP = ("cli", "commands", "paper", "steps", "doctor")
"""May use everything below; nothing below may use them."""

MAY_USE = {
    "conventions": (),
    "geometry2d": (),
    "sample": ("conventions",),
    "progress": (),
    "errors": (),
    "arrays": (),
    "digest": (),
    "json_text": (),
    "outside": (),
    "yaml_text": (),
    "image_header": (),
    "batch": (),
    "path_names": (),
    "config": ("path_names",),
    "recipe_files": ("config",),
    "device": (),
    "machine": (),
    "signals": (),
    "limits": ("machine",),
    "lock": ("replacement", "storage"),
    "lease": ("lock", "storage"),
    "foreign_errors": ("disk",),
    "workspace": ("storage", "path_names"),
    "storage_errors": (),
    "s3": ("s3_patience", "storage_errors"),
    "s3_patience": ("storage_errors",),
    "disk": ("storage_errors",),
    "replacement": (),
    "carried": ("storage",),
    "local_files": ("storage_errors",),
    "s3_objects": ("s3",),
    "storage": ("s3", "s3_objects", "storage_errors", "local_files", "replacement"),
    "fetched_models": ("storage", "carried"),
    "shipped_models": (),
    "assets": ("fetched_models", "shipped_models", "carried"),
    "catalog": ("conventions", "scoring.formats", "path_names"),
    "hand": ("conventions", "carried"),
    # numpy only: MANO's mean pose, and the readers of arrays
    "adapters": (
        "sample",
        "conventions",
        "catalog",
        "storage",
        "image_header",
        "geometry2d",
        "hand.model_file",
        "hand.array_pickle",
        "hand.array_archive",
    ),
    "shards": ("sample", "catalog", "adapters", "storage", "lock", "path_names"),
    "synth": ("hand", "conventions", "storage", "kept_json"),
    "annotate": (
        "kept_json",
        "shards",
        "synth",
        "hand",
        "sample",
        "conventions",
        "catalog",
        "storage",
        "assets",
        "fetched_models",
        "image_header",
        "carried",
        "geometry2d",
        "device",
        "models",
        "loading",
        "placement",
        "batch",
    ),
    "text": ("config",),
    "loading": ("geometry2d", "shards", "batch", "hand", "config", "sample", "conventions", "storage", "text"),
    "placement": ("batch", "hand", "conventions", "sample"),
    "models": (
        "hand",
        "batch",
        "config",
        "recipe_files",
        "conventions",
        "device",
        "text",
        "fetched_models",
        "replacement",
        "shipped_models",
    ),
    "training": (
        "models",
        "hand",
        "loading",
        "batch",
        "config",
        "conventions",
        "evaluation.held_out",
    ),
    "metrics": (),
    "scoring": (
        "metrics",
        "conventions",
        "catalog",
        "adapters",
        "hand.array_pickle",
        "sample",
        "shards.read_ahead",
        "local_files",
        "storage_errors",
    ),
    "evaluation": (
        "geometry2d",
        "metrics",
        "scoring.predictions",
        "models",
        "placement",
        "hand",
        "loading",
        "shards",
        "batch",
        "config",
        "conventions",
        "storage",
        "render",
        "device",
    ),
    "comparison": (
        "conventions",
        "config",
        "metrics",
        "evaluation",
        "hand.layer",
        "loading.loader",
        "render",
        "shards.layout",
    ),
    "generate": ("models", "hand", "batch", "config", "conventions", "render", "storage", "text"),
    "inspection": (
        "geometry2d",
        "annotate",
        "hand",
        "loading.crop",
        "shards",
        "conventions",
        "sample",
        "storage",
        "render",
    ),
    "render": ("conventions",),
    "predict": (
        "config",
        "geometry2d",
        "models",
        "placement",
        "hand",
        "loading",
        "annotate",
        "batch",
        "recipe_files",
        "conventions",
        "image_header",
        "render",
        "storage",
        "workspace",
        "carried",
        "device",
        "shards",
        "film.video",
        "local_files",
        "lock",
        "replacement",
        "shipped_models",
    ),
    # video: frames for `predict`; the rest takes what `predict` has
    "film": (
        "local_files",
        "storage_errors",
        "predict",
        "annotate",
        "geometry2d",
        "hand",
        "models",
        "conventions",
        "replacement",
        "render",
        "workspace",
    ),
    "promotion": ("metrics",),
    "provenance": (),
    "tracking": (
        "config",
        "workspace",
        "promotion",
        "provenance",
        "predict.service",
        "foreign_errors",
        "disk",
        "kept_json",
    ),
    "serving": ("device", "predict", "models", "workspace"),
    "export": ("models", "batch", "conventions", "storage"),
    "kept_json": ("storage",),
    "cluster": (
        "kept_json",
        "signals",
        "training",
        "config",
        "storage",
        "machine",
        "limits",
        "lock",
        "lease",
        "foreign_errors",
        "disk",
        "s3",
        "carried",
        "hand.model_file",
    ),
}
"""Package or module of maskhand -> those it may use besides itself and `EVERYWHERE`."""
EVERYWHERE = ("arrays", "errors", "digest", "json_text", "outside", "progress", "yaml_text")

DOCUMENT = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- arrows -->", "<!-- end of arrows -->"

NUMPY_ONLY = ("maskhand/sample.py", "maskhand/conventions.py", "maskhand/geometry2d.py")
NO_TORCH = ("maskhand/adapters/", "maskhand/shards/", "maskhand/catalog.py", "maskhand/storage.py", "maskhand/steps/")


def _files() -> list[Path]:
    return sorted(p for folder in ("maskhand", "pipelines") for p in (ROOT / folder).rglob("*.py"))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, full dotted name) of every import of a file; `from a import b` gives `a.b`. Type-only ones count."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).with_suffix("").parts[: -node.level] if node.level else ()
            base = ".".join([*package, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _package(path: Path) -> str | None:
    """`models` of maskhand/models/build.py, `sample` of maskhand/sample.py; None outside and of __init__.py."""
    first, _, rest = _place(path).partition("/")
    name = rest.split("/")[0].removesuffix(".py")
    return name if first == "maskhand" and name not in ("__init__", "__main__") else None


def outside_tool_errors(path: Path) -> list[str]:
    return [
        f"{_place(path)}:{line} imports {tool}, which only {', '.join(places) or 'nobody'} may"
        for line, name in _imports(path)
        for tool, places in ONLY_IN.items()
        if f"{name}.".startswith(f"{tool}.") and not _place(path).startswith(places)
    ]


def arrow_errors(path: Path) -> list[str]:
    package = _package(path)
    if package is None or package in TOP:
        return []
    allowed = (package, *EVERYWHERE, *MAY_USE[package])
    errors = []
    for line, name in _imports(path):
        first, _, inner = name.partition(".")
        if first != "maskhand" or inner == "" or inner.split(".")[0] == "__version__":
            continue
        if not any(f"{inner}.".startswith(f"{may}.") for may in allowed):
            errors.append(
                f"{_place(path)}:{line} imports {name}; {package} may use {', '.join(MAY_USE[package]) or 'nothing'}"
            )
    return errors


@pytest.mark.parametrize("path", _files(), ids=_place)
def test_imports_follow_the_arrows(path: Path) -> None:
    assert outside_tool_errors(path) + arrow_errors(path) == []


def test_everything_has_its_arrows() -> None:
    packages = {package for package in map(_package, _files()) if package}
    assert packages - set(TOP) - set(MAY_USE) == set(), "a new package: give it its arrows here"


def test_every_permission_is_used() -> None:
    """One that nothing needs would let the next import through unseen."""
    used = {
        (package, may)
        for path in _files()
        for package in filter(None, [_package(path)])
        for _, name in _imports(path)
        for may in MAY_USE.get(package, ())
        if f"{name}.".startswith(f"maskhand.{may}.")
    }
    assert {(package, may) for package, allowed in MAY_USE.items() for may in allowed} - used == set()


def tables() -> str:
    """The arrows and the places of outside libraries, as docs/architecture.md shows them."""
    arrows = [f"| `{package}` | {', '.join(allowed) or 'nothing'} |" for package, allowed in MAY_USE.items()]
    places = [
        f"| {name} | {', '.join(f'`{place}`' for place in where) or 'nowhere'} |" for name, where in ONLY_IN.items()
    ]
    everywhere = ", ".join(f"`{name}`" for name in EVERYWHERE)
    return "\n".join(
        [
            f"| of `maskhand` | may import, beside itself and {everywhere} |", "|---|---|", *arrows,
            f"| {', '.join(f'`{package}`' for package in TOP)} | everything |", "",
            "| library | the places that may import it |", "|---|---|", *places,
        ]
    )  # fmt: skip


def with_tables(document: str) -> str:
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    return f"{before}{begin}\n\n{tables()}\n\n{end}{after}"


def test_the_document_shows_these_arrows() -> None:
    text = DOCUMENT.read_text()
    assert text == with_tables(text), "python tests/architecture/test_imports.py writes them"


def test_the_records_need_only_numpy() -> None:
    for place in NUMPY_ONLY:
        names = {name.split(".")[0] for _, name in _imports(ROOT / place)}
        assert names <= {"__future__", "dataclasses", "math", "typing", "numpy", "maskhand"}, place


def test_what_handles_data_does_without_torch() -> None:
    wrong = [
        f"{_place(path)}:{line}"
        for path in _files()
        if _place(path).startswith(NO_TORCH)
        for line, name in _imports(path)
        if name.split(".")[0] in ("torch", "torchvision", "timm")
    ]
    assert wrong == []


def test_the_walk_sees_a_violation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    bad = tmp_path / "maskhand" / "adapters" / "bad.py"
    bad.parent.mkdir(parents=True)
    bad.write_text("def f():\n    import ray.data\n    from maskhand import models\n    from ..training import loop\n")
    assert [e.split(" ")[2].rstrip(",;") for e in outside_tool_errors(bad)] == ["ray"]
    assert [e.split(" ")[2].rstrip(",;") for e in arrow_errors(bad)] == ["maskhand.models", "maskhand.training.loop"]


def test_steps_without_networks_are_imported_without_torch() -> None:
    """So that `maskhand shard` and `verify` begin at once, and `predict` answers a mistyped option or a finished run at
    once; the import of Ray waits for its session."""
    program = (
        "import sys\n"
        "from maskhand.steps import data, hands_report, names, photos, prepare_predict, prepare_predict_shards\n"
        "from maskhand.steps import receipt, step_inputs\n"
        "print(*sorted({'torch', 'ray', 'mlflow', 'prefect'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "\n"


def test_steps_import_at_their_top() -> None:
    wrong = [
        f"{_place(path)}:{node.lineno}"
        for path in _files()
        if _place(path).startswith(("maskhand/steps/", "pipelines/"))
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert wrong == []


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
