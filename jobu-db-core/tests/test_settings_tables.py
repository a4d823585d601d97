"""The tables of settings in the READMEs are what the models say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", TOP / ".ci" / "settings_tables.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_up_to_date(tables: ModuleType) -> None:
    for page in tables.PAGES:
        text = page.read_text("utf-8")
        assert tables.page_with_tables(text) == text, f"{page}: run `make tables`"


def test_every_model_has_its_table(tables: ModuleType) -> None:
    pages = "".join(page.read_text("utf-8") for page in tables.PAGES)
    for name in tables.MODELS:
        assert pages.count(f"<!-- settings of {name} -->\n") == 1


def test_every_setting_says_what_it_means(tables: ModuleType) -> None:
    for model in tables.MODELS.values():
        for row in tables.table(model).splitlines():
            assert not row.endswith("|  |"), row
