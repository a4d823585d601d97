"""The site without MkDocs: every page can be put together, and its links lead somewhere."""

from __future__ import annotations

import importlib.util
import posixpath
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import jobu_db

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", TOP / ".ci" / "site_pages.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def headings(pages: ModuleType, text: str) -> set[str]:
    found = set()
    for line, prose in pages.lines_outside_code(text):
        if prose and (match := pages.HEADING.match(line)):
            found.add(pages.slug(match[2]))
    return found


def test_every_link_of_every_page_leads_to_a_heading(pages: ModuleType) -> None:
    site = pages.read_site()
    texts = {name: pages.rendered(site, name)[0] for name in site.pages}
    for name, text in texts.items():
        prose = "\n".join(line for line, is_prose in pages.lines_outside_code(text) if is_prose)
        for match in pages.LINK.finditer(prose):
            if match["code"] or "://" in match["to"]:
                continue
            page, _, anchor = match["to"].partition("#")
            if page.endswith(".md") or not page:
                folder = posixpath.dirname(name)
                there = texts[posixpath.normpath(posixpath.join(folder, page)) if page else name]
                assert not anchor or anchor in headings(pages, there), (name, match["to"])
            else:
                place = posixpath.normpath(posixpath.join(posixpath.dirname(name), page))
                assert place.startswith("files/") or (TOP / "docs" / place).is_file(), (name, page)


def test_a_page_is_in_the_navigation(pages: ModuleType) -> None:
    text = (TOP / "mkdocs.yml").read_text("utf-8")
    nav = yaml.safe_load(text[text.index("\nnav:") :])["nav"]  # ahead of it are tags of MkDocs
    listed = set(re.findall(r"'(\S+\.md)'", repr(nav)))
    assert listed == set(pages.read_site().pages)


def test_a_section_stands_below_the_heading_of_its_page(pages: ModuleType) -> None:
    page = "docs/pool.md"
    text = pages.section_of(page, "the-pool", False, 1)
    assert "\n## Silence\n" in text
    assert "# The pool" not in text
    assert "Silence" not in pages.section_of(page, "the-pool", True, 1)
    inner = pages.section_of(page, "silence", False, 2)
    assert "TCP_INFO" in inner
    assert "Why a connection" not in inner
    with pytest.raises(LookupError, match="has no heading #nowhere"):
        pages.section_of(page, "nowhere", False, 1)


def test_the_columns_of_a_docstring_are_lists(
    pages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """What it is.

    `one`        the first, which
                 goes on
    `two`, `six`  others
    And then.

    Invariants:
        It holds,
        always.
        It ends.
    """
    (tmp_path / "module.py").write_text(f'"""{text}"""', "utf-8")
    monkeypatch.setattr(pages, "TOP", tmp_path)
    assert re.sub("\n+", "\n", pages.docstring_of("module.py")).splitlines() == [
        "What it is.",
        "- `one`: the first, which goes on",
        "- `two`, `six`: others",
        "And then.",
        "Invariants:",
        "- It holds, always.",
        "- It ends.",
    ]


def test_the_texts_of_modules_stand_on_the_page_about_the_inside(pages: ModuleType) -> None:
    text, _ = pages.rendered(pages.read_site(), "inside.md")
    assert "<!-- docstring -->" not in text
    assert "\n- order: Waiters are granted first come, first served" in text


def test_code_stands_on_a_page_as_it_is_in_the_file(pages: ModuleType) -> None:
    site = pages.read_site()
    source = (TOP / "docs" / "pool.md").read_text("utf-8")
    code = re.findall(r"^```python\n.*?^```$", source, re.MULTILINE | re.DOTALL)
    assert len(code) > 1
    for block in code:
        assert block in pages.rendered(site, "pool.md")[0]


def test_a_link_that_leads_nowhere_is_refused(pages: ModuleType) -> None:
    piece = pages.Piece("docs/x.md", "`[code](nowhere.md)` [text](nowhere.md)")
    site = pages.Site({"x.md": [piece]}, {}, {})
    with pytest.raises(LookupError, match=r"docs/x\.md: \(nowhere\.md\) leads nowhere"):
        pages.rendered(site, "x.md")


def test_the_chart_shows_the_figures_of_the_tables(pages: ModuleType) -> None:
    text = pages.rendered(pages.read_site(), "performance.md")[0]
    drawing = text[text.index("<svg") : text.rindex("</svg>")]
    tables = re.findall(r"^\| \| a µs.*\n\|.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert len(tables) >= 3
    for row in re.findall(
        r"^\| \*{0,2}([^|]+?)\*{0,2} \| ([\d.,]+) \|", "".join(tables), re.MULTILINE
    ):
        assert f">{row[0]}<" in drawing
        assert f">{float(row[1].replace(',', '')):g} µs<" in drawing
    with pytest.raises(LookupError, match="no table of figures"):
        pages.svg("nothing")


def test_the_chart_has_a_panel_for_each_way_to_measure(pages: ModuleType) -> None:
    table = "**SQL 1**\n\n| | a µs | j ms |\n|---|---:|---:|\n| us | {} | 7 |\n| it | wrong | 8 |\n"
    page = f"### Here\n\n{table.format('12.3')}\n### <There>\n\n{table.format('1,234')}"
    here, there = pages.svg(page).split("</svg><svg")
    assert ">Here<" in here
    assert ">12.3 µs<" in here
    assert ">&lt;There&gt;<" in there
    assert ">1234 µs<" in there
    assert "it<" not in here + there


def test_the_reference_names_all_that_a_program_uses() -> None:
    text = (TOP / "docs" / "api.md").read_text("utf-8")
    shown = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert "`@hookimpl`" in text
    of_its_own = {"events", "hookimpl"}  # a module, and a marker: what is in them is shown
    for name in (each for each in set(jobu_db.__all__) - of_its_own if not each.startswith("_")):
        home = getattr(jobu_db, name).__module__
        assert f"{home}.{name}" in shown or home in shown, name
