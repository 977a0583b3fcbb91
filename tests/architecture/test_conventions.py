"""Orders of fingers and joints are written down in maskhand/conventions.py and nowhere else."""

from __future__ import annotations

import ast
from pathlib import Path

from maskhand.conventions import FINGERS, FINGERTIPS

PACKAGE = Path(__file__).parents[2] / "maskhand"


def _is_order(values: list[object]) -> bool:
    """All fingers by name, the tips, or a permutation of the joints."""
    return set(values) in (set(FINGERS), set(range(21))) or tuple(values) == FINGERTIPS


def test_no_other_module_lists_fingers_or_joints() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Tuple | ast.List)
        and _is_order([child.value if isinstance(child, ast.Constant) else None for child in node.elts])
        and path.name != "conventions.py"
    ]
    assert found == []
