"""The doctor sees what it is there to see, and says what to do about it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pytest
import torch

from maskhand import doctor, storage
from maskhand.doctor import Finding
from maskhand.hand.layer import ManoLayer
from maskhand.pipelines.server import answers
from maskhand.workspace import Workspace


def one(check, workspace: Workspace, what: str) -> Finding:
    (finding,) = [f for f in check(workspace) if f.what == what]
    return finding


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, str(tmp_path / "shards"))


@pytest.mark.parametrize(
    ("package", "version", "state"),
    [
        ("sqlalchemy", "2.1.0", "fail"),
        ("sqlalchemy", "2.0.99", "ok"),
        ("fastapi", "0.151.2", "fail"),
        ("fastapi", "1.0", "fail"),
        ("fastapi", "0.150.0", "ok"),
    ],
)
def test_versions_that_break_the_server(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, package: str, version: str, state: str
) -> None:
    real = metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: version if name == package else real(name))
    finding = one(doctor.check_packages, workspace, package)
    assert (finding.state, finding.found) == (state, version)
    assert (package in finding.advice) == (state == "fail")


def test_a_missing_package_does_not_hide_the_other_answers(workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: Workspace):
        raise ModuleNotFoundError("No module named 'ray'", name="ray")
        yield

    for check in ("check_accelerator", "check_ray", "check_hand_model"):
        monkeypatch.setattr(doctor, check, missing)
    findings = doctor.examine(workspace)
    assert [f.what for f in findings if f.state == "fail"] == ["ray"] * 3
    assert {"Python", "memory", "shards", "MLflow"} <= {f.what for f in findings}


def test_nothing_that_one_check_meets_hides_the_others(workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Workspace):
        raise OSError(errno.ENAMETOOLONG, "File name too long", "/a/b")
        yield

    for check in ("check_packages", "check_machine", "check_accelerator", "check_ray", "check_hand_layer"):
        monkeypatch.setattr(doctor, check, lambda _: iter(()))
    monkeypatch.setattr(doctor, "check_hand_model", broken)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "localhost:5000")
    found = {f.what: f for f in doctor.examine(workspace)}
    assert found["MLflow"].state == "fail" and "write http://localhost:5000" in found["MLflow"].found
    assert found["broken"].state == "fail" and found["broken"].found.startswith("/a/b: the path is too long")
    assert {"Python", "shards"} <= set(found)


@pytest.fixture(scope="module")
def prefect() -> Iterator[str]:
    """Answers as Prefect's server does: its pages to every path but the API's."""

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"true" if self.path == "/api/health" else b"<html></html>")

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("http://{}/api", True), ("http://{}/api/", True), ("http://{}", False), ("{}/api", False),
        ("http://h:x", False), ("http://{}/ a", False),
    ],
)  # fmt: skip
def test_only_prefects_api_counts_as_it(url: str, good: bool, prefect: str) -> None:
    assert answers(url.format(prefect)) is good


PREFECT = """
import sys
from pathlib import Path
from maskhand import doctor
from maskhand.commands.machine import check_prefect
from maskhand.workspace import Workspace

for name in [one for one in vars(doctor) if one.startswith("check_")]:
    setattr(doctor, name, lambda _: iter(()))
print(*doctor.examine(Workspace(Path(sys.argv[1]), sys.argv[1]), check_prefect))
"""


@pytest.mark.parametrize(
    ("profile", "database", "said"),
    [
        ('PREFECT_API_URL = "http://127.0.0.1:9/api"', "", "=http://127.0.0.1:9/api, as the profile 'own' in "),
        ("", "no database" * 100, "prefect.db cannot be used (file is not a database)"),
        ('PREFECT_API_URL = 5', "", "a setting of Prefect is wrong"),
        ("", "", "Finding(state='ok', what='Prefect', found='embedded server, database "),
    ],
)  # fmt: skip
def test_prefect_is_looked_at_as_at_the_start_of_a_flow(
    profile: str, database: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "prefect"
    home.mkdir()
    (home / "profiles.toml").write_text(f'active = "own"\n[profiles.own]\n{profile}\n')
    if database:
        (home / "prefect.db").write_text(database)
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    command = [sys.executable, "-c", PREFECT, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert said in found and found.count("Finding(") == 1


@pytest.mark.parametrize(("gib", "state"), [(2, "fail"), (8, "warn"), (24, "ok")])
def test_memory(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, gib: int, state: str) -> None:
    monkeypatch.setattr(doctor, "memory_bytes", lambda: gib * 2**30)
    assert one(doctor.check_machine, workspace, "memory").state == state


def test_a_tracking_server_that_does_not_answer(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    finding = one(doctor.check_mlflow, workspace, "MLflow")
    assert finding.state == "fail" and "unset" in finding.advice


def test_a_place_for_shards_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = str(tmp_path / "file" / "there")
    for what, places in (("shards", (nowhere,)), ("checkpoints", (str(tmp_path / "shards"), nowhere))):
        finding = one(doctor.check_storage, Workspace(tmp_path, *places), what)
        assert finding.state == "fail" and f"MASKHAND_{what.upper()}" in finding.advice


def test_a_place_that_keeps_something_else_and_a_workspace_that_is_a_file(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web server at the address of a store takes everything and keeps nothing."""
    monkeypatch.setattr(storage, "read_bytes", lambda _: b"<html>")
    assert one(doctor.check_storage, workspace, "shards").state == "fail"
    (tmp_path / "file").write_text("")
    finding = one(doctor.check_storage, Workspace(tmp_path / "file", str(tmp_path)), "workspace")
    assert finding.state == "fail" and "choose another folder" in finding.advice


def test_a_wrong_hand_model_folder(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert one(doctor.check_hand_model, workspace, "hand model").state == "ok"
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(tmp_path))
    assert one(doctor.check_hand_model, workspace, "hand model").state == "fail"


def test_the_hand_layer_is_held_against_smplxs(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [f.state for f in doctor.check_hand_layer(workspace)] == ["ok", "ok"]
    real = ManoLayer.forward

    def a_tenth_of_a_millimeter_off(self, rotmats, betas, transl_m=None):
        return real(self, rotmats, betas, torch.full((len(betas), 3), 1e-4))

    monkeypatch.setattr(ManoLayer, "forward", a_tenth_of_a_millimeter_off)
    right, left = doctor.check_hand_layer(workspace)
    assert (right.state, left.state) == ("fail", "fail") and "hand.layer=smplx" in right.advice


def test_a_hand_model_that_cannot_be_read_has_no_layer(workspace, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MASKHAND_MANO_DIR", str(tmp_path))
    assert list(doctor.check_hand_layer(workspace)) == []
