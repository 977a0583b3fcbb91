"""The environment of the flows, set before Prefect is imported: its server, its files, its log levels.

Prefect reads its settings once, on import. So this module must not import Prefect, and `prepare` must be called before.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from maskhand import machine
from maskhand.disk import check_writable
from maskhand.workspace import Workspace

HOST = "127.0.0.1"
"""All servers started by this project listen only on this address."""

PORT = 4200

DATABASES_MIB = 64.0
"""Space for Prefect's and MLflow's databases with write-ahead logs; on a full disk, the server's start would hang."""


def settings(workspace: Workspace, debug: bool = False) -> dict[str, str]:
    """The environment variables for Prefect and its runs; variables set by the user take precedence.

    With `PREFECT_API_URL` set, that server is used; otherwise Prefect starts its own for the duration of the run, with
    its database in the workspace, where `maskhand serve` finds the runs later.
    """
    return {
        "PREFECT_HOME": str(workspace.prefect_home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "MLFLOW_LOGGING_LEVEL": "INFO" if debug else "ERROR",
        # Everything is still written to the server; the console is for our own progress and one-sentence errors.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "DEBUG" if debug else "CRITICAL",
        "PREFECT_LOGGING_SERVER_LEVEL": "INFO" if debug else "CRITICAL",
        **_folder_of_pages(workspace),
        **machine.proxy_exceptions(),
    }


def _folder_of_pages(workspace: Workspace) -> dict[str, str]:
    """Prefect's server copies its web pages beside its code; where another account installed it, to the workspace."""
    code = importlib.util.find_spec("prefect")
    folders = [Path(folder) / "server" for folder in (code and code.submodule_search_locations) or ()]
    if all(os.access(folder, os.W_OK) for folder in folders):
        return {}
    return {"PREFECT_UI_STATIC_DIRECTORY": str(workspace.prefect_home / "pages")}


def prepare(workspace: Workspace, debug: bool = False) -> None:
    """Set the environment of this process and of everything it starts; call before anything imports Prefect."""
    if "prefect" in sys.modules:
        raise RuntimeError("maskhand.pipelines.runtime.prepare() came after `import prefect`; call it first")
    machine.settle()
    for name, value in settings(workspace, debug).items():
        os.environ.setdefault(name, value)
    check_writable(workspace.root, DATABASES_MIB)
    home = prefect_home(workspace)
    check_writable(home, DATABASES_MIB)  # a user's own may be elsewhere
    home.mkdir(parents=True, exist_ok=True)


def prefect_home(workspace: Workspace) -> Path:
    """Where Prefect keeps its files: in the workspace, or in `$PREFECT_HOME`."""
    return Path(os.environ.get("PREFECT_HOME") or workspace.prefect_home).expanduser()


def workspace_for(parameter: str | None) -> Workspace:
    """The workspace of a flow run: the flow's parameter, else `$MASKHAND_WORKSPACE`, else `./workspace`.

    A worker starts runs in a temporary folder, where `./workspace` would be lost; there one of the first two must be
    set, else ValueError is raised.
    """
    if not parameter and not os.environ.get("MASKHAND_WORKSPACE") and os.environ.get("PREFECT__FLOW_RUN_ID"):
        raise ValueError(
            "no workspace: start the worker with MASKHAND_WORKSPACE set to an absolute folder, "
            "or give the run the parameter `workspace`"
        )
    return Workspace.at(parameter)
