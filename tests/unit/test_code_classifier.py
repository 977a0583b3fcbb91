"""The output heads: what each says of a code, in closed form, and where it starts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from maskhand.models.code_classifier import (
    CodebookLinearClassifier,
    DistanceClassifier,
    MixtureClassifier,
    make_code_classifier,
    standardized,
)
from maskhand.models.vq_mano import VQMano
from support.model_parts import small_recipe

CODES, CODE_DIM, DIM = 50, 6, 24


@pytest.fixture
def tokenizer() -> VQMano:
    torch.manual_seed(0)
    tokenizer = VQMano(
        small_recipe().tokenizer.model_copy(update={"codebook_size": CODES, "code_dim": CODE_DIM})
    ).freeze()
    nn.init.normal_(tokenizer.codebook, mean=2.0, std=3.0)
    return tokenizer


def gaussian(point: torch.Tensor, sharpness: float, codes: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """(V,) probabilities of codes by their distance to a point."""
    return (bias - 0.5 * sharpness * (codes - point).square().sum(1)).softmax(0)


def test_a_distance_is_a_gaussian_and_a_mixture_the_weighted_sum_of_several(tokenizer: VQMano) -> None:
    x, codes = torch.randn(2, 3, DIM), standardized(tokenizer.codebook)
    mixture = MixtureClassifier(DIM, tokenizer, 3)
    nn.init.normal_(mixture.linear.weight, std=0.3)
    nn.init.normal_(mixture.bias, std=0.3)
    probability = mixture(x, tokenizer.codebook).exp()
    for b in range(2):
        for token in range(3):
            heads = mixture.linear(x[b, token]).view(3, CODE_DIM + 2)
            weights = heads[:, -1].softmax(0)
            expected = sum(
                weight * gaussian(head[:CODE_DIM], head[CODE_DIM].exp().item(), codes, mixture.bias)
                for weight, head in zip(weights, heads, strict=True)
            )
            assert torch.allclose(probability[b, token], expected, atol=1e-6)

    one, distance = MixtureClassifier(DIM, tokenizer, 1), DistanceClassifier(DIM, tokenizer)
    distance.linear.load_state_dict({name: value[: CODE_DIM + 1] for name, value in one.linear.state_dict().items()})
    logits = distance(x, tokenizer.codebook)
    assert torch.allclose(one(x, tokenizer.codebook), logits.log_softmax(-1), atol=1e-5)
    head = distance.linear(x[0, 0])
    expected = gaussian(head[:CODE_DIM], head[CODE_DIM].exp().item(), codes, distance.bias)
    assert torch.allclose(logits[0, 0].softmax(0), expected, atol=1e-6)


def test_a_mixture_learns_two_ends_where_one_point_learns_the_middle(tokenizer: VQMano) -> None:
    """Codes along a line, and targets that are its ends, half and half: ln 2 is the least, ln 50 knows nothing."""
    tokenizer.codebook.copy_(torch.linspace(-1, 1, CODES)[:, None].expand(-1, CODE_DIM))
    target = torch.tensor([0, CODES - 1]).repeat(8)
    x, losses = torch.zeros(1, DIM), {}
    for kind in ("codebook", "mixture"):
        torch.manual_seed(0)
        head = make_code_classifier(small_recipe(logits_head=kind, dim=DIM, head_components=2).model, tokenizer)
        nn.init.zeros_(head.bias).requires_grad_(False)  # it is of the code, not of the token
        optimizer = torch.optim.Adam([p for p in head.parameters() if p.requires_grad], 0.05)
        for _ in range(300):
            loss = nn.functional.cross_entropy(head(x, tokenizer.codebook).expand(16, -1), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[kind] = loss.item()
    assert losses["mixture"] < 0.8 < 3.5 < losses["codebook"]


def test_components_start_apart_and_get_different_gradients(tokenizer: VQMano) -> None:
    head = MixtureClassifier(DIM, tokenizer, 4)
    x = torch.randn(64, DIM)
    nn.functional.cross_entropy(head(x, tokenizer.codebook), torch.randint(CODES, (64,))).backward()
    points = head.linear(x).view(64, 4, -1)[..., :CODE_DIM].mean(0)
    gradients = head.linear.weight.grad.view(4, -1)
    assert torch.pdist(points).min() > 0.5
    assert torch.cosine_similarity(gradients[:, None], gradients[None], dim=-1).triu(1).max() < 0.9


def test_the_linear_head_on_the_codebook_starts_as_a_distance_and_may_leave_it(tokenizer: VQMano) -> None:
    head, codes = CodebookLinearClassifier(DIM, tokenizer), standardized(tokenizer.codebook)
    logits = head(torch.randn(400, DIM), tokenizer.codebook)
    # a point linear in the features: all logits are an affine function of the code and its squared length
    affine = torch.cat([codes, codes.square().sum(1, keepdim=True)], dim=1)
    fitted = affine @ torch.linalg.lstsq(affine, logits.T).solution
    assert torch.allclose(fitted.T, logits, atol=1e-3)
    assert sum(p.numel() for p in head.parameters()) == CODES * (DIM + 1)


@pytest.mark.parametrize("kind", ["codebook", "mixture"])
def test_the_nearness_of_codes_is_as_sharp_under_autocast(kind: str) -> None:
    """At the paper's size bf16 alone would move these logits by dozens."""
    recipe = small_recipe(logits_head=kind, dim=32)
    tokenizer = VQMano(recipe.tokenizer.model_copy(update={"codebook_size": 2048, "code_dim": 256}))
    nn.init.normal_(tokenizer.codebook)
    head = make_code_classifier(recipe.model, tokenizer)
    nn.init.constant_(head.linear.bias[256::258], 2.0)  # of the codebook head the last, of the mixture K
    x = torch.randn(2, 16, 32)
    with torch.autocast("cpu", torch.bfloat16):
        half = head(x, tokenizer.codebook)
    assert half.dtype == torch.float32 and torch.equal(half, head(x, tokenizer.codebook))
