"""The experiment tracker and the model registry: the one package that knows MLflow (with `serving.py`, which it loads).

A run per training or evaluation, opened by whoever orchestrates and continued by its id; workers of rank 0 write curves
to it through a `RunReporter`. Registered models predict from images, see `serving.py`. Without a server everything
lives in a database file and a folder of the workspace.
"""

from maskhand.tracking.errors import TrackingServerError
from maskhand.tracking.records import BUNDLE, MODEL, TEXT_MODEL, Lineage, ModelVersion, Promotion, TrackedRun
from maskhand.tracking.registry import Tracker
from maskhand.tracking.reporter import RunReporter
from maskhand.tracking.server import pages, server_version

__all__ = [
    "BUNDLE",
    "MODEL",
    "TEXT_MODEL",
    "Lineage",
    "ModelVersion",
    "Promotion",
    "RunReporter",
    "TrackedRun",
    "Tracker",
    "TrackingServerError",
    "pages",
    "server_version",
]
