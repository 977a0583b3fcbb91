"""Documents that code, documents and cards cite are here, with the section that is named."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from maskhand import __version__
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


def test_files_that_texts_name_exist() -> None:
    ours = r"`((?:maskhand|pipelines|tests|benchmarks|tools|examples|infra)/[\w./-]+\.\w+)"
    named = {(p, name) for p in _texts() for name in re.findall(ours, p.read_text())}
    assert [f"{p.relative_to(ROOT)}: {name}" for p, name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_tour_stops_where_it_says() -> None:
    """A stop names a file and what to look for in it; no walk has more than twelve."""
    walks = (ROOT / "docs" / "tour.md").read_text().split("\n## ")[1:]
    assert len(walks) == 3
    for walk in walks:
        stops = re.findall(r"^\d+\. `([^`]+)`, `([^`]+)`:", walk, flags=re.MULTILINE)
        assert 8 <= len(stops) <= 12 and len(stops) == len(re.findall(r"^\d+\. ", walk, flags=re.MULTILINE))
        defined = r"^\s*(?:class |def )?{}\b(?:[(:]| =|: )"
        missing = [s for s in stops if not re.search(defined.format(s[1]), (ROOT / s[0]).read_text(), re.MULTILINE)]
        assert missing == []


def test_every_reader_of_a_published_layout_names_the_facts_it_relies_on() -> None:
    described_in_itself = {"photos"}  # a layout of this project
    modules = {sys.modules[layout.__module__] for name, layout in LAYOUTS.items() if name not in described_in_itself}
    assert [module.__name__ for module in modules if "docs/formats.md#" not in (module.__doc__ or "")] == []


def test_changelog_and_citation_are_of_this_version() -> None:
    newest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[0]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == newest == __version__


def test_the_workflow_runs_targets_of_the_makefile() -> None:
    (job,) = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"].values()
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"lint", "test-fast", "test"} <= set(job["strategy"]["matrix"]["target"]) <= targets


@pytest.mark.slow
def test_the_site_is_built_with_pages_of_the_sources(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    page = (tmp_path / "api" / "index.html").read_text()
    assert "maskhand.sample.HandSample" in page and "left hands stay left here" in page.lower()
    listed = (ROOT / "mkdocs.yml").read_text()
    assert [path.name for path in (ROOT / "docs").glob("*.md") if path.name not in listed] == []
