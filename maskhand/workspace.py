"""Where a run keeps its files: one folder, laid out the same on a laptop and behind `s3://`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from maskhand import storage


@dataclass(frozen=True)
class Workspace:
    """The folder of everything that is made; raw data, shards, checkpoints, trackers and reports."""

    root: Path
    shards_uri: str
    """Where shard sets live: a folder or `s3://bucket/prefix`."""

    @classmethod
    def at(cls, folder: str | Path | None = None) -> Workspace:
        """The workspace in `folder`, else in `$MASKHAND_WORKSPACE`, else in `./workspace`.

        Its shards are at `$MASKHAND_SHARDS` when that is set; a variable that is empty is not set. Both are absolute,
        since workers elsewhere have other current folders.
        """
        root = Path(folder or os.environ.get("MASKHAND_WORKSPACE") or "workspace").expanduser().resolve()
        return cls(root, storage.absolute(os.environ.get("MASKHAND_SHARDS") or root / "shards"))

    @property
    def raw(self) -> Path:
        """Raw datasets in their published layouts, a folder each."""
        return self.root / "raw"

    @property
    def runs(self) -> Path:
        """Checkpoints and logs, a folder per training run."""
        return self.root / "runs"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def assets(self) -> Path:
        """Files fetched by package name (detector models); shared by all runs."""
        return self.root / "assets"

    @property
    def mlflow_uri(self) -> str:
        """`$MLFLOW_TRACKING_URI`, else a local database in the workspace."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    @property
    def prefect_home(self) -> Path:
        return self.root / "prefect"

    def shard_set(self, name: str) -> str:
        """URI of a shard set such as `freihand_synth/training`."""
        return f"{self.shards_uri.rstrip('/')}/{name}"
