"""smplx's MANO layer with our layer's inputs and outputs, for recipes with `hand.layer: smplx`.

The same hands to 1e-6 m, two to four times as slow (`benchmarks/mano_layer.py`): for those who want smplx's code in a
result, and for `maskhand doctor`, which compares the two on the hand model in use.
"""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
import torch
from smplx import MANOLayer
from smplx.utils import Struct
from torch import Tensor

from maskhand.hand.layer import HandMesh, ManoLayer
from maskhand.hand.model_file import HandModel


class SmplxLayer(ManoLayer):
    """A ManoLayer whose vertices and joints are computed by smplx; no parameters and no state either."""

    def __init__(self, model: HandModel, fingertip_vertices: str = "smplx") -> None:
        super().__init__(model, fingertip_vertices)
        self.theirs = smplx_layer(model)
        for module in self.theirs.modules():
            for name, value in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, value, persistent=False)  # weights of a network fit either layer

    def forward(self, rotmats: Tensor, betas: Tensor, transl_m: Tensor | None = None) -> HandMesh:
        out = self.theirs(betas=betas, global_orient=rotmats[:, :1], hand_pose=rotmats[:, 1:], transl=transl_m)
        joints21 = torch.cat([out.joints[:, :16], out.vertices[:, self.tip_ids]], dim=1)[:, self.openpose_order]
        return HandMesh(out.vertices, joints21)


def smplx_layer(model: HandModel) -> MANOLayer:
    """smplx's layer of a hand model that our reader has read: theirs needs chumpy for the licensed files."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):  # it prints that ten betas are few
        warnings.simplefilter("ignore")
        return MANOLayer("", data_struct=smplx_fields(model), is_rhand=model.side == "right", create_body_pose=False)


def smplx_fields(model: HandModel) -> Struct:
    """The hand model under the names of MANO's own files, as smplx takes it."""
    return Struct(
        v_template=model.v_template_m,
        f=model.faces,
        weights=model.weights,
        J_regressor=model.j_regressor,
        kintree_table=np.stack([np.where(model.parents < 0, 2**32 - 1, model.parents), np.arange(16)]),
        shapedirs=model.shapedirs,
        posedirs=model.posedirs,
        hands_mean=model.hands_mean_aa.ravel(),
        hands_components=model.hands_components,
    )
