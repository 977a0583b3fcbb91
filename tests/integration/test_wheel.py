"""The wheel: what ships in it, and the commands of an installation that knows nothing of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import cv2
import pytest
import yaml

from maskhand import __version__
from maskhand.catalog import load_spec
from support.published_layouts import WRITERS

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "prefect.yaml", "maskhand", "pipelines", "datasets")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since a build leaves folders beside the sources; with the setuptools that is here."""
    tree = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True)
    (built,) = (tree / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the commands of an environment with the wheel installed, which borrows the other packages of this one.

    A `.pth` file adds the folder of this environment's packages without the links to the repository in it.
    """
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    packages = home / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "-q", "--python", str(home / "bin" / "python"), "install", "--no-deps"]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, text=True)
    return home / "bin"


def run(commands: Path, folder: Path, *words: str) -> str:
    """What a command says when it runs in a folder with nothing of the repository on its paths."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MASKHAND_CATALOG", "PREFECT_API_URL")}
    clean |= {"MASKHAND_WORKSPACE": str(folder / "workspace"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=clean | {"PATH": f"{commands}:{os.environ['PATH']}"},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_everything_that_is_read_at_run_time_ships(wheel: Path) -> None:
    shipped = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(["git", "ls-files", "maskhand", "datasets", "pipelines"],
                            cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()  # fmt: skip
    files = {name if name.startswith("maskhand/") else f"maskhand/{name}" for name in listed if (ROOT / name).is_file()}
    assert files - shipped == set()
    assert {"maskhand/pipelines/prefect.yaml", "maskhand/datasets/freihand/card.yaml", "maskhand/py.typed"} <= shipped


@pytest.mark.slow
def test_no_general_name_is_taken(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"maskhand", f"maskhand-{__version__}.dist-info"}


@pytest.mark.slow
def test_an_installation_knows_its_own_files_alone(commands: Path, tmp_path: Path) -> None:
    assert run(commands, tmp_path, "maskhand", "--version") == f"maskhand {__version__}\n"
    program = (
        "import maskhand, maskhand.pipelines.deployments as deployments, maskhand.catalog as catalog\n"
        "print(maskhand.__file__, deployments.PREFECT_FILE, *catalog.catalog_dirs())\n"
        "from maskhand.recipe_files import load_recipe, recipe_names\n"
        "print(len([load_recipe(name) for name in recipe_names()]), len(catalog.names()))"
    )
    places, counts = run(commands, tmp_path, "python", "-c", program).splitlines()
    assert str(ROOT) not in places and len(set(places.split())) == 3
    assert all(int(number) > 10 for number in counts.split())


@pytest.mark.slow
def test_a_photo_is_predicted_elsewhere(commands: Path, tmp_path: Path, assets: Path) -> None:
    shutil.copytree(assets, tmp_path / "workspace" / "assets")
    sheet = cv2.imread(str(ROOT / "docs" / "images" / "evaluation.jpg"))
    cv2.imwrite(str(tmp_path / "photo.png"), sheet)
    run(
        commands,
        tmp_path,
        "maskhand",
        "predict",
        "photo.png",
        "--out",
        "out",
        "--box",
        "0,0,200,200",
        "--side",
        "right",
    )
    assert {path.suffix for path in (tmp_path / "out").iterdir()} >= {".json", ".glb", ".obj"}


@pytest.mark.slow
def test_a_dataset_is_sharded_elsewhere(commands: Path, tmp_path: Path) -> None:
    spec = load_spec("rhd")
    WRITERS[spec.layout](tmp_path / "raw", spec, "training", 4)
    run(commands, tmp_path, "maskhand", "shard", "rhd", "--raw", "raw", "--split", "training")
    run(commands, tmp_path, "maskhand", "verify", "rhd/training")


@pytest.mark.slow
def test_the_flows_are_deployed_elsewhere(commands: Path, tmp_path: Path) -> None:
    said = run(commands, tmp_path, "maskhand", "deploy")
    assert "deployed every flow of prefect.yaml" in said
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    entrypoints = [deployment["entrypoint"].rpartition(".") for deployment in deployments]
    imports = "\n".join(f"from {module} import {attribute}" for module, _, attribute in entrypoints)
    run(commands, tmp_path, "python", "-c", imports)


def test_nothing_is_required_that_the_constraints_do_not_pin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    required = {re.split(r"[\[<>=!; ]", line)[0].lower() for lines in lists for line in lines}
    pins = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    assert required - pins == {"pip"}
