"""Every mutant still applies: one whose place is gone would be missed only by who runs them all."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest


def test_what_each_mutant_replaces_occurs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    targets = importlib.import_module("run").TARGETS
    found = {
        mutant.name: (target.package / mutant.file).read_text("utf-8").count(mutant.old)
        for target in targets
        for mutant in target.mutants
    }
    assert len(found) > 30
    assert {name: count for name, count in found.items() if count != 1} == {}
