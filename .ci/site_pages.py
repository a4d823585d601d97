"""What the site is made of besides `docs/`: a hook of MkDocs, see `mkdocs.yml`.

Nothing is written twice. A page says with one line that a section of another file stands here:

    [Transactions, in the README](../README.md#transactions) <!-- include -->

and on the site the section stands there, without its own heading; `<!-- include lead -->` takes
only what stands before the section's first heading. Elsewhere the line is a link that works, and so
is one that asks for the text at the top of a module:

    [`pool/state.py`](../jobu-db-core/src/jobu_db/pool/state.py) <!-- docstring -->

Whole files become pages by `WHOLE`. Where a page says `<!-- chart -->`, there is the chart of the
benchmarks' figures.

Links are written as they work in the repository. On the site they lead to the page that the file,
or the section, is on; a file that is no page is copied under `files/`. A link that leads nowhere is
an error, and so is a page that fetches anything from another site.
"""

from __future__ import annotations

import ast
import posixpath
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / ".ci"))
from figures_chart import svg  # noqa: E402  (beside this file, which is loaded by its path)

FIGURES = TOP / "jobu-db-core" / "benchmarks" / "README.md"
DOCS = "docs"
WHOLE = {
    "jobu-db-sqlite/README.md": "sqlite.md",
    "jobu-db-postgres/README.md": "postgres.md",
    "jobu-db-mysql/README.md": "mysql.md",
    "jobu-db-core/docs/write-a-backend.md": "write-a-backend.md",
    "examples/shop/README.md": "example-service.md",
    "README.ko.md": "ko.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files of the repository that are pages as they are."""
HOME = {
    "README.md": "index.md",
    "jobu-db-core/README.md": "configuration.md",
    "jobu-db-core/benchmarks/README.md": "performance.md",
}
"""Where a link to the whole of a file leads that is on the site in pieces."""

INCLUDE = re.compile(r"^\[[^\]]*\]\(([^)#]+)#([^)]+)\) <!-- include( lead)? -->$")
DOCSTRING = re.compile(r"^\[[^\]]*\]\(([^)]+\.py)\) <!-- docstring -->$")
ENTRY = re.compile(r"(`\w+`(?:, `\w+`)*|\w+)  +(\S.*)")
"""A line of a docstring that says in two columns what something is."""
HEADING = re.compile(r"^(#+) +(.*?) *$")
LINK = re.compile(
    r"(?P<code>(`+)(?!`).+?(?<!`)\2(?!`))|\[(?P<text>[^\[\]]*)\]\((?P<to>[^)\s]+)\)", re.S
)
FETCH = re.compile(
    r"<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>"
)


class Piece(NamedTuple):
    """A part of a page, and the file whose links it holds."""

    source: str
    text: str


class Site(NamedTuple):
    """The pages, and where things are.

    Attributes:
        pages: The pieces of each page, by its name on the site.
        names: The page that stands for a file of the repository.
        sections: The page and the anchor of an included section and of the headings in it.
    """

    pages: dict[str, list[Piece]]
    names: dict[str, str]
    sections: dict[tuple[str, str], tuple[str, str]]


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and `slugify_unicode` of Markdown make it."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def lines_outside_code(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each line, and whether it is prose; a block of code is none."""
    fence = ""
    for line in text.splitlines():
        mark = re.match(r" *(```+)", line)
        if fence:
            yield line, False
            if mark and mark[1] == fence:
                fence = ""
        else:
            fence = mark[1] if mark else ""
            yield line, not fence


def section_of(source: str, anchor: str, lead: bool, level: int) -> str:
    """Return a section of a file without its heading, as it stands below a heading of `level`.

    Raises:
        LookupError: The file has no such heading.
    """
    found, taken = 0, []
    for line, prose in lines_outside_code((TOP / source).read_text("utf-8")):
        heading = HEADING.match(line) if prose else None
        if not found:
            if heading and slug(heading[2]) == anchor:
                found = len(heading[1])
        elif heading and (lead or len(heading[1]) <= found):
            break
        elif heading:
            taken.append(f"{'#' * (len(heading[1]) - found + level)} {heading[2]}")
        else:
            taken.append(line)
    if not found:
        raise LookupError(f"{source} has no heading #{anchor}")
    return "\n".join(taken).strip() + "\n"


def docstring_of(source: str) -> str:
    """Return the text at the top of a module, in Markdown: its columns as lists."""
    text = ast.get_docstring(ast.parse((TOP / source).read_text("utf-8"))) or ""
    lines, inside = [""], ""
    for line in text.splitlines():
        entry = ENTRY.fullmatch(line)
        told = line.strip()
        goes_on = inside == "columns" or not lines[-1].endswith(".")
        if line.startswith("    ") and inside and goes_on:
            lines[-1] += f" {told}"
        elif entry or line.startswith("    "):
            lines += [] if inside else [""]
            lines.append(f"- {entry[1]}: {entry[2]}" if entry else f"- {told}")
            inside = "columns" if entry else "sentences"
        else:
            lines += ["", line] if inside else [line]
            inside = ""
    return "\n".join(lines).strip() + "\n"


def read_site() -> Site:
    """Read all pages.

    Raises:
        LookupError: An included section does not exist.
    """
    own = {
        path.relative_to(TOP).as_posix(): path.relative_to(TOP / DOCS).as_posix()
        for path in sorted((TOP / DOCS).rglob("*.md"))
    }
    site = Site({}, {**HOME, **WHOLE, **own}, {})
    for source, name in {**WHOLE, **own}.items():
        site.pages[name] = _pieces(site, source, name)
    return site


def _pieces(site: Site, source: str, name: str) -> list[Piece]:
    pieces: list[Piece] = []
    level, taken = 1, list[str]()
    for line, prose in lines_outside_code((TOP / source).read_text("utf-8")):
        include = INCLUDE.match(line) if prose else None
        heading = HEADING.match(line) if prose else None
        level = len(heading[1]) if heading else level
        if prose and line == "<!-- chart -->":
            line = svg(FIGURES.read_text("utf-8"))
        if prose and (module := DOCSTRING.match(line)):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(source), module[1]))
            line = docstring_of(path)
        if not include:
            taken.append(line)
            continue
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), include[1]))
        text = section_of(path, include[2], bool(include[3]), level)
        pieces += [Piece(source, "\n".join(taken) + "\n"), Piece(path, text)]
        site.sections[path, include[2]] = (name, "")
        for below, is_prose in lines_outside_code(text):
            inner = HEADING.match(below) if is_prose else None
            if inner:
                site.sections.setdefault((path, slug(inner[2])), (name, slug(inner[2])))
        taken = []
    return [*pieces, Piece(source, "\n".join(taken) + "\n")]


def rendered(site: Site, name: str) -> tuple[str, set[str]]:
    """Return a page with links as they are on the site, and the files to be copied.

    Raises:
        LookupError: A link leads nowhere.
    """
    files: set[str] = set()

    def on_site(source: str, to: str) -> str | None:
        path, _, anchor = to.partition("#")
        folder = posixpath.dirname(source)
        target = posixpath.normpath(posixpath.join(folder, path)) if path else source
        if (target, anchor) in site.sections:
            page, anchor = site.sections[target, anchor]
        elif target in site.names:
            page = site.names[target]
        elif (TOP / target).is_file():
            page, anchor = f"files/{target}", ""
            files.add(target)
        elif (TOP / target).is_dir():
            return None
        elif source.startswith(f"{DOCS}/") and (TOP / target).exists():
            page = target.removeprefix(f"{DOCS}/")
        else:
            raise LookupError(f"{source}: ({to}) leads nowhere")
        here = posixpath.dirname(name) or "."
        page = posixpath.relpath(page, here) if page != name or not anchor else ""
        return page + (f"#{anchor}" if anchor else "")

    def link(source: str, match: re.Match[str]) -> str:
        to = match["to"]
        if match["code"] or "://" in to:
            return match[0]
        there = on_site(source, to)
        text = match["text"]
        return f"[{text}]({there})" if there is not None else text

    def prose(piece: Piece) -> Iterator[str]:
        for is_prose, lines in groupby(lines_outside_code(piece.text), key=lambda line: line[1]):
            text = "\n".join(line for line, _ in lines)
            yield LINK.sub(lambda match: link(piece.source, match), text) if is_prose else text

    return "\n".join(line for piece in site.pages[name] for line in prose(piece)) + "\n", files


# -- what MkDocs calls


def on_files(files: Any, config: Any) -> Any:
    """Put the pages, and the files that they link to, in place of what MkDocs found."""
    from mkdocs.exceptions import PluginError
    from mkdocs.structure.files import File

    site = read_site()
    copied: set[str] = set()
    try:
        for name in site.pages:
            text, linked = rendered(site, name)
            copied |= linked
            if old := files.get_file_from_path(name):
                files.remove(old)
            files.append(File.generated(config, name, content=text))
    except LookupError as error:
        raise PluginError(str(error)) from error
    for path in sorted(copied):
        files.append(File.generated(config, f"files/{path}", abs_src_path=str(TOP / path)))
    return files


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that fetches anything from another site."""
    from mkdocs.exceptions import PluginError

    canonical = re.sub(r"<link[^>]*rel=\"?canonical\"?[^>]*>", "", output)
    if found := FETCH.search(canonical):
        raise PluginError(f"{page.file.src_uri} fetches from another site: {found[0]}")
    return output
