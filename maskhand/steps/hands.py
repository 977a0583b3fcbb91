"""The step that predicts the hands of pictures and films into a run folder."""

from __future__ import annotations

from dataclasses import fields

from maskhand.device import accelerator
from maskhand.film.run import TrackedFilms
from maskhand.models.bundle import ModelBundle
from maskhand.predict.hand_group import Reconstruction
from maskhand.predict.run import predict_run
from maskhand.predict.run_files import RunResult
from maskhand.predict.stream import PredictRequest
from maskhand.progress import Progress, silent
from maskhand.steps.prepare_predict import PreparedRun


def predict(run: PreparedRun, progress: Progress = silent) -> RunResult:
    """Carry out a prepared run; the network is loaded once, and only where it is needed (see `predict_run`)."""
    bundle = None if run.model is None else ModelBundle.load(run.model, device=accelerator())
    settings = run.settings
    reconstruction = Reconstruction(bundle, settings.method, settings.placed_by, settings.hypotheses)
    options = {item.name: getattr(run.options, item.name) for item in fields(run.options)}
    request = PredictRequest(reconstruction, run.assets, **options)
    films = None if run.smooth == "frames" else TrackedFilms(run.smooth)
    return predict_run(run.sources, request, run.out, run.again, progress, films)
