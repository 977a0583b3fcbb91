"""What keeps a process from joining a Ray cluster is said: token, mode or connection. A real GCS answers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maskhand.cluster import joining, session
from maskhand.cluster.joining import MODE, TOKEN, TOKEN_PATH, ClusterError, TokenSettings, join
from maskhand.doctor import check_ray
from maskhand.workspace import Workspace
from support.warned import warnings_of

THEIRS, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, without any of Ray's variables."""
    for name in (MODE, TOKEN, TOKEN_PATH, "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_token_is_looked_for_in_rays_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TokenSettings.of_this_process() == TokenSettings("", None, home / ".ray/auth_token")
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text(THEIRS)
    assert TokenSettings.of_this_process().source == str(home / ".ray/auth_token")
    for name in (TOKEN_PATH, TOKEN):  # each goes before those above
        monkeypatch.setenv(name, "x")
        assert TokenSettings.of_this_process().source == name
    monkeypatch.setenv(MODE, "TOKEN")
    assert TokenSettings.of_this_process().mode == "token"


@pytest.mark.parametrize(
    ("mode", "source", "said"),
    [
        ("", None, "RAY_AUTH_MODE is not set here; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the"),
        ("disabled", TOKEN, "RAY_AUTH_MODE is disabled here; set RAY_AUTH_MODE=token, and the token of RAY_AUTH_TOKEN"),
        ("token", TOKEN_PATH, "it refuses the token of RAY_AUTH_TOKEN_PATH; set RAY_AUTH_TOKEN to the cluster's"),
    ],
)
def test_what_is_missing_is_said(home: Path, mode: str, source: str | None, said: str) -> None:
    assert said in TokenSettings(mode, source, home).refused()


def test_a_mode_without_a_token_is_noticed_before_ray_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODE, "token")
    with pytest.raises(
        ClusterError, match=rf"RAY_ADDRESS=10.0.0.1:6379: .* {home}/.ray/auth_token; set RAY_AUTH_TOKEN"
    ):
        join("10.0.0.1:6379")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    (finding,) = check_ray(Workspace(home, str(home)))
    assert (finding.state, finding.advice.split(" ")[1]) == ("fail", TOKEN)


@pytest.fixture
def address(home: Path) -> Iterator[str]:
    """A GCS, the part of a Ray head that is asked first; it wants the token `THEIRS`."""
    import ray

    folder = home / "session"
    folder.mkdir()
    command = [str(Path(ray.__file__).parent / "core/src/ray/gcs/gcs_server"), "--gcs_server_port=0"]
    command += [f"--log_dir={folder}", f"--session-dir={folder}", "--config_list=e30=", "--metrics-agent-port=0"]
    command += [
        "--node-ip-address=127.0.0.1",
        f"--node-id={'0' * 56}",
        "--session-name=s",
        f"--ray-commit={ray.__commit__}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {MODE: "token", TOKEN: THEIRS})
    try:
        deadline_s = time.monotonic() + 60
        while not (files := list(folder.glob("gcs_server_port_*"))) or not files[0].read_text().strip():
            assert process.poll() is None and time.monotonic() < deadline_s, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield f"127.0.0.1:{files[0].read_text().strip()}"
    finally:
        process.kill()
        process.wait()


def test_a_cluster_that_does_not_answer_is_named_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_WAIT_S", 0.1)
    with pytest.raises(ClusterError, match=r"RAY_ADDRESS=127.0.0.1:9: nothing has answered .* that the cluster runs"):
        join("127.0.0.1:9")


@pytest.mark.parametrize("address", ["127.0.0.1", "http://127.0.0.1:8265", "127.0.0.1:99999", "[::1", "a b:6379"])
def test_an_address_of_another_form_is_told_at_once(address: str, home: Path) -> None:
    with pytest.raises(ClusterError, match="expected HOST:PORT as `ray start` shows it"):
        join(address)


def test_a_cluster_that_has_ended_is_not_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` takes the address in a file that a killed cluster leaves behind."""
    monkeypatch.setattr(joining, "_WAIT_S", 0.1)
    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", lambda _: "127.0.0.1:9")
    with pytest.raises(ClusterError, match=r"RAY_ADDRESS=auto: nothing has answered there at 127\.0\.0\.1:9, the clu"):
        join("auto")


@pytest.mark.slow
def test_a_cluster_that_wants_another_token_says_so(address: str, home: Path) -> None:
    """In processes of their own: Ray reads the mode once."""
    program = (
        "from maskhand.cluster.session import ensure_ray\n"
        "try: ensure_ray()\nexcept Exception as error: print(type(error).__name__, error)"
    )
    cases: dict[str, dict[str, str]] = {
        "not set here; set RAY_AUTH_MODE=token": {"RAY_ADDRESS": address},
        "refuses the token of RAY_AUTH_TOKEN;": {"RAY_ADDRESS": address, MODE: "token", TOKEN: OTHER},
    }
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_NUM_REDIS_GET_RETRIES": "1"}

    def answer(settings: dict[str, str]) -> str:
        command, variables = [sys.executable, "-c", program], os.environ | loopback | settings
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
        assert OTHER not in done.stdout + done.stderr
        return done.stdout

    with ThreadPoolExecutor() as side_by_side:  # each mostly waits
        for (said, settings), told in zip(cases.items(), side_by_side.map(answer, cases.values()), strict=True):
            assert f"ClusterError RAY_ADDRESS={settings['RAY_ADDRESS']}: " in told and said in told, told


def test_a_session_that_a_busy_machine_did_not_start_in_time_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []
    told = warnings_of(session.__name__, monkeypatch)

    def start(folder: str) -> None:
        started.append(folder)
        if len(started) < 3 or fails:
            raise RuntimeError("The current node timed out during startup.")

    monkeypatch.setattr(session, "_start_local", start)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    fails = False
    assert session.ensure_ray() and len(started) == 3
    assert len(told) == 2 and all("timed out during startup.); its logs are in" in sentence for sentence in told)
    fails = True
    with pytest.raises(session.SessionError, match="no Ray session starts on this machine"):
        session.ensure_ray()
    assert len(started) == 6
