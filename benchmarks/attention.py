"""The encoder's attention by PyTorch's fused kernel against the explicit softmax of HaMeR's and ViTPose's encoders.

    python benchmarks/attention.py

One ViT-H attention on a 256 x 192 image (192 tokens, 16 heads of 80), forward and backward.
"""

from __future__ import annotations

import torch
from measure import machine, seconds
from torch.nn import functional as F


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    print(f"{dtype}; {machine()}")
    for batch in (1, 48 if device == "cuda" else 8):
        q, k, v = (torch.randn(batch, 16, 192, 80, device=device, dtype=dtype, requires_grad=True) for _ in range(3))

        def fused(q=q, k=k, v=v) -> None:
            F.scaled_dot_product_attention(q, k, v).square().sum().backward()

        def explicit(q=q, k=k, v=v) -> None:
            ((q @ k.transpose(-1, -2) * 80**-0.5).softmax(-1) @ v).square().sum().backward()

        taken = seconds({"fused": fused, "explicit": explicit}, repeats=20, warmup=3)
        print(
            f"batch {batch}: fused {1e3 * taken['fused']:.2f} ms, explicit {1e3 * taken['explicit']:.2f} ms, "
            f"{taken['explicit'] / taken['fused']:.2f}x"
        )


if __name__ == "__main__":
    main()
