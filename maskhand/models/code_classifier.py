"""The output heads: features of tokens -> logits over the codes (`model.logits_head`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from maskhand.config import ModelConfig
from maskhand.models.vq_mano import VQMano

_MAX_LOG_SHARPNESS = 5.0


def make_code_classifier(cfg: ModelConfig, tokenizer: VQMano) -> nn.Module:
    """The head that `cfg.logits_head` names: features (B, L, dim) and codebook (V, C) -> logits (B, L, V)."""
    if cfg.logits_head == "mixture":
        return MixtureClassifier(cfg.dim, tokenizer, cfg.head_components)
    heads = {"linear": LinearClassifier, "codebook_linear": CodebookLinearClassifier, "codebook": DistanceClassifier}
    return heads[cfg.logits_head](cfg.dim, tokenizer)


class LinearClassifier(nn.Module):
    """A linear layer; every code has its own weights."""

    def __init__(self, dim: int, tokenizer: VQMano) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, tokenizer.codebook_size)

    def forward(self, x: Tensor, codebook: Tensor) -> Tensor:
        return self.linear(x)


class CodebookLinearClassifier(LinearClassifier):
    """A linear layer, initialized to the negative squared distance of each code to a point linear in the features.

    The weights of a code are its vector times a random matrix, its bias is minus half its squared length: neighboring
    codes start with similar logits, and training may separate them.
    """

    def __init__(self, dim: int, tokenizer: VQMano) -> None:
        super().__init__(dim, tokenizer)
        codes = standardized(tokenizer.codebook)
        sharpness = codes.shape[1] ** -0.5
        to_point = nn.Linear(dim, codes.shape[1], bias=False).weight
        with torch.no_grad():
            self.linear.weight.copy_(sharpness * codes @ to_point)
            self.linear.bias.copy_(-0.5 * sharpness * codes.square().sum(1))


class DistanceClassifier(nn.Module):
    """Logits by distance: one Gaussian in code space.

    A linear layer predicts a point in code space and a sharpness; the logit of a code is minus half its squared
    distance to the point times the sharpness (plus a bias per code). Neighboring codes thus share what is learned, and
    the expected code vector follows the point from the start; separate weights need many samples of each code.
    The sharpness is per token: codes of orientations lie far apart, those of fingers close together.
    """

    def __init__(self, dim: int, tokenizer: VQMano) -> None:
        super().__init__()
        size, code_dim = tokenizer.codebook.shape
        self.linear = nn.Linear(dim, code_dim + 1)
        self.bias = nn.Parameter(torch.zeros(size))
        nn.init.constant_(self.linear.bias[-1:], -0.5 * math.log(code_dim))

    def forward(self, x: Tensor, codebook: Tensor) -> Tensor:
        codes = standardized(codebook)
        with torch.autocast(x.device.type, enabled=False):  # the sharpness would amplify the rounding of bf16
            point, log_sharpness = self.linear(x.float()).split([codes.shape[1], 1], dim=-1)
            # -|x - c|^2 / 2 without |x|^2, which cancels in the softmax
            proximity = point @ codes.T - 0.5 * codes.square().sum(1)
            return log_sharpness.clamp(max=_MAX_LOG_SHARPNESS).exp() * proximity + self.bias


class MixtureClassifier(nn.Module):
    """Logits by distance to several points: a mixture of K Gaussians in code space, each restricted to the codes.

        log p(c) = logsumexp_k (log w_k + log softmax_c (s_k (p_k . c - |c|^2 / 2) + bias_c))

    Points p_k, sharpness s_k and weights w_k are per token. Each component is normalized over the codes before it is
    weighted, so the w_k are the mixture weights however sharp a component is, and the logits are log probabilities.
    K = 1 is `DistanceClassifier`. If a finger is either bent or straight, a single Gaussian must also cover the poses
    in between; two components need not.
    """

    def __init__(self, dim: int, tokenizer: VQMano, components: int) -> None:
        super().__init__()
        size, code_dim = tokenizer.codebook.shape
        self.linear = nn.Linear(dim, components * (code_dim + 2))
        self.bias = nn.Parameter(torch.zeros(size))
        with torch.no_grad():
            start = self.linear.bias.view(components, code_dim + 2)
            nn.init.normal_(start[:, :-2])  # different points: equal components would learn the same
            nn.init.constant_(start[:, -2], -0.5 * math.log(code_dim))
            nn.init.zeros_(start[:, -1])

    def forward(self, x: Tensor, codebook: Tensor) -> Tensor:
        codes = standardized(codebook)
        with torch.autocast(x.device.type, enabled=False):  # the sharpness would amplify the rounding of bf16
            components = self.linear(x.float()).unflatten(-1, (-1, codes.shape[1] + 2))
            points, log_sharpness, weights = components.split([codes.shape[1], 1, 1], dim=-1)
            sharpness = log_sharpness.clamp(max=_MAX_LOG_SHARPNESS).exp()
            log_weights = weights.log_softmax(dim=-2)
            # one product gives s (p . c - |c|^2 / 2), so that few tensors of size V are kept for the backward pass
            factors = torch.cat([sharpness * points, -0.5 * sharpness], dim=-1)
            terms = torch.cat([codes, codes.square().sum(1, keepdim=True)], dim=1).T
            total: Tensor | None = None
            # one component at a time: without gradients, memory is a few (B, L, V) tensors for any K
            for factor, log_weight in zip(factors.unbind(-2), log_weights.unbind(-2), strict=True):
                component = (factor @ terms + self.bias).log_softmax(-1) + log_weight
                total = component if total is None else torch.logaddexp(total, component)
            assert total is not None
            return total


def standardized(codebook: Tensor) -> Tensor:
    """(V, C) code vectors with mean 0 and standard deviation 1 in each dimension."""
    return (codebook - codebook.mean(0)) / codebook.std(0).clamp_min(1e-6)
