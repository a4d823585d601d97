"""Files that are broken, odd or hostile."""

from __future__ import annotations

import contextlib
import os
import socket
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobu_db.errors import ConfigurationError
from jobu_db.settings.yaml_file import read_yaml


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "database.yaml"


def read(file: Path, content: str | bytes) -> Any:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_yaml(file)


def problems(file: Path, content: str | bytes | None = None) -> list[str]:
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigurationError) as caught:
        read_yaml(file)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert all(line.startswith(f"{file}: ") for line in caught.value.problems)
    return [line.removeprefix(f"{file}: ") for line in caught.value.problems]


# -- what is read


def test_plain_data_is_read_as_yaml_means_it(file: Path) -> None:
    content = "a: [1, 2.5, yes, null, text, '5', off]\nb: {c: 2026-11-23, d: =, e: 0x10}\n"
    assert read(file, content) == {
        "a": [1, 2.5, True, None, "text", "5", False],
        "b": {"c": "2026-11-23", "d": "=", "e": 16},
    }


def test_a_byte_order_mark_is_no_text(file: Path) -> None:
    assert read(file, b"\xef\xbb\xbfa: 1") == {"a": 1}


def test_aliases_are_copies(file: Path) -> None:
    data = read(file, "x-pool: &pool {max: 5}\na: *pool\nb: *pool\n")
    assert data["a"] == data["b"] == {"max": 5}
    assert data["a"] is not data["b"]


def test_merge_keys_give_defaults(file: Path) -> None:
    content = """
x-a: &a {one: 1, two: 1}
x-b: &b {two: 2, three: 2}
single: {<<: *a, two: 0}
several: {three: 0, <<: [*b, *a]}
"""
    data = read(file, content)
    assert data["single"] == {"one": 1, "two": 0}
    assert data["several"] == {"one": 1, "two": 2, "three": 0}


# -- what is no file of ours


def test_a_missing_file_is_told(file: Path) -> None:
    assert problems(file) == ["there is no such file; give the path of one"]


def test_a_directory_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    assert problems(tmp_path) == ["is a directory; give the path of a file"]


def test_a_file_that_cannot_be_read_is_told(file: Path) -> None:
    file.symlink_to(file)  # root may read everything, but nobody a link to itself
    assert problems(file) == ["cannot be read: Too many levels of symbolic links"]
    with pytest.raises(ConfigurationError, match=r"cannot be read: .*embedded null"):
        read_yaml(Path("a\0b"))


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    """A FIFO would wait for a writer, and /dev/zero never ends."""
    told = ["is a pipe, socket or device; give the path of a regular file"]
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    for path in ("/dev/zero", "/dev/null", "fifo", "link", "socket"):
        assert problems(tmp_path / path) == told
    server.close()


def test_a_huge_file_is_not_read_to_the_end(file: Path) -> None:
    with file.open("wb") as content:
        content.truncate(10**13)  # sparse
    assert problems(file) == ["is larger than 1,000,000 bytes"]


def test_a_file_behind_a_link_is_read(file: Path, tmp_path: Path) -> None:
    file.write_text("a: 1")
    (tmp_path / "link").symlink_to(file)
    assert read_yaml(tmp_path / "link") == {"a": 1}


@pytest.mark.parametrize("content", ["", "\n \n", "# only this\n"])
def test_an_empty_file_is_told(file: Path, content: str) -> None:
    assert problems(file, content) == ["is empty; it needs a mapping `databases:`"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-32"])
def test_another_encoding_is_told_with_the_line(file: Path, encoding: str) -> None:
    told = problems(file, "a: 1\nb: hünter2\n".encode(encoding))
    line = 2 if encoding == "latin-1" else 1
    assert told == [f"line {line}: is not UTF-8 text; save it as UTF-8"]


# -- what is no YAML


@pytest.mark.parametrize(
    ("content", "place", "told"),
    [
        ("a: 1\nb: [1, 2\n", "3, column 1", "expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n\tb: 2\n", "2, column 1", "found character '\\t' that cannot start any token"),
        ("a: 1\npassword:hunter2\nb: 3\n", "3, column 1", "could not find expected ':'"),
        ("a: b: hunter2\n", "1, column 5", "mapping values are not allowed here"),
        ("password: *hunter2\n", "1, column 11", "found undefined alias …; text that begins"),
        ("password: %hunter2\n", "1, column 11", "found character '%' that cannot start"),
        ("password: !hunter2!x y\n", "1, column 11", "found undefined tag handle …; text"),
        ("a: 'hunter2\n", "2, column 1", "found unexpected end of stream"),
        ("b: &hunter2 1\nc: &hunter2 2\n", "2, column 4", "found duplicate anchor …; first"),
        ("a: 1\n---\nb: hunter2\n", "2, column 1", "but found another document"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_place_but_not_quoted(
    file: Path, content: str, place: str, told: str
) -> None:
    (line,) = problems(file, content)
    assert line.startswith(f"line {place}: is not valid YAML: ")
    assert told in line


def test_a_character_that_yaml_does_not_allow_is_told_with_its_line(file: Path) -> None:
    told = ["line 2: contains a character that YAML does not allow"]
    assert problems(file, "a: 1\nb: \x07hunter2\n") == told


@pytest.mark.parametrize("escape", ["\\UFFFFFFFF", "\\U00110000"])
def test_an_escape_of_no_character_is_told(file: Path, escape: str) -> None:
    told = ["contains an escape of a character that does not exist"]
    assert problems(file, f'password: "hunter2{escape}"') == told


@pytest.mark.parametrize(
    "content",
    ["{" * 5000, "[" * 5000, "a: " + "[" * 25 + "]" * 25],
    ids=["open mappings", "open lists", "closed lists"],
)
def test_what_is_nested_too_deep_is_refused(file: Path, content: str) -> None:
    (line,) = problems(file, content)
    assert "more than 20" in line


# -- what is YAML, but not for us


def test_a_key_given_twice_is_told_with_both_lines(file: Path) -> None:
    content = "databases:\n  one:\n    path: a\n    path: hunter2\n  one: 5\n"
    assert problems(file, content) == [
        "line 4: databases.one.path: is given twice, first on line 3; keep one",
        "line 5: databases.one: is given twice, first on line 2; keep one",
    ]


def test_all_problems_of_the_file_are_told_at_once(file: Path) -> None:
    content = "5: a\nb: !!python/name:os.system ''\nc: !hunter2 x\nd: !!int hunter2\n? [e]\n: f\n"
    tags = "tags are not allowed; text that begins with ! needs quotes"
    assert problems(file, content) == [
        "line 1: a key is not text; put it in quotes",
        f"line 2: b: {tags}",
        f"line 3: c: {tags}",
        "line 4: d: is not the number or boolean that it looks like",
        "line 5: a key is not text; put it in quotes",
    ]


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/object/new:os.system ['true']",
        "!!binary aHVudGVyMg==",
        "!!set {a}",
        "!!omap [a: 1]",
        "!!timestamp 2026-11-23",
        "!!int ''",
        "!!bool hunter2",
        "!!float hunter2",
        "!!map hunter2",
        "!!seq {a: 1}",
        "!!str [a]",
        f"{'9' * 5000}",
    ],
)
def test_only_json_like_values_are_let_in(file: Path, value: str) -> None:
    if "timestamp" in value:
        assert read(file, f"a: {value}") == {"a": "2026-11-23"}
    else:
        (line,) = problems(file, f"a: {value}")
        assert line.startswith("line 1: a: ")


@pytest.mark.parametrize(
    "key", ["1", "yes", "null", "1.5", "[a]", "{a: b}", "!!binary aa==", "!x y"]
)
def test_a_key_that_is_no_text_is_told(file: Path, key: str) -> None:
    (line,) = problems(file, f"a:\n  {key}: hunter2\n")
    assert line == "line 2: a: a key is not text; put it in quotes"


def test_a_merge_of_no_mapping_is_told(file: Path) -> None:
    (line,) = problems(file, "a:\n  <<: hunter2\n")
    assert line == "line 2: a: << takes a mapping or a list of mappings"


def test_a_large_file_is_no_bomb(file: Path) -> None:
    assert len(read(file, f"a: [{'1, ' * 9_990}]")["a"]) == 9_990


def test_a_bomb_of_aliases_is_refused(file: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 15)]
    assert problems(file, "\n".join(lines)) == [
        "holds more than 10,000 values, aliases written out"
    ]


def test_a_bomb_of_merges_is_refused(file: Path) -> None:
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 15)]
    assert problems(file, "\n".join(lines)) == [
        "holds more than 10,000 values, aliases written out"
    ]


@pytest.mark.parametrize("content", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {<<: *a}"])
def test_an_alias_inside_its_own_anchor_is_refused(file: Path, content: str) -> None:
    assert problems(file, content) == ["holds more than 20 levels, aliases written out"]


INDICATORS = [":", "-", "[", "]", "{", "}", ",", "!", "'", '"', "#", "|", ">", "%", "?", "\\"]
WORDS = ["a", "b", "1", "yes", "~", "é", "&a ", "*a", "<<", "!!int ", "---\n", "..."]
SPACE = ["\n", "  ", ": ", "- ", "\t", "\0"]
YAMLISH = st.lists(
    st.sampled_from(INDICATORS) | st.sampled_from(WORDS) | st.sampled_from(SPACE), max_size=25
).map("".join)


@settings(
    max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(YAMLISH)
def test_whatever_the_file_holds_the_answer_is_data_or_problems(file: Path, content: str) -> None:
    with contextlib.suppress(ConfigurationError):
        data = read(file, content)
        try:
            expected = yaml.safe_load(content)
        except yaml.constructor.ConstructorError:
            return  # PyYAML has no value for a bare <<, which we take as text.
        assert data == expected
