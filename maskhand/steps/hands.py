"""Hands for people, of pictures and films."""

from __future__ import annotations

from dataclasses import fields

from maskhand.device import accelerator
from maskhand.film.run import TrackedFilms
from maskhand.models.bundle import ModelBundle
from maskhand.predict.hand_group import Reconstruction
from maskhand.predict.looking import Question
from maskhand.predict.run import predict_run
from maskhand.predict.run_files import RunResult
from maskhand.progress import Progress, silent
from maskhand.steps.ask_hands import AskedRun


def predict(asked: AskedRun, progress: Progress = silent) -> RunResult:
    """Look at what was asked; the network is loaded once, and only where it is needed (see `predict_run`)."""
    bundle = None if asked.model is None else ModelBundle.load(asked.model, device=accelerator())
    how = Reconstruction(bundle, asked.way.method, asked.way.placed_by, asked.way.hypotheses)
    question = Question(
        how, asked.assets, **{item.name: getattr(asked.wanted, item.name) for item in fields(asked.wanted)}
    )
    films = None if asked.smooth == "frames" else TrackedFilms(asked.smooth)
    return predict_run(asked.sources, question, asked.out, asked.again, progress, films)
