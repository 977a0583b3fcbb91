"""datasets/ is a catalog. As a Python package it would shadow, or be shadowed by, Hugging Face's `datasets`."""

from __future__ import annotations

from pathlib import Path

import yaml

CATALOG = Path(__file__).parents[2] / "datasets"


def test_no_python_in_the_catalog() -> None:
    assert [p for p in CATALOG.rglob("*") if p.suffix in (".py", ".pyi", ".pyc", ".so")] == []


def test_every_folder_has_a_card_that_names_it() -> None:
    folders = [p for p in CATALOG.iterdir() if p.is_dir() and p.name != "mixtures"]
    assert folders
    for folder in folders:
        assert yaml.safe_load((folder / "card.yaml").read_text())["name"] == folder.name


def test_no_image_of_a_data_set_is_shipped() -> None:
    images = [p for p in CATALOG.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".npz", ".pkl", ".tar")]
    assert images == []
