"""Linear blend skinning as one operation with its own gradient: the hot loop of the MANO layer.

    v_i = sum_j w_ij (R_j r_i + t_j)

Coordinates are kept in planes (x of all vertices, then y, then z), so that everything but one matrix product is
arithmetic on long rows; with a 3 x 4 matrix per vertex, as skinning is usually written, torch multiplies 778 tiny
matrices per hand. The blended transforms are made again for the gradient instead of being kept, in chunks of hands
that stay in the processor's cache. benchmarks/mano_layer.py measures it against smplx.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 32
"""Hands at a time on the CPU: 32 x 12 x 778 blended numbers are 1.2 MB."""


def skin(transforms: Tensor, rest: Tensor, weights: Tensor) -> Tensor:
    """transforms (B, 12, J): the 3 x 4 matrix of each joint, row by row; rest (B, 3, V) meters; weights (J, V).

    Returns (B, 3, V), differentiable once in `transforms` and `rest`.
    """
    if torch.compiler.is_exporting():  # a graph is for any number of hands, and has no memory to write into
        blended = (transforms.flatten(0, 1) @ weights).unflatten(0, (-1, 3, 4))
        return (blended[:, :, :3] * rest[:, None]).sum(2) + blended[:, :, 3]
    return _Skin.apply(transforms, rest, weights)


class _Skin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, transforms: Tensor, rest: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(transforms, rest, weights)
        posed, table = torch.empty_like(rest), _table(rest)
        for part in _chunks(rest):
            blended, r, out = _blend(transforms[part], weights, table), rest[part], posed[part]
            torch.mul(blended[:, :, 0], r[:, None, 0], out=out)
            out.addcmul_(blended[:, :, 1], r[:, None, 1]).addcmul_(blended[:, :, 2], r[:, None, 2])
            out.add_(blended[:, :, 3])
        return posed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        transforms, rest, weights = ctx.saved_tensors
        grad_transforms, grad_rest, table = torch.empty_like(transforms), torch.empty_like(rest), _table(rest)
        for part in _chunks(rest):
            blended, r, g, out = _blend(transforms[part], weights, table), rest[part], grad[part], grad_rest[part]
            torch.mul(blended[:, 0, :3], g[:, None, 0], out=out)
            out.addcmul_(blended[:, 1, :3], g[:, None, 1]).addcmul_(blended[:, 2, :3], g[:, None, 2])
            per_vertex = blended  # its numbers are not needed any more
            torch.mul(g[:, :, None], r[:, None], out=per_vertex[:, :, :3])
            per_vertex[:, :, 3] = g
            torch.mm(per_vertex.flatten(0, 2), weights.T, out=grad_transforms[part].flatten(0, 1))
        return grad_transforms, grad_rest, None


def _table(rest: Tensor) -> Tensor:
    """(hands of a chunk * 12, V), room for their blended transforms; fresh memory for every chunk costs more."""
    return rest.new_empty(min(len(rest), _chunk_size(rest)) * 12, rest.shape[2])


def _blend(transforms: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    """(B, 12, J) -> (B, 3, 4, V): every vertex's own transform, in the first rows of `table`."""
    rows = table[: 12 * len(transforms)]
    return torch.mm(transforms.flatten(0, 1), weights, out=rows).view(len(transforms), 3, 4, -1)


def _chunk_size(rest: Tensor) -> int:
    return CHUNK if rest.device.type == "cpu" else max(len(rest), 1)


def _chunks(rest: Tensor) -> list[slice]:
    step = _chunk_size(rest)
    return [slice(start, start + step) for start in range(0, len(rest), step)]
