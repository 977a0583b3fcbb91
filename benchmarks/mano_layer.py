"""MANO layer, forward and backward, against smplx's MANOLayer: `OMP_NUM_THREADS=1 python benchmarks/mano_layer.py`.

Both get rotation matrices and betas that want gradients, and the gradient of the same sum of squares.
"""

from __future__ import annotations

import torch
from measure import machine, seconds

from maskhand.hand.layer import ManoLayer
from maskhand.hand.model_file import default_hand_path, load_hand_model
from maskhand.hand.rotations import random_rotations
from maskhand.hand.smplx_layer import smplx_layer


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_hand_model(default_hand_path("right"))
    theirs, ours = smplx_layer(model).to(device), ManoLayer(model).to(device)
    print(f"{machine()}; median")
    for batch in (48, 1024):
        rotmats = random_rotations(batch * 16).view(batch, 16, 3, 3).to(device).requires_grad_()
        betas = torch.randn(batch, 10, device=device, requires_grad=True)

        def by_smplx(rotmats: torch.Tensor = rotmats, betas: torch.Tensor = betas) -> torch.Tensor:
            hand = theirs(betas=betas, global_orient=rotmats[:, :1], hand_pose=rotmats[:, 1:])
            (hand.vertices.square().sum() + hand.joints.square().sum()).backward()
            return hand.vertices

        def by_us(rotmats: torch.Tensor = rotmats, betas: torch.Tensor = betas) -> torch.Tensor:
            hand = ours(rotmats, betas)
            (hand.vertices_m.square().sum() + hand.joints_m.square().sum()).backward()
            return hand.vertices_m

        apart_m = (by_smplx() - by_us()).abs().max().item()
        taken = seconds({"smplx": by_smplx, "maskhand": by_us}, repeats=200 if batch < 100 else 10, warmup=2)
        print(
            f"batch {batch}: smplx {1e3 * taken['smplx']:.2f} ms, maskhand {1e3 * taken['maskhand']:.2f} ms, "
            f"{taken['smplx'] / taken['maskhand']:.2f}x; vertices at most {apart_m:.1e} m apart"
        )


if __name__ == "__main__":
    main()
