"""The servers of a cluster as processes of this machine: Postgres, MLflow, Prefect, the nodes of Ray."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
HOST = "127.0.0.1"
CODE = Path(__file__).parents[2]
SETTINGS_OF_OTHERS = ("MASKHAND_", "AWS_", "MLFLOW_", "PREFECT_", "RAY_")
"""Beginnings of variables that a machine of the cluster does not take from the caller."""
DATABASES = ("prefect", "mlflow")
START_S = 300.0
STOP_S = 30.0
ORPHANS_S = 3.0
"""How long children that their parent stopped may take longer than it."""


@dataclass(frozen=True)
class Part:
    """A process of the cluster with all that it starts."""

    name: str
    process: psutil.Popen
    log: Path

    def family(self) -> list[psutil.Process]:
        """The process and everything below it that still runs."""
        try:
            return [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> int:
        """SIGKILL for all of it at once, as when a machine loses its power; returns how many processes died."""
        family = self.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, STOP_S)
        return len(family)

    def stop(self) -> None:
        """SIGTERM for the process, which may stop its children; then for those that are left; at last SIGKILL."""
        family = self.family()
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.terminate()
        psutil.wait_procs([self.process], STOP_S)
        _, left = psutil.wait_procs(family, ORPHANS_S)
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    end(process)
            _, left = psutil.wait_procs(left, STOP_S)


@dataclass(frozen=True)
class Place:
    """Where a cluster keeps its files: logs, homes, the volume that all nodes share."""

    root: Path

    def home(self, name: str) -> Path:
        """The home of a node or account; nothing of the caller's is in it."""
        folder = self.root / "homes" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def environment(self, name: str, settings: Mapping[str, str]) -> dict[str, str]:
        """The environment of a machine: none of the caller's settings, a home of its own, and `settings`."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS_OF_OTHERS)}
        same = {"PYTHONPATH": str(CODE)}  # as with one image for all
        quiet = {"DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        return {**own, **same, **quiet, "HOME": str(self.home(name)), **settings}

    @contextmanager
    def part(
        self, name: str, command: list[str], settings: Mapping[str, str], user: str | None = None
    ) -> Iterator[Part]:
        """A running process with a log of its own; it and its children are gone when the block ends."""
        log = self.root / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = psutil.Popen(
                command, env=self.environment(name, settings), stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True, cwd="/", user=user,
            )  # fmt: skip
        part = Part(name, process, log)
        try:
            yield part
        finally:
            part.stop()


def wait_until(ready: Callable[[], bool], part: Part) -> None:
    """Raises RuntimeError with the end of the log where the part dies first, or takes more than START_S."""
    deadline_s = time.monotonic() + START_S
    while not ready():
        if part.process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"{part.name} did not start; the end of {part.log}:\n{part.log.read_text()[-2000:]}")
        time.sleep(0.5)


def answers(url: str) -> Callable[[], bool]:
    """Asks whether an address answers with 200."""

    def ask() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    return ask


def listens(host: str, port: int) -> Callable[[], bool]:
    """Asks whether a port takes connections."""

    def ask() -> bool:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5):
            return True
        return False

    return ask


def free_port(host: str = HOST) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


@contextmanager
def postgres(place: Place) -> Iterator[str | None]:
    """`user:password@host:port` of a Postgres on 127.0.0.1 with a database for each of `DATABASES`.

    None without its programs, see `lacking`.
    """
    initdb, program = shutil.which("initdb"), shutil.which("postgres")
    user = _other_user() if os.geteuid() == 0 else None  # it refuses to run as root
    if not initdb or not program or (os.geteuid() == 0 and user is None):
        yield None
        return
    folder, port, password = Path(tempfile.mkdtemp(prefix="maskhand-postgres-")), free_port(), secrets.token_hex(16)
    try:
        (folder / "password").write_text(password)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        data = str(folder / "data")
        command = [initdb, "-D", data, "-U", "maskhand", "-E", "UTF8", "--auth=scram-sha-256", "--no-sync"]
        subprocess.run(
            [*command, f"--pwfile={folder / 'password'}"], check=True, capture_output=True, user=user, cwd="/"
        )
        command = [program, "-D", data, "-c", f"listen_addresses={HOST}", "-p", str(port), "-k", str(folder)]
        with place.part("postgres", command, {}, user) as part:
            wait_until(listens(HOST, port), part)
            account = f"maskhand:{password}@{HOST}:{port}"
            asyncio.run(_create_databases(f"postgresql://{account}/postgres"))
            yield account
    finally:
        shutil.rmtree(folder)


def lacking() -> list[str]:
    """What stands between this machine and Prefect's and MLflow's databases on Postgres, with what brings it."""
    programs = [name for name in ("initdb", "postgres") if shutil.which(name) is None]
    found = [f"{' and '.join(programs)} on PATH (Debian: postgresql, in /usr/lib/postgresql/*/bin)"] if programs else []
    if os.geteuid() == 0 and _other_user() is None:
        found.append("an account `postgres` or `nobody`, as root may not run it")
    if importlib.util.find_spec("psycopg2") is None:
        found.append("psycopg2 for MLflow (pip install 'maskhand[postgres]')")
    return found


def _other_user() -> str | None:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


async def _create_databases(url: str) -> None:
    import asyncpg

    for attempt in range(20):  # it listens before it takes clients
        try:
            connection = await asyncpg.connect(url)
            break
        except (OSError, asyncpg.CannotConnectNowError):
            if attempt == 19:
                raise
            await asyncio.sleep(0.5)
    for name in DATABASES:
        await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()


@contextmanager
def mlflow(place: Place, s3: Mapping[str, str], bucket: str, database: str | None = None) -> Iterator[str]:
    """The address of an MLflow server whose artifacts are in S3: clients need no key of their own.

    database: of `postgres`; None: SQLite.
    """
    port, folder = free_port(), place.root / "mlflow"
    folder.mkdir(exist_ok=True)
    command = [str(BIN / "mlflow"), "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"postgresql+psycopg2://{database}/mlflow" if database else f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"s3://{bucket}/mlflow",
    ]
    with place.part("mlflow", command, {**s3, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}) as part:
        wait_until(answers(f"http://{HOST}:{port}/health"), part)
        yield f"http://{HOST}:{port}"


@contextmanager
def prefect(place: Place, database: str | None) -> Iterator[str]:
    """The API address of a Prefect server, on Postgres where there is one."""
    port = free_port()
    settings = {"PREFECT_HOME": str(place.root / "prefect"), "PREFECT_LOGGING_SERVER_LEVEL": "WARNING"}
    if database:
        settings["PREFECT_API_DATABASE_CONNECTION_URL"] = f"postgresql+asyncpg://{database}/prefect"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    with place.part("prefect", command, settings) as part:
        wait_until(answers(f"http://{HOST}:{port}/api/health"), part)
        yield f"http://{HOST}:{port}/api"


@contextmanager
def ray_node(
    place: Place, name: str, host: str, cpus: int, token: Mapping[str, str], session: Path | None = None, head: str = ""
) -> Iterator[Part]:
    """A node of Ray at a loopback address. head: `host:port` to join; empty: this is the head, at port 6379.

    It has the cluster's token and nothing else of the driver's: settings and files travel with the work. session:
    folder of the head's session, which its nodes share; in /tmp/ray other programs would find it and join.
    """
    where = [f"--address={head}"] if head else ["--head", "--port=6379", "--include-dashboard=false"]
    where += [f"--temp-dir={session}"] if session else []
    command = [str(BIN / "ray"), "start", "--block", f"--node-ip-address={host}", f"--num-cpus={cpus}", *where]
    command += ["--object-store-memory=200000000", f"--dashboard-agent-listen-port={free_port(host)}"]
    fair = {"RAY_worker_niceness": "0"}  # Ray would give its workers less of a busy machine than everybody else has
    with place.part(name, command, {**token, **fair}) as part:
        wait_until(lambda: "Ray runtime started" in part.log.read_text(), part)
        yield part
