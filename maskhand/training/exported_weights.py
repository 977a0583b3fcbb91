"""The weights that a training exports: the last ones, their moving average, or the best validated of these.

Every rank averages what it holds: up to ZeRO stage 2 all weights, equal on all ranks bit for bit, with stage 3 its part
of each. So nothing is communicated in a step. Validation hands are divided among ranks; with stage 3, each rank gathers
the weights into a model of its own for it. Frozen weights are neither averaged nor copied.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maskhand.config import TransformerTrainConfig
from maskhand.errors import MaskhandError
from maskhand.evaluation.held_out import HeldOutHands, validation_metrics
from maskhand.models.network import HandNetwork
from maskhand.training.divided_weights import held, share, whole
from maskhand.training.engine import Engine

BEST_BY = "val/pa_mpjpe_mm"
MODEL = "model."
"""Prefix of the model's tensors in the objective's state."""


class ValidationError(MaskhandError, ValueError):
    """A validation without hands to measure."""


@dataclass(frozen=True)
class Best:
    """The best validated weights so far."""

    step: int
    """Number of steps they were trained for."""
    error_mm: float
    """Their metric `BEST_BY`."""
    weights: Mapping[str, Tensor]
    """Values of `trained_tensors`, on the CPU; on rank 0 only."""


class ExportedWeights:
    """The average, the validations, and the best weights of a training; part of each of its checkpoints.

    built: makes a model of the objective's state dict; ZeRO stage 3 validates such a one. hands: this rank's share of
    the validation hands; ValueError if the settings ask for validations and it is None.
    """

    def __init__(
        self,
        engine: Engine,
        model: HandNetwork,
        settings: TransformerTrainConfig,
        built: Callable[[Mapping[str, Tensor]], HandNetwork],
        hands: HeldOutHands | None = None,
    ) -> None:
        if settings.validate_every and hands is None:
            raise ValueError("training.validate_every is set, but no held-out hands were given")
        self._engine, self._model, self._settings, self._hands = engine, model, settings, hands
        self._built = built
        self._trained = trained_tensors(model)
        self._average: WeightAverage | None = None
        if settings.ema_decay:
            of_rank = {name: held(tensor) for name, tensor in self._trained.items()}
            self._average = WeightAverage(of_rank, settings.ema_decay)
        self.best: Best | None = None
        self.validation_s = 0.0
        """Duration of all validations."""

    def after_step(self, done: int) -> dict[str, float]:
        """Update the average after step `done` (1-based); returns the metrics of a validation when one is due."""
        if self._average is not None:
            self._average.update(done - 1)
        every = self._settings.validate_every
        if not every or (done % every and done != self._settings.optim.steps):
            return {}
        started_s = time.monotonic()
        metrics = self._validate(done)
        self.validation_s += time.monotonic() - started_s
        return metrics

    def _validate(self, done: int) -> dict[str, float]:
        assert self._hands is not None
        with self._to_validate() as model:
            sums = self._hands.sums(model)
        metrics = validation_metrics(self._engine.sum(sums.to(self._engine.device)).cpu())
        error_mm = metrics[BEST_BY]
        if math.isnan(error_mm):
            raise ValidationError(
                "no held-out hand of the training sets has 3D joints to validate on; raise data.held_out, or set "
                "training.validate_every=0"
            )
        if self.best is None or error_mm < self.best.error_mm:
            self.best = Best(done, error_mm, self._copied())
        return metrics | {"val/best_pa_mpjpe_mm": self.best.error_mm, "val/best_step": float(self.best.step)}

    def state(self) -> dict[str, Any]:
        """The state to store in a checkpoint, on rank 0; every rank must call it."""
        return {
            "average": None if self._average is None else self._copied(),
            "best": None if self.best is None else vars(self.best),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        if self._average is not None:
            for name, value in self._average.values.items():
                value.copy_(share(self._trained[name], state["average"][name]))
        if state["best"] is not None:
            best = Best(**state["best"])
            self.best = best if self._engine.rank == 0 else Best(best.step, best.error_mm, {})

    def chosen(self) -> Mapping[str, Tensor]:
        """Of the trained tensors those to export in place of the last ones, on rank 0; every rank must call it."""
        if self.best is not None:
            return self.best.weights
        return {} if self._average is None else self._copied()

    def facts(self) -> dict[str, Any]:
        """Metadata of an exported model about its weights; empty if they are just the last ones."""
        facts: dict[str, Any] = {"ema_decay": self._settings.ema_decay} if self._average is not None else {}
        if self.best is not None:
            facts |= {"validated_step": self.best.step, BEST_BY: self.best.error_mm}
        return {"exported_weights": facts} if facts else {}

    def _copied(self) -> dict[str, Tensor]:
        """The trained tensors, averaged where there is an average: on the CPU, on rank 0, else empty; every rank must
        call it."""
        found: dict[str, Tensor] = {}
        for name, tensor in self._trained.items():
            value = whole(tensor, self._of_rank(name), self._engine.device)
            if self._engine.rank == 0:
                found[name] = value.to("cpu", copy=True)
        return found

    def _of_rank(self, name: str) -> Tensor:
        return held(self._trained[name]) if self._average is None else self._average.values[name]

    @contextmanager
    def _to_validate(self) -> Iterator[HandNetwork]:
        """The model with averaged weights, in evaluation mode."""
        if self._engine.divides_weights:
            state = self._engine.full_state_dict(everywhere=True) or {}
            for name, tensor in self._trained.items():
                state[f"{MODEL}{name}"] = whole(tensor, self._of_rank(name), self._engine.device)
            yield self._built(state).to(self._engine.device).eval()
            return
        with self._replaced({} if self._average is None else self._average.values), _in_evaluation_mode(self._model):
            yield self._model

    @contextmanager
    def _replaced(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """A context in which these trained tensors have other values. Their storage is swapped, not overwritten, so the
        optimizer's own views are not affected."""
        own = {name: self._trained[name].data for name in values}
        for name, value in values.items():
            self._trained[name].data = value
        try:
            yield
        finally:
            for name, data in own.items():
                self._trained[name].data = data


class WeightAverage:
    """An exponential moving average of tensors, on their device and in their precision."""

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        self._tensors, self._decay = list(tensors.values()), decay
        self.values = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """average = d average + (1 - d) weights after `step` (0-based), d = min(decay, (1 + step) / (10 + step)), as
        tf.train.ExponentialMovingAverage: the initial weights are quickly forgotten. Does not synchronize."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values.values()), self._tensors, 1 - decay)


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """By name: trainable parameters, and floating-point buffers of modules that have some (batch norm statistics) as
    far as they are in the state dict: others are constants."""
    found: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    stored = model.state_dict().keys()
    for prefix, part in model.named_modules():
        if any(p.requires_grad for p in part.parameters(recurse=False)):
            buffers = part.named_buffers(prefix, recurse=False)
            found |= {name: buffer for name, buffer in buffers if buffer.is_floating_point() and name in stored}
    return found


@contextmanager
def _in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    training = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode
