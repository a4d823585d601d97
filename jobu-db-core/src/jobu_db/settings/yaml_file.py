"""Reading a YAML file as plain data, safely: the file may be broken, or hostile.

Nothing of the file's text appears in an error, for any of it may be a secret.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from jobu_db.errors import ConfigurationError
from jobu_db.settings.files import UnusableFileError, read_file
from jobu_db.settings.messages import tell

_MOST_VALUES = 10_000
_DEEPEST = 20

_YAML = "tag:yaml.org,2002:"
_MERGE = f"{_YAML}merge"
# Data as JSON has it: what YAML would read as a date is text.
_TEXTS = {f"{_YAML}{kind}" for kind in ("str", "timestamp", "value", "merge")}
# What PyYAML puts in quotes and is certainly no part of a secret: one character, and kinds of
# tokens such as <block end>.
_HARMLESS = re.compile(r"\\?.|<[a-z ]+>")
_OTHER_SCALARS = {f"{_YAML}{kind}" for kind in ("null", "bool", "int", "float")}


def read_yaml(path: Path) -> Any:
    """Return the file's mappings, lists and scalars, a tree even where the file used aliases.

    Raises:
        ConfigurationError: With all problems, each with the file and, where known, the line.
    """
    source = str(path)
    root = _compose(source, _read_text(source, path))
    if root is None:
        raise ConfigurationError(f"{source}: is empty; it needs a mapping `databases:`")
    builder = _Builder(source)
    data = builder.build(root, ())
    if builder.problems:
        raise ConfigurationError(builder.problems)
    return data


def _read_text(source: str, path: Path) -> str:
    try:
        content, _ = read_file(path)
    except UnusableFileError as error:
        raise ConfigurationError(f"{source}: {error}") from error.__cause__
    try:
        return content.decode("utf-8-sig")  # editors on Windows begin a file with a BOM
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
    raise ConfigurationError(f"{source}: line {number}: is not UTF-8 text; save it as UTF-8")


class _TooDeepError(Exception):
    pass


class _Loader(yaml.SafeLoader):
    """Stops at a node that is nested too deep: the time that PyYAML takes to read what is left
    open grows with the square of its depth."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self._depth > _DEEPEST:
            raise _TooDeepError
        # Not undone where it raises: the loader is of no further use then.
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _compose(source: str, text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except _TooDeepError:
        message = f"is nested more than {_DEEPEST} deep"
    except yaml.MarkedYAMLError as error:
        message = f"{_place(error.problem_mark)}is not valid YAML: {_safe(error)}"
    except yaml.reader.ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        message = f"line {number}: contains a character that YAML does not allow"
    except (OverflowError, ValueError):  # PyYAML does not check an escape such as "\\UFFFFFFFF".
        message = "contains an escape of a character that does not exist"
    # Not as the cause: YAML's own error quotes the file.
    raise ConfigurationError(f"{source}: {message}")


def _place(mark: yaml.Mark | None) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _safe(error: yaml.MarkedYAMLError) -> str:
    """Take quoted text out, unless it is one character or a kind of token."""
    told = ", ".join(filter(None, (error.context, error.problem)))
    text = re.sub(
        "'([^']*)'", lambda match: match[0] if _HARMLESS.fullmatch(match[1]) else "…", told
    )
    return f"{text}; text that begins with & * ! or the like needs quotes" if "…" in text else text


class _Builder:
    """Turns YAML's graph of nodes into a tree, within limits, and collects the problems.

    A tree is what aliases become when written out: nine lines of aliases to aliases would be a
    billion values, and an alias inside its own anchor never ends.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[str] = []
        self._left = _MOST_VALUES

    def build(self, node: yaml.Node, path: tuple[object, ...]) -> Any:
        self._left -= 1
        if self._left < 0 or len(path) > _DEEPEST:
            limit = f"{_MOST_VALUES:,} values" if self._left < 0 else f"{_DEEPEST} levels"
            raise ConfigurationError(f"{self.source}: holds more than {limit}, aliases written out")
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_YAML}map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_YAML}seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _TEXTS:
            return node.value
        if isinstance(node, yaml.ScalarNode) and node.tag in _OTHER_SCALARS:
            return self._scalar(node, path)
        return self._refuse(
            node, path, "tags are not allowed; text that begins with ! needs quotes"
        )

    def _mapping(self, node: yaml.MappingNode, path: tuple[object, ...]) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged = self._merge(value_node, path) | merged
                continue
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _TEXTS:
                self._refuse(key_node, path, "a key is not text; put it in quotes")
                continue
            key = key_node.value
            # PyYAML itself takes the last one, without a word.
            if key in own:
                first = f"first on line {lines[key]}"
                self._refuse(key_node, (*path, key), f"is given twice, {first}; keep one")
            own[key] = self.build(value_node, (*path, key))
            lines.setdefault(key, key_node.start_mark.line + 1)
        # A key of its own wins, wherever << stands: so the merge type of YAML 1.1 has it.
        return merged | own

    def _merge(self, node: yaml.Node, path: tuple[object, ...]) -> dict[str, Any]:
        """Return what `<<: *anchor` or `<<: [*first, *second]` brings in; the first one wins."""
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for each in nodes:
            value = self.build(each, (*path, "<<"))
            if isinstance(value, dict):
                merged = value | merged
            else:
                self._refuse(each, path, "<< takes a mapping or a list of mappings")
        return merged

    def _scalar(self, node: yaml.ScalarNode, path: tuple[object, ...]) -> Any:
        try:
            # YAML decides by a pattern what is a number: 0x_ fits that of a hexadecimal one.
            # `!!bool x` is looked up in a table.
            return yaml.constructor.SafeConstructor().construct_object(node)
        except (ArithmeticError, LookupError, ValueError):
            return self._refuse(node, path, "is not the number or boolean that it looks like")

    def _refuse(self, node: yaml.Node, path: tuple[object, ...], message: str) -> None:
        place = f"{self.source}: line {node.start_mark.line + 1}"
        self.problems.append(tell(place, path, message))
