"""Documents that code, documents and cards cite are here, with the section that is named."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from maskhand.adapters import LAYOUTS

ROOT = Path(__file__).parents[2]
TEXTS = (".py", ".md", ".yaml", ".yml", ".toml", ".txt")
CITED = re.compile(r"\b(docs/\w+\.md)(?:#([\w-]+))?")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def _texts() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in map(ROOT.joinpath, listed.splitlines()) if path.suffix in TEXTS and path.is_file()]


def anchors(document: Path) -> set[str]:
    """Anchors of a document's headings, made as forges and the site make them; code blocks hold no headings."""
    prose = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _citations(path: Path) -> Iterator[tuple[str, Path, str]]:
    """(what is written, the file that it means, the section or '') of every citation in a text."""
    text = path.read_text()
    for match in CITED.finditer(text):
        yield match[0], ROOT / match[1], match[2] or ""
    if path.suffix == ".md":
        for match in LINK.finditer(text):
            yield match[0], path.parent / match[1] if match[1] else path, match[2] or ""


def test_cited_documents_and_sections_exist() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {written}"
        for path in _texts()
        for written, document, section in _citations(path)
        if not document.exists() or (section and section not in anchors(document))
    ]
    assert missing == []


def test_every_reader_of_a_published_layout_names_the_facts_it_relies_on() -> None:
    described_in_itself = {"photos"}  # a layout of this project
    modules = {sys.modules[layout.__module__] for name, layout in LAYOUTS.items() if name not in described_in_itself}
    assert [module.__name__ for module in modules if "docs/formats.md#" not in (module.__doc__ or "")] == []
