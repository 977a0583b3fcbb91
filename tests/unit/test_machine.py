"""The machine as people have it: proxies, missing homes, folders that are too deep for sockets."""

from __future__ import annotations

import ctypes
import os
import pwd
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from maskhand import machine


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy", None])
def test_this_machine_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    """By the rule of urllib, which httpx and requests share."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    if name:
        monkeypatch.setenv(name, ".example.com, 10.0.0.1")
    for variable, hosts in machine.proxy_exceptions().items():
        monkeypatch.setenv(variable, hosts)
    assert urllib.request.proxy_bypass("127.0.0.1") and urllib.request.proxy_bypass("localhost:4200")
    assert (
        bool(urllib.request.proxy_bypass("a.example.com"))
        == bool(urllib.request.proxy_bypass("10.0.0.1"))
        == bool(name)
    )
    assert not urllib.request.proxy_bypass("github.com")
    assert machine.proxy_exceptions() == {key: os.environ[key] for key in ("NO_PROXY", "no_proxy")}, "twice is once"


def test_a_user_whom_nobody_has_entered_has_a_home_and_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path))
    for name in ("HOME", "USER", "LOGNAME"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    machine.settle()
    home = Path.home()
    assert home.parent == tmp_path and home.stat().st_mode & 0o777 == 0o700
    program = "import getpass, pathlib; print(getpass.getuser(), pathlib.Path.home())"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert said == [os.environ["USER"], str(home)]
    assert machine.has_home(".ray")


def test_a_python_without_docstrings_is_told() -> None:
    run = subprocess.run([sys.executable, "-OO", "-m", "maskhand.cli", "doctor"], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith("error: Python was started without docstrings, which Ray needs; unset PYTHONOPTIMIZE")


def test_settings_out_of_files_are_what_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = {
        "MASKHAND_SHARDS": '"s3://bucket/prefix"', "MASKHAND_WORKSPACE": " /data/it's\r\n", "MASKHAND_CACHE": "~/cache",
        "MASKHAND_CATALOG": "~/a:/b", "MLFLOW_TRACKING_URI": "'http://host:5000'", "PREFECT_API_URL": "  ",
        "RAY_ADDRESS": "local\n", "AWS_PROFILE": "", "AWS_SECRET_ACCESS_KEY": "key=\n",
        "MLFLOW_TRACKING_PASSWORD": " p ",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    machine.settle()
    assert {name: os.environ.get(name) for name in given} == {
        "MASKHAND_SHARDS": "s3://bucket/prefix", "MASKHAND_WORKSPACE": "/data/it's", "MASKHAND_CACHE": "/home/me/cache",
        "MASKHAND_CATALOG": "/home/me/a:/b", "MLFLOW_TRACKING_URI": "http://host:5000", "PREFECT_API_URL": None,
        "RAY_ADDRESS": None, "AWS_PROFILE": None, "AWS_SECRET_ACCESS_KEY": "key=", "MLFLOW_TRACKING_PASSWORD": " p ",
    }  # fmt: skip
    assert machine.plain_settings() == {}, "twice is once"


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_memory_that_was_released_is_used_again_without_page_faults() -> None:
    program = """
import resource, sys
from maskhand.machine import reuse_memory
if sys.argv[1] == "reused":
    reuse_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (1 << 26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(), faults()
print(faults())
"""
    counts = {
        how: int(
            subprocess.run([sys.executable, "-c", program, how], capture_output=True, text=True, check=True).stdout
        )
        for how in ("returned", "reused")
    }
    assert counts["returned"] > 1000 > 10 > counts["reused"]


@pytest.mark.parametrize(
    ("variable", "folder", "expected"),
    [
        (None, "", "/tmp/ray"),
        ("TMPDIR", "{tmp}", "{tmp}/ray"),
        ("TMPDIR", "/var/spool/pbs/" + 80 * "x", "/tmp/ray"),
        ("TMPDIR", "/proc/nothing", "/tmp/ray"),
        ("RAY_TMPDIR", "/var/spool/pbs/" + 80 * "x", "RAY_TMPDIR.*|.*bytes too long"),
        ("RAY_TMPDIR", "/proc/version/x", "/proc/version is no folder; from RAY_TMPDIR"),
    ],
)
def test_where_ray_keeps_its_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, variable: str, folder: str, expected: str
) -> None:
    monkeypatch.setattr(machine.os, "access", lambda path, _mode: not str(path).startswith("/proc"))
    short = Path("/tmp/r")
    if variable:
        monkeypatch.setenv(variable, folder.format(tmp=short))
    if variable == "RAY_TMPDIR":
        with pytest.raises(machine.MachineError, match=expected):
            machine.ray_folder()
    else:
        assert machine.ray_folder() == expected.format(tmp=short)
