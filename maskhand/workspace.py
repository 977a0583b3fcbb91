"""Where a run keeps its files: one folder, laid out the same on a laptop and behind `s3://`."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from maskhand import storage
from maskhand.errors import MaskhandError
from maskhand.path_names import path_names


class PlaceError(MaskhandError, ValueError):
    """A workspace or an address of a tracking store that cannot be one; the message says what to write."""


@dataclass(frozen=True)
class Workspace:
    """The folder of everything that is made; raw data, shards, checkpoints, trackers and reports."""

    root: Path
    shards_uri: str
    """Where shard sets live: a folder or `s3://bucket/prefix`."""
    checkpoints: str | None = None
    """Where the checkpoints of trainings live, such as `s3://bucket/prefix`; None: in `runs`."""

    @classmethod
    def at(cls, folder: str | Path | None = None) -> Workspace:
        """The workspace in `folder`, else in `$MASKHAND_WORKSPACE`, else in `./workspace`.

        Its shards are at `$MASKHAND_SHARDS` when that is set, its checkpoints at `$MASKHAND_CHECKPOINTS`; a variable
        that is empty is not set. All are absolute, since workers elsewhere have other current folders. Raises
        PlaceError for an address of another kind, and for a path that databases could not be opened under; StorageError
        for shards or checkpoints at such an address.
        """
        given = str(folder or os.environ.get("MASKHAND_WORKSPACE") or "workspace")
        if re.match("[A-Za-z][A-Za-z0-9+.-]+:/", given):
            raise PlaceError(
                f"workspace {given}: expected a folder of this machine or of a shared disk, as databases and "
                "reports are kept in it; shards and checkpoints can be elsewhere: MASKHAND_SHARDS=s3://bucket/prefix, "
                "MASKHAND_CHECKPOINTS=s3://bucket/prefix"
            )
        root = Path(given).expanduser().resolve()
        if wrong := sorted({c for c in str(root) if c in "?%" or not c.isprintable()}):
            raise PlaceError(
                f"workspace {root}: {' and '.join(map(repr, wrong))} in a path means something else in the addresses "
                "of databases and stored models; choose a folder without"
            )
        checkpoints = os.environ.get("MASKHAND_CHECKPOINTS")
        return cls(
            root,
            storage.absolute(os.environ.get("MASKHAND_SHARDS") or root / "shards"),
            storage.absolute(checkpoints) if checkpoints else None,
        )

    @property
    def raw(self) -> Path:
        """Raw datasets in their published layouts, a folder each."""
        return self.root / "raw"

    @property
    def runs(self) -> Path:
        """Logs, results and, unless they are elsewhere, checkpoints, a folder per training run."""
        return self.root / "runs"

    @property
    def checkpoints_uri(self) -> str:
        """Checkpoints, a folder per training run."""
        return self.checkpoints or str(self.runs)

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def assets(self) -> Path:
        """Files fetched by package name (detector models); shared by all runs."""
        return self.root / "assets"

    @property
    def mlflow_uri(self) -> str:
        """`$MLFLOW_TRACKING_URI`, made absolute, else a local database in the workspace. Raises PlaceError.

        A user and password in it move to variables of their own, see `hide_credentials`.
        """
        hide_credentials()
        given = os.environ.get("MLFLOW_TRACKING_URI")
        return absolute_tracking_uri(given) if given else f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    @property
    def prefect_home(self) -> Path:
        return self.root / "prefect"

    def shard_set(self, name: str) -> str:
        """URI of a shard set such as `freihand_synth/training`; PathNameError for a name that leads elsewhere."""
        return f"{self.shards_uri.rstrip('/')}/{path_names(name, 'shard set')}"


def assets_folder() -> Path:
    """Where fetched files are for programs that need no workspace: in that of `$MASKHAND_WORKSPACE`, or in
    `./workspace` where there is one, else in `$XDG_CACHE_HOME/maskhand` or `~/.cache/maskhand`."""
    if os.environ.get("MASKHAND_WORKSPACE") or Path("workspace").is_dir():
        return Workspace.at().assets
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "")
    if not cache.is_absolute():  # so XDG's specification says
        cache = Path(os.path.expanduser("~")) / ".cache"
    if not cache.is_absolute():  # a user without a home
        cache = Path(tempfile.gettempdir()) / f"maskhand-cache-{os.getuid()}"
    return cache / "maskhand"


def hide_credentials() -> None:
    """Move user and password in `$MLFLOW_TRACKING_URI` to `$MLFLOW_TRACKING_USERNAME` and `$MLFLOW_TRACKING_PASSWORD`.

    MLflow takes both, but its own errors, which reach logs and Prefect's pages, contain the address.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if found := re.fullmatch(r"\s*(https?://)([^/?#@:]*):(?!\d+[/?#])(\S*)@([^@]*)", given):
        start, user, password, place = found.groups()
        os.environ["MLFLOW_TRACKING_URI"] = start + place
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(user)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)


def absolute_tracking_uri(given: str) -> str:
    """The same tracking store under an address that holds in every process of the machine; PlaceError for none.

    `sqlite:///tracking.db` is relative to the current folder, and workers have others.
    """
    address = re.sub(r"^[A-Za-z][\w+.-]*(?=://)", lambda scheme: scheme[0].lower(), given.strip())
    if found := re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^/:?][^?]*)(\?.*)?", address):
        return f"{found[1]}{Path(found[2]).expanduser().absolute()}{found[3] or ''}"
    if re.match(r"([\w.-]+:\d+|localhost)(/|$)", address):
        raise PlaceError(f"MLFLOW_TRACKING_URI={given}: write http://{address} for a server")
    if re.fullmatch(r"https?:/*|sqlite:(/{0,2}[^/].*)?", address):
        raise PlaceError(f"MLFLOW_TRACKING_URI={given}: expected http://HOST:PORT or sqlite:///FILE")
    if "://" in address or re.fullmatch(r"databricks(-uc)?|uc(:.*)?", address):
        return address.rstrip("/") if address.startswith("http") else address
    return str(Path(address.removeprefix("file:")).expanduser().absolute())
