"""What rows of the paper's tables report: one function for each word that a row's `measure` may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from maskhand.paper.measures.generation import measure_generation, measure_pca
from maskhand.paper.measures.hands import measure_hands
from maskhand.paper.measures.hypotheses import measure_hypotheses
from maskhand.paper.measures.request import Request
from maskhand.paper.measures.speed import measure_seconds
from maskhand.paper.measures.text_to_mesh import measure_text_to_mesh
from maskhand.paper.measures.tokenizer import measure_tokenizer

MEASURES: Mapping[str, Callable[[Request], dict[str, float]]] = {
    "hands": measure_hands,
    "pck": measure_hands,
    "tokenizer": measure_tokenizer,
    "seconds": measure_seconds,
    "generation": measure_generation,
    "pca": measure_pca,
    "text": measure_text_to_mesh,
    "hypotheses": measure_hypotheses,
}
