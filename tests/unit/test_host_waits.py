"""Nothing in a training step or a decoding iteration makes the host wait for the device.

Copying a Python number or list to a device, reading a value back, and shapes that depend on values all do. Each shows
as an operation here, on any device, so the CPU shows that a GPU would not be synchronized with.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from maskhand.config import SamplerConfig
from maskhand.hand.layer import ManoLayer
from maskhand.models.build import build_model
from maskhand.models.quantizer import Quantizer
from maskhand.models.sampling import sample
from maskhand.models.vq_mano import VQMano
from maskhand.training.losses import tokenizer_losses
from maskhand.training.seeds import coin
from maskhand.training.transformer_loop import TransformerObjective
from support.model_parts import random_batch, random_poses, small_model, small_recipe

TWO_PASSES = next(step for step in range(100) if coin(small_recipe().seed, step))
"""A step of two passes, for a network that projects its reference points."""
WAITS = {
    "aten::lift_fresh": "a constant is copied from the host",
    "aten::_local_scalar_dense": "a value is read back",
    "aten::nonzero": "a shape depends on values",
    "aten::masked_select": "a shape depends on values",
    "aten::_unique2": "a shape depends on values",
}


class Waits(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        by_mask = name == "aten::index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in WAITS or by_mask:
            self.seen[f"{name}: {WAITS.get(name, 'a shape depends on values')}"] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("wait", [lambda x: x[:, [0, 1]], lambda x: x.new_tensor([1.0]), lambda x: x[x > 0]])
def test_the_watch_sees_the_usual_suspects(wait) -> None:
    with Waits() as waits:
        wait(torch.randn(2, 3))
    assert waits.seen
    with Waits() as waits:
        bool((torch.randn(2) > 0).any())
    assert waits.seen


@pytest.mark.parametrize("decode", ["expectation", "mixed", "codes"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "changes",
    [
        {"logits_head": "mixture"},
        {"ref_points": "pose2d", "pose2d_tokens": 21, "logits_head": "linear"},
        {"ref_points": "projected", "pose2d_tokens": 21},
    ],
)
def test_decoding(decode: str, temperature: float, changes: dict) -> None:
    model, batch = small_model(small_recipe(tokens=32, **changes)), random_batch(2)
    cfg = SamplerConfig(iterations=5, temperature=temperature, decode=decode, top_k=5, top_p=0.9)  # type: ignore[arg-type]
    cfg = cfg.model_copy(update={"confidence_noise": 1.0, "remask_kept": True})
    generator = torch.Generator().manual_seed(0)
    with Waits() as waits:
        context = model.encode(batch.image, batch.keypoints_2d)
        hands = sample(model, context, cfg, generator, hypotheses=3)
    assert not waits.seen
    assert hands.vertices_m.isfinite().all()


@pytest.mark.parametrize(
    "changes",
    [
        *({"decoder": decoder} for decoder in ("masked", "regression", "lifter")),
        {"ref_points": "projected", "logits_head": "mixture"},
    ],
)
def test_a_training_step_of_the_transformer(changes: dict) -> None:
    recipe = small_recipe(**changes)
    mano, batch = ManoLayer.from_default(), random_batch(2)
    model = build_model(recipe, VQMano(recipe.tokenizer), mano).train()
    optimizer = torch.optim.AdamW(model.parameter_groups(1e-3, None, 0.0), foreach=True)
    objective, slots = TransformerObjective(model, recipe), torch.arange(2)
    with Waits() as waits:
        loss, _ = objective(batch, slots, TWO_PASSES)
        loss.backward()
    assert not waits.seen
    optimizer.step()


@pytest.mark.parametrize("rot_repr", ["6d", "aa"])
def test_a_training_step_of_the_tokenizer(rot_repr: str) -> None:
    recipe = small_recipe()
    config = recipe.tokenizer.model_copy(update={"rot_repr": rot_repr, "reset_every": 20})
    tokenizer, mano, poses = VQMano(config), ManoLayer.from_default(), random_poses(8)
    tokenizer(poses)  # starts the codebook
    with Waits() as waits:
        losses = tokenizer_losses(tokenizer(poses), poses, mano, recipe.tokenizer_training.losses)
        losses.total.backward()
    assert not waits.seen


def test_the_codebooks_count_of_updates_survives_loading() -> None:
    """The count is kept on the host; a loaded state must replace it, or resets would come in other steps."""
    z = torch.randn(4, 8, 4)
    first, second = (Quantizer(8, 4, 0.9, 3, 64.0) for _ in range(2))
    for _ in range(2):
        first(z)
    second(2 * z)
    second.load_state_dict(first.state_dict())
    for quantizer in (first, second):
        quantizer(z)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert first.updates == 3
