"""The deployments of prefect.yaml on a Prefect server: creating them, and running them by short names."""

from __future__ import annotations

import difflib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from maskhand.errors import without_passwords
from maskhand.pipelines.server import POOL, ServerError, environment, free_port, prefect_command, running_server, server
from maskhand.workspace import Workspace

PREFECT_FILE = Path(__file__).with_name("prefect.yaml")
_POOL_EXISTS = f"Work pool named '{POOL}' already exists"


def run_deployment(workspace: Workspace, name: str, parameters: Sequence[str], watch: bool) -> int:
    """Run `prefect deployment run NAME/NAME`, for example of `train-maskhand`; returns its exit code.

    Raises ServerError for a parameter without a value and for a deployment that is not on the server.
    """
    if wrong := [parameter for parameter in parameters if "=" not in parameter]:
        raise ServerError(f"parameter {wrong[0]!r}: expected KEY=VALUE, for example recipe=tiny")
    url = running_server()
    deployment = name if "/" in name else f"{name}/{name}"
    known = sorted(found["name"] for found in _ask(url, "/deployments/filter", {}) or [])
    if known and deployment.partition("/")[2] not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ServerError(f"no deployment {name!r} at {url}; {hint}there are {', '.join(known)}")
    options = [word for parameter in parameters for word in ("--param", parameter)]
    command = prefect_command("deployment", "run", deployment, *options, *(["--watch"] if watch else []))
    run_id = ""
    with subprocess.Popen(command, env=environment(workspace, url), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            run_id = run_id or line.partition("UUID: ")[2].strip()
    if process.returncode and run_id and (run := _ask(url, f"/flow_runs/{run_id}")):
        print(without_passwords(run["state"]["message"]), file=sys.stderr)
    return process.returncode


def deploy(workspace: Workspace) -> int:
    """Create the work pool if it is missing, and all deployments of prefect.yaml. Returns Prefect's exit code.

    The server is the one at `PREFECT_API_URL`, else a running `maskhand serve`, else a temporary one on the workspace's
    database, which `maskhand serve` opens later.
    """
    try:
        return create(environment(workspace, running_server()))
    except ServerError:
        if "PREFECT_API_URL" in os.environ:
            raise
    with server(workspace, free_port(), workspace.prefect_home / "server.log") as running:
        return create(environment(workspace, running.url))


def create(variables: Mapping[str, str]) -> int:
    """Create the work pool where it is missing, and all deployments, on the server of these variables.

    Returns Prefect's exit code.
    """
    steps = (
        ("work-pool", "create", POOL, "--type", "process"),
        ("deploy", "--all", "--prefect-file", str(PREFECT_FILE)),
    )
    for step in steps:
        run = subprocess.run(prefect_command(*step), env=dict(variables), capture_output=True, text=True, check=False)
        said = f"{run.stdout} {run.stderr}"
        # An existing pool may be of another type, with its own job template: it is not changed.
        if run.returncode and not ("create" in step and _POOL_EXISTS in " ".join(said.split())):
            print(without_passwords(said), file=sys.stderr)
            return run.returncode
    print(f"deployed every flow of {PREFECT_FILE.name} to the work pool {POOL!r}")
    return 0


def end_lost(url: str) -> None:
    """Mark runs that no process of this machine executes, as after SIGKILL: they would hold the places of others.

    For a server on a loopback address, whose workers are on this machine.
    """
    begun = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}, "deployment_id": {"is_null_": False}}
    state = {"type": "CRASHED", "name": "Crashed", "message": "its process is gone; start it again, and it goes on"}
    runs = _ask(url, "/flow_runs/filter", {"flow_runs": begun}) or []
    living = {
        (process.info["environ"] or {}).get("PREFECT__FLOW_RUN_ID") for process in psutil.process_iter(["environ"])
    }
    for run in runs:
        if run["id"] not in living:
            _ask(url, f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})


def _ask(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON response of the API at `url` to a GET, or with a body to a POST; None on failure, as behind a login."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except OSError:
        return None
