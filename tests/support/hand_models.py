"""Well-formed random hand models, for tests that must not depend on any particular hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskhand.conventions import MANO_16_PARENTS
from maskhand.hand.model_file import HandModel


def random_fields(seed: int = 0) -> dict[str, Any]:
    """A dictionary in MANO's pickle form: random, but its weights and regressor are those of a hand-like body."""
    rng = np.random.default_rng(seed)
    v_template, faces = _surface(rng)
    weights = rng.random((778, 16)) ** 8
    regressor = rng.random((16, 778)) ** 20
    kintree = np.array([[2**32 - 1, *MANO_16_PARENTS[1:]], range(16)], dtype=np.uint32)
    return {
        "v_template": v_template,
        "f": faces.astype(np.uint32),
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


def _surface(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(778, 3) vertices and (1538, 3) faces of a bumpy finger along -x, as a right hand's, open at the wrist."""
    rings, around = 48, 16
    along, angle = np.divmod(np.arange(rings * around), around)
    angle = 2 * np.pi * angle / around
    tube = np.stack([0.1 - 0.2 * along / rings, 0.04 * np.cos(angle), 0.03 * np.sin(angle)], axis=1)
    vertices = [*(tube + rng.normal(0.0, 0.002, tube.shape)), np.array([-0.11, 0.0, 0.0])]
    faces = []
    for start in range(0, rings * around, around):
        for k in range(around):
            a, b = start + k, start + (k + 1) % around
            faces += (
                [[a, a + around, b], [b, a + around, b + around]] if start + around < len(tube) else [[a, len(tube), b]]
            )
    for face in range(778 - len(vertices)):  # a new vertex in the middle makes three faces of one
        a, b, c = faces[face]
        middle = len(vertices)
        vertices.append((vertices[a] + vertices[b] + vertices[c]) / 3)
        faces[face] = [a, b, middle]
        faces += [[b, c, middle], [c, a, middle]]
    return np.array(vertices), np.array(faces)


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
