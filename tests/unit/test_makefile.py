"""`make` makes the environment once, whoever asks for it at the same time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = f"""#!/bin/sh
[ "$1" = -m ] || exec {sys.executable} "$@"
mkdir -p .venv/bin
echo begin >> log
for tool in pip uv; do printf '#!/bin/sh\\nsleep 1\\necho %s >> log\\n' $tool > .venv/bin/$tool; done
chmod +x .venv/bin/*
"""
"""A python3 that makes an environment of two tools, which say that they were called."""


def test_two_at_once_do_not_make_it_both(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").write_text(PYTHON)
    (tmp_path / "bin/python3").chmod(0o755)
    variables = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PIP_FIND_LINKS": "wheels"}
    both = [subprocess.Popen(["make", ".venv/ready"], cwd=tmp_path, env=variables) for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0]
    assert (tmp_path / "log").read_text().split() == ["begin", "pip", "uv"]
    assert (tmp_path / ".venv/ready").exists()
    subprocess.run(["make", "--question", ".venv/ready"], cwd=tmp_path, env=variables, check=True)
