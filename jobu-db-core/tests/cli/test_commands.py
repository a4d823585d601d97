"""Each command with right and wrong input, as somebody new would give it; no server."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
import yaml

PROGRAM = "from jobu_db.cli import main; main()"
COMMANDS = ("check", "ping", "backends", "sql", "recover", "init", "schema", "stats", "completion")
Done = subprocess.CompletedProcess[str]


def good(done: Done) -> str:
    """Return what a command wrote that went well."""
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    return done.stdout


def wrong(done: Done, code: int = 2) -> str:
    """Return the message of a command that went wrong: words, not a traceback."""
    assert done.returncode == code, done.stderr + done.stdout
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" not in done.stdout
    return done.stderr


# -- all commands


def test_the_help_names_each_command_and_fits_the_narrowest_terminal(bare: Any) -> None:
    text = good(bare.inside("--help"))
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", text, re.MULTILINE)
        assert max(map(len, good(bare.inside(command, "--help")).splitlines())) <= 80
    assert "..." not in text.partition("Commands:")[2]  # nothing is cut off
    assert max(map(len, text.splitlines())) <= 80


def test_a_command_that_is_not_there(bare: Any) -> None:
    assert "No such command 'pign'" in wrong(bare("pign"))


@pytest.mark.parametrize("command", [("ping",), ("sql", "default", "SELECT 1")])
def test_no_configuration(bare: Any, command: tuple[str, ...]) -> None:
    message = wrong(bare.inside(*command))
    assert "config/database.yaml: there is no such file" in message
    assert "jobu-db init" in message


def test_the_configuration_may_be_named_in_three_ways(bare: Any) -> None:
    bare.configure("databases: {one: {type: sqlite, path: one.db}}", "config/one.yaml")
    bare.configure("databases: {two: {type: sqlite, path: two.db}}", "config/two.yaml")
    for done in (
        bare.inside("ping", "--config", "config/one.yaml"),
        bare.inside("--config", "config/one.yaml", "ping"),
        bare.inside("ping", JOBU_DB_CONFIG="config/one.yaml"),
        bare.inside("ping", "--config", "config/one.yaml", JOBU_DB_CONFIG="config/two.yaml"),
        bare.inside("--config", "config/one.yaml", "ping", JOBU_DB_CONFIG="config/two.yaml"),
        bare.inside("--config", "config/two.yaml", "ping", "--config", "config/one.yaml"),
    ):
        assert "one" in good(done)
        assert "two" not in done.stdout


def test_without_the_extra_it_says_what_to_install(bare: Any) -> None:
    code = (
        "import sys; sys.modules['click'] = None\n"
        "from jobu_db.cli import main; sys.argv = ['jobu-db', 'ping']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'jobu-db-core[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_installed_program_is_this_one() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["scripts"] == {"jobu-db": "jobu_db.cli:main"}


def test_importing_the_library_imports_none_of_what_only_extras_need() -> None:
    code = (
        "import sys, jobu_db, jobu_db.registry, jobu_db_sqlite.connection\n"
        "extras = {'click', 'rich', 'typer', 'opentelemetry', 'aiosql', 'jobu_db.cli'}\n"
        "print(sorted(extras & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_nothing_is_coloured_or_cut_off_in_a_pipe(jobu_db: Any) -> None:
    long = "x" * 300
    out = good(jobu_db("sql", "default", f"SELECT '{long}' AS one, '{long}' AS two"))
    assert "\x1b" not in out
    assert out.count(long) == 2


# -- check


def test_check_shows_what_is_in_effect_with_secrets_masked(bare: Any) -> None:
    bare.configure(
        "databases:\n"
        "  default: {type: sqlite, path: a.db, pool: {pool_size: 3}}\n"
        "  orders: {type: postgres, host: db, user: u, database: d, password: hunter2}\n"
        '  audit: {type: mysql, url: "mysql://u:${SECRET}@db:3307/d"}\n'
    )
    done = bare("check", SECRET="hunter3")
    assert "3 databases, no problem" in done.stderr
    shown = yaml.safe_load(good(done))["databases"]
    assert shown["default"]["pool"]["max_size"] == 3
    assert shown["default"]["options"]["journal_mode"] == "WAL"  # a default
    assert (shown["audit"]["host"], shown["audit"]["port"]) == ("db", 3307)
    assert set(shown["orders"]["password"]) == {"*"}
    assert "hunter" not in done.stdout + done.stderr


def test_check_tells_all_problems_at_once(bare: Any) -> None:
    bare.configure(
        "extra: 1\n"
        "databases:\n"
        "  a: {type: sqlite, path: a.db, pool: {max_sise: 3}}\n"
        "  b: {type: orakle}\n"
        "  c: 5\n"
        '  d: {type: postgres, host: x, pasword: hunter2, port: "${NOT_SET}"}\n'
        "  e: {type: mysql, port: 99999}\n"
        "  f: {type: sqlite, path: f.db}\n",
        "bad.yaml",
    )
    done = bare("check", "bad.yaml")
    message = wrong(done, 1)
    for expected in (
        "bad.yaml has 7 problems",
        "databases.a.pool.max_sise: unknown key; did you mean max_size?",
        "databases.b.type: no backend for type 'orakle'",
        "databases.c: must be a mapping",
        "databases.d.port: the environment variable NOT_SET is not set",
        "databases.d.pasword: unknown key; did you mean password?",
        "databases.e.port",
    ):
        assert expected in message, message
    assert "hunter2" not in message
    assert done.stdout == ""


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "databases: {}\n", "databases: []"])
def test_check_of_what_is_no_configuration(bare: Any, text: str) -> None:
    bare.configure(text, "odd.yaml")
    done = bare.inside("check", "odd.yaml")
    if text == "databases: {}\n":
        good(done)
    else:
        assert "odd.yaml" in wrong(done, 1)


def test_check_of_a_file_that_is_not_there(bare: Any) -> None:
    assert "nowhere.yaml: there is no such file" in wrong(bare.inside("check", "nowhere.yaml"), 1)


# -- ping


def test_ping_tells_who_answers(jobu_db: Any) -> None:
    out = good(jobu_db("ping"))
    assert re.search(r"default +ok +SQLite 3\.\d+\.\d+ +- +no +[\d.,]+ ms +[\d.,]+ ms", out)


def test_ping_for_programs(jobu_db: Any) -> None:
    answer = json.loads(good(jobu_db("ping", "--json", "default")))["default"]
    assert answer["ok"] is True
    assert answer["server"] == "SQLite"
    assert (answer["role"], answer["tls"]) == (None, None)
    times = answer["round_trip_seconds"]
    assert 0 < times["min"] <= times["median"] <= times["max"]


def test_ping_of_a_database_that_does_not_answer(jobu_db: Any) -> None:
    jobu_db.configure(
        "databases:\n"
        "  default: {type: sqlite, path: data/app.db}\n"
        "  gone: {type: postgres, host: 127.0.0.1, port: 1, user: u, database: d,"
        " password: hunter2}\n"
    )
    done = jobu_db("ping")
    message = wrong(done, 1)
    assert "gone: cannot connect" in message
    assert re.search(r"default +ok", done.stdout)
    assert re.search(r"gone +FAILED", done.stdout)
    good(jobu_db("ping", "default"))
    done = jobu_db("ping", "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["default"]["ok"] is True
    assert answer["gone"]["ok"] is False
    assert answer["gone"]["error"] == "ConnectionFailedError"
    assert "hunter2" not in done.stdout + message


def test_ping_waits_as_long_as_it_is_told(jobu_db: Any) -> None:
    jobu_db.configure("databases: {gone: {type: postgres, host: 127.0.0.1, port: 1}}")
    began = time.monotonic()
    wrong(jobu_db("ping", "--wait", "2"), 1)
    assert time.monotonic() - began >= 2


def test_square_brackets_in_names_are_no_markup(bare: Any) -> None:
    bare.configure('databases: {"[/x]": {type: sqlite, path: a.db}}', "config/[red].yaml")
    named = {"JOBU_DB_CONFIG": "config/[red].yaml"}
    for command in (("ping",), ("init",), ("sql", "[/x]", "SELECT '[/y]' AS \"[/z]\"")):
        assert "[/" in good(bare.inside(*command, **named))
    assert "config/[red].yaml: 1 database" in bare.inside("check", **named).stderr


def test_an_interrupt_is_no_traceback(bare: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        bare.configure(f"databases: {{gone: {{type: postgres, host: 127.0.0.1, port: {port}}}}}")
        program = start(bare, "ping", "--timeout", "100")
        silent.accept()  # it is under way, and gets no answer
        program.send_signal(signal.SIGINT)
        out, errors = program.communicate(timeout=60)
    assert (program.returncode, out) == (130, "")
    assert errors == "Error: interrupted\n"


def start(bare: Any, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=bare.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=_heed_interrupts,
    )  # fmt: skip


def _heed_interrupts() -> None:
    """A shell starts what it runs in the background with interrupts ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ping_of_a_name_that_is_not_there(jobu_db: Any) -> None:
    assert "no database 'defualt' is configured; there are: default" in wrong(
        jobu_db.inside("ping", "defualt")
    )
    done = jobu_db.inside("ping", "--json", "defualt")
    wrong(done)
    assert done.stdout == ""


@pytest.mark.parametrize("option", [("--wait", "soon"), ("--timeout", "0"), ("--wait", "-1")])
def test_ping_with_a_wrong_number(jobu_db: Any, option: tuple[str, str]) -> None:
    assert option[0] in wrong(jobu_db.inside("ping", *option))


def test_ping_runs_no_script_and_keeps_nothing_warm(jobu_db: Any) -> None:
    jobu_db.configure(
        "databases: {default: {type: sqlite, path: a.db, init_sql: true, pool: {pool_size: 5}}}"
    )
    good(jobu_db.inside("ping"))
    assert "0" in good(jobu_db.inside("sql", "default", "SELECT count(*) AS n FROM sqlite_master"))


# -- backends, schema, completion


def test_backends_lists_what_is_installed(bare: Any) -> None:
    out = good(bare("backends"))
    for name in ("sqlite", "postgres", "mysql"):
        assert re.search(rf"^ *{name} +jobu-db-{name} [\d.]+ +ok", out, re.MULTILINE)
    assert "a nested transaction fails on its own" in out


def test_backends_for_programs(bare: Any) -> None:
    found = json.loads(good(bare.inside("backends", "--json")))
    assert found["sqlite"]["package"].startswith("jobu-db-sqlite ")
    assert found["sqlite"]["capabilities"]["independent_writes"]["support"] == "unsupported"
    assert found["mariadb"]["capabilities"]["returning"]["support"] == "supported"
    assert found["mysql"]["capabilities"]["returning"]["support"] == "unsupported"


def test_the_schema_accepts_what_check_accepts(bare: Any) -> None:
    schema = json.loads(good(bare.inside("schema")))
    jsonschema.validate({"databases": {"a": {"type": "sqlite", "path": "a.db"}}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"databases": {"a": {"type": "sqlite", "path": 5}}}, schema)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(bare: Any, shell: str) -> None:
    assert f"_JOBU_DB_COMPLETE={shell}_complete" in good(bare.inside("completion", shell))


def test_completion_of_another_shell(bare: Any) -> None:
    assert "'tcsh'" in wrong(bare.inside("completion", "tcsh"))


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("jobu-db pi", {"ping"}),
        ("jobu-db ping o", {"orders", "other"}),
        ("jobu-db sql a", {"audit"}),
        ("jobu-db --config config/second.yaml ping ", {"second"}),
        ("jobu-db --config nowhere.yaml ping ", set()),
        ("jobu-db sql audit x --format ", {"table", "json", "csv"}),
    ],
)
def test_names_are_completed(bare: Any, words: str, offered: set[str]) -> None:
    bare.configure("databases: {orders: {}, other: {}, audit: {}}")
    bare.configure("databases: {second: {}}", "config/second.yaml")
    done = bare(
        COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1),
        _JOBU_DB_COMPLETE="bash_complete",
    )  # fmt: skip
    assert {line.partition(",")[2] for line in good(done).split()} == offered


# -- init


def test_init_from_nothing(bare: Any) -> None:
    out = good(bare("init"))
    assert "wrote config/database.yaml" in out
    assert (bare.folder / "data/app.db").exists()
    good(bare("check"))
    good(bare("ping"))
    before = (bare.folder / "config/database.yaml").read_bytes()
    assert "wrote" not in good(bare("init"))
    assert (bare.folder / "config/database.yaml").read_bytes() == before


def test_init_runs_the_script_of_the_settings(jobu_db: Any) -> None:
    (jobu_db.folder / "schema.sql").write_text("CREATE TABLE IF NOT EXISTS one (id INTEGER);")
    jobu_db.configure(
        "databases:\n"
        "  first: {type: sqlite, path: first.db, init_sql: schema.sql}\n"
        "  second: {type: sqlite, path: second.db}\n"
    )
    out = good(jobu_db.inside("init"))
    assert "first: ran schema.sql" in out
    assert "second: answers; it has no init_sql" in out
    assert "one" in good(jobu_db.inside("sql", "first", "SELECT name FROM sqlite_master"))
    good(jobu_db.inside("init", "first"))  # again


def test_init_with_another_script_and_with_the_builtin_one(jobu_db: Any) -> None:
    (jobu_db.folder / "other.sql").write_text("CREATE TABLE other (id INTEGER);")
    assert "ran other.sql" in good(jobu_db.inside("init", "default", "--script", "other.sql"))
    assert "ran the backend's own SQL" in good(jobu_db.inside("init", "default", "--builtin"))
    tables = good(jobu_db.inside("sql", "default", "SELECT name FROM sqlite_master ORDER BY name"))
    assert "other" in tables
    assert "cron_jobs" in tables


def test_init_with_wrong_input(jobu_db: Any) -> None:
    assert "nowhere.sql" in wrong(jobu_db.inside("init", "--script", "nowhere.sql"))
    (jobu_db.folder / "odd.sql").write_text("CREATE TABEL x (id INTEGER);")
    assert "TABEL" in wrong(jobu_db.inside("init", "--script", "odd.sql"), 1)
    assert "exclude each other" in wrong(jobu_db.inside("init", "--script", "odd.sql", "--builtin"))


# -- sql


def test_sql_reads(jobu_db: Any) -> None:
    out = good(jobu_db("sql", "default", "SELECT 1 AS one, 'two' AS two, NULL AS three"))
    assert re.search(r"one +two +three", out)
    assert re.search(r"1 +two +NULL", out)


def test_sql_reads_from_the_standard_input(jobu_db: Any) -> None:
    assert "42" in good(jobu_db("sql", "default", "-", stdin="SELECT 42 AS answer;\n"))


def test_sql_writes_only_when_told(jobu_db: Any) -> None:
    good(jobu_db.inside("sql", "default", "CREATE TABLE t (id INTEGER, name TEXT)", "--write"))
    insert = "INSERT INTO t VALUES (1, 'a'), (2, 'b')"
    assert "--write" in wrong(jobu_db.inside("sql", "default", insert), 1)
    assert "2 rows" in jobu_db.inside("sql", "default", insert, "--write").stderr
    done = jobu_db.inside("sql", "default", "INSERT INTO t VALUES (3, 'c') RETURNING id", "--write")
    assert "3" in good(done)
    done = jobu_db.inside("sql", "default", "SELECT id, name FROM t ORDER BY id", "--format", "csv")
    assert good(done) == "id,name\n1,a\n2,b\n3,c\n"


def test_sql_gives_json(jobu_db: Any) -> None:
    text = "SELECT 1 AS i, 1.5 AS f, 'ü' AS s, x'AB' AS b, NULL AS n"
    rows = json.loads(good(jobu_db.inside("sql", "default", text, "--format", "json")))
    assert rows == [{"i": 1, "f": 1.5, "s": "ü", "b": "\\xab", "n": None}]


def test_sql_gives_what_json_has_no_number_for_as_text(jobu_db: Any) -> None:
    text = "SELECT 9e999 AS above, -9e999 AS below, 1.5 AS plain"
    out = good(jobu_db.inside("sql", "default", text, "--format", "json"))
    assert json.loads(out, parse_constant=pytest.fail) == [
        {"above": "inf", "below": "-inf", "plain": 1.5}
    ]


def test_sql_shows_all_columns_that_share_a_name(jobu_db: Any) -> None:
    text = "SELECT 1 AS a, 2 AS a, 3 AS A, 4 AS a"
    for write in ((), ("--write",)):
        done = jobu_db.inside("sql", "default", text, "--format", "csv", *write)
        assert good(done) == "a,a:2,A,a:3\n1,2,3,4\n"
    (row,) = json.loads(good(jobu_db.inside("sql", "default", text, "--format", "json")))
    assert row == {"a": 1, "a:2": 2, "A": 3, "a:3": 4}
    assert re.search(r"1 +2 +3 +4", good(jobu_db.inside("sql", "default", text)))


def test_what_a_database_holds_does_not_steer_the_terminal(jobu_db: Any) -> None:
    hostile = "'a' || char(27) || ']0;title' || char(7) || char(155) || '2J'"
    done = jobu_db.inside("sql", "default", f'SELECT {hostile} AS "b\x1bc", {hostile} AS d')
    assert r"a\x1B]0;title\x07\x9B2J" in good(done)
    assert r"b\x1Bc" in done.stdout
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", done.stdout)
    refused = wrong(jobu_db.inside("sql", "default", 'SELECT "\x1b[2J" FROM nowhere'), 1)
    assert "\x1b" not in refused


def test_sql_stops_at_the_limit(jobu_db: Any) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<5000)"
    done = jobu_db.inside("sql", "default", f"{numbers} SELECT i FROM n")
    assert len(good(done).split()) == 1 + 1 + 1000  # the column's name, the line, the rows
    assert "the first 1000 rows" in done.stderr
    done = jobu_db.inside("sql", "default", f"{numbers} SELECT i FROM n", "--format", "csv")
    assert len(good(done).split()) == 1 + 5000
    assert "5000 rows" in done.stderr
    done = jobu_db.inside("sql", "default", f"{numbers} SELECT i FROM n", "--limit", "2")
    assert good(done).split()[-2:] == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "expected", "code"),
    [
        (("default", "SELEC 1"), "SELEC", 1),
        (("default", "SELECT 1; DROP TABLE t"), "one statement", 2),
        (("default", ""), "one statement", 2),
        (("nowhere", "SELECT 1"), "there are: default", 2),
        (("default",), "Missing argument 'SQL'", 2),
        (("default", "SELECT 1", "--format", "xml"), "'xml'", 2),
        (("default", "SELECT 1", "--limit", "0"), "--limit", 2),
        (("default", "SELECT * FROM nowhere"), "nowhere", 1),
    ],
)
def test_sql_with_wrong_input(
    jobu_db: Any, arguments: tuple[str, ...], expected: str, code: int
) -> None:
    assert expected in wrong(jobu_db.inside("sql", *arguments), code)


# -- stats

FIGURES = """
import asyncio, json
from jobu_db_sqlite import SQLiteDatabase

async def main():
    async with asyncio.timeout(60):
        db = await SQLiteDatabase.create("main", {"path": ":memory:"})
        await db.fetch_val("SELECT 1")
        print(json.dumps(db.stats()))
        await db.close()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """What a program wrote of its database."""
    program = [sys.executable, "-c", FIGURES]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    return cast("dict[str, Any]", json.loads(done.stdout))


def test_stats_of_a_file(bare: Any, figures: dict[str, Any]) -> None:
    for name, data in (("one", figures), ("list", [figures]), ("named", {"main": figures})):
        (bare.folder / name).write_text(json.dumps(data))
        assert re.search(r"main +1/1 +0 +0 +1 ", good(bare.inside("stats", name)))
    assert "main" in good(bare.inside("stats", "-", stdin=json.dumps(figures)))


@pytest.mark.parametrize("text", ["", "[]", "{}", "5", '[{"size": 1}]', '{"a": {"size": 1}}'])
def test_stats_of_something_else(bare: Any, text: str) -> None:
    (bare.folder / "odd").write_text(text)
    assert "odd" in wrong(bare.inside("stats", "odd"), 1)


@pytest.mark.parametrize(
    "changed",
    [{"acquired": "many"}, {"wait": 5}, {"use": {}}, {"name": ["x"]}, {"advice": {"text": 5}}],
)
def test_stats_with_a_figure_that_is_none(
    bare: Any, figures: dict[str, Any], changed: dict[str, Any]
) -> None:
    text = json.dumps({**figures, **changed})
    assert "db.stats()" in wrong(bare.inside("stats", "-", stdin=text), 1)


def test_stats_of_what_is_nested_without_end(bare: Any) -> None:
    assert "is not JSON" in wrong(bare.inside("stats", "-", stdin="[" * 100_000), 1)


def test_stats_with_a_hostile_name(bare: Any, figures: dict[str, Any]) -> None:
    text = json.dumps({**figures, "name": "[/x]\x1b[2J"})
    assert r"[/x]\x1B[2J" in good(bare.inside("stats", "-", stdin=text))


def test_stats_of_what_has_no_end(bare: Any) -> None:
    assert "/dev/zero is larger than" in wrong(bare.inside("stats", "/dev/zero"), 1)


def test_stats_of_what_cannot_be_read(bare: Any) -> None:
    assert "nowhere" in wrong(bare.inside("stats", "nowhere"), 1)
    assert "127.0.0.1:1" in wrong(bare.inside("stats", "http://127.0.0.1:1/"), 1)
