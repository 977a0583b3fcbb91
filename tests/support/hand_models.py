"""Well-formed random hand models, for tests that must not depend on any particular hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskhand.conventions import MANO_16_PARENTS
from maskhand.hand.model_file import HandModel


def random_fields(seed: int = 0) -> dict[str, Any]:
    """A dictionary in MANO's pickle form: random, but its weights and regressor are those of a hand-like body."""
    rng = np.random.default_rng(seed)
    v_template = rng.normal(0.0, 0.03, (778, 3))
    v_template[[320, 443, 554, 671], 0] -= 0.2  # the fingers of a right hand point along -x
    weights = rng.random((778, 16)) ** 8
    regressor = rng.random((16, 778)) ** 20
    kintree = np.array([[2**32 - 1, *MANO_16_PARENTS[1:]], range(16)], dtype=np.uint32)
    return {
        "v_template": v_template,
        "f": rng.integers(0, 778, (1538, 3)).astype(np.uint32),
        "weights": weights / weights.sum(1, keepdims=True),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "kintree_table": kintree,
        "shapedirs": rng.normal(0.0, 0.003, (778, 3, 10)),
        "posedirs": rng.normal(0.0, 0.001, (778, 3, 135)),
        "hands_mean": rng.normal(0.0, 0.3, 45),
        "hands_components": np.linalg.qr(rng.normal(size=(45, 45)))[0],
        "hands_coeffs": rng.normal(0.0, 0.5, (30, 45)),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def random_model(seed: int = 0) -> HandModel:
    """The same as a HandModel."""
    fields = random_fields(seed)
    return HandModel(
        side="right",
        v_template_m=fields["v_template"],
        faces=fields["f"].astype(np.int64),
        weights=fields["weights"],
        j_regressor=fields["J_regressor"],
        parents=np.array(MANO_16_PARENTS),
        shapedirs=fields["shapedirs"],
        posedirs=fields["posedirs"],
        hands_mean_aa=fields["hands_mean"].reshape(15, 3),
        hands_components=fields["hands_components"],
        hands_std=fields["hands_coeffs"].std(0),
        digest=f"random{seed:06d}",
    )
