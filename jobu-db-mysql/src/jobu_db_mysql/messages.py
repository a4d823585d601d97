"""The servers' messages, without the values that they repeat.

Parameters are written into the SQL, so that a server quotes them as it quotes the SQL. A message is
shown where it can hold no value: because of what its number says, or because it quotes nothing but
the SQL as its author wrote it. The whole text stays with the driver's exception.

Numbers and texts: https://dev.mysql.com/doc/mysql-errors/9.0/en/server-error-reference.html and
https://mariadb.com/kb/en/mariadb-error-codes/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_NEAR_LIMIT = 80
"""Characters: both servers cut off what they quote of the SQL there."""


class Origin(NamedTuple):
    """What a statement was before its parameters were written into it.

    Attributes:
        sql: As it was before.
        filled_in: It had parameters.
    """

    sql: str
    filled_in: bool


def _numbers(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split():
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


_HOLDS_NO_VALUE = _numbers(
    # Names of databases, tables, columns, keys, constraints and functions, sizes, fixed texts.
    "1007-1008 1040-1044 1046-1048 1050-1056 1060-1061 1063 1065-1066 1068-1075 1089-1091 1093 "
    "1096 1099-1101 1104 1109-1114 1117-1118 1121 1128 1136-1140 1142-1143 1146-1149 1153 "
    "1163-1167 1170-1173 1176 1179-1180 1191-1193 1203 1205-1206 1213-1217 1221-1222 1226-1227 "
    "1230 1232 1235 1237-1242 1245 1247-1250 1252-1253 1264-1265 1267 1269-1271 1288 1290 "
    "1293-1294 1301 1304-1305 1313-1322 1324-1327 1330-1338 1345-1351 1356-1357 1359-1360 "
    "1362-1365 1370 1390-1391 1393-1395 1397-1402 1406 1408 1413-1416 1418-1424 1441-1442 "
    "1451-1452 1461 1503 1553 1558 1568 1582-1584 1614 1630 1701 1785 1792 1813 1819 1822-1830 "
    "1832 1836 1906 1927 1961 1969 1976 3024 3026 3101 3105-3106 3140-3141 3143-3144 3152 3158 "
    "3572 3685-3692 3694-3700 3752 3757-3758 3814-3823 3940 3948 4025 4031 4078 4094"
)

_VALUE = (r" value: '.*'", " value")


def _cutting() -> Iterator[tuple[int, list[tuple[re.Pattern[str], str]]]]:
    for numbers, *cuts in (
        ("1062 1586 1859", (r" entry '.*' for key ", " entry for key ")),
        ("1292 1366", (r" value: '.*' for column ", " value for column "), _VALUE),
        ("1411", (r" value: '.*' for function ", " value for function "), _VALUE),
        ("1231", (r" to the value of '.*'", "")),
        ("1690", (r" in '.*'", "")),
        ("1526 1591", (r" for value .*", "")),
        ("1367 1918", (r" '.*' ", " ")),
        ("1761 1762", (r", record '.*' would", ", a record would")),
        ("1115 1273 1298 1300 1525 1649", (r": '.*'", "")),
    ):
        compiled = [(re.compile(pattern, re.DOTALL), instead) for pattern, instead in cuts]
        yield from ((number, compiled) for number in _numbers(numbers))


_CUT = dict(_cutting())
"""What to take out of messages whose rest tells which column or variable: the first that fits."""

_SYNTAX = 1064
_NEAR = re.compile(r" near '(.*)' at line (\d+)$", re.DOTALL)
_QUOTED = re.compile(r"(['\"`])(.*)\1", re.DOTALL)

_ELSEWHERE = (
    "the server's own message may hold values: it is with the driver's exception, the cause"
)


def shown_at_login(number: int | None, text: str) -> str:
    """Return as much of a message as can hold no setting's value; nothing else was sent yet."""
    return shown(number, text, None) if number in _CUT else text


def shown(number: int | None, text: str, origin: Origin | None) -> str:
    """Return as much of a message as can hold no value.

    Args:
        number: The error's; None if it does not come from the server, which then quotes nothing.
        origin: The statement that it is about, if that is known.
    """
    if not number or 2000 <= number < 3000:
        return text  # asyncmy's own
    if number in _HOLDS_NO_VALUE:
        return text
    if number == _SYNTAX:
        return _without_near(text, origin)
    # The first that fits. Where none does, the server words it in a way that is not known here, and
    # nothing of it is shown.
    for pattern, replacement in _CUT.get(number, ()):
        cut, count = pattern.subn(replacement, text)
        if count:
            return cut
    if number not in _CUT and origin is not None and not origin.filled_in:
        return _QUOTED.sub(lambda quoted: _if_written(quoted, origin.sql), text)
    return _ELSEWHERE


def _without_near(text: str, origin: Origin | None) -> str:
    """Keep what a syntax error quotes, if it is the end of the SQL as its author wrote it."""
    quoted = _NEAR.search(text)
    if quoted is not None and origin is not None:
        near = quoted[1]
        sql = origin.sql.replace("%%", "%")
        if not origin.filled_in or sql.endswith(near) or (len(near) >= _NEAR_LIMIT and near in sql):
            return text
    line = f" at line {quoted[2]}" if quoted else ""
    return f"You have an error in your SQL syntax{line}"


def _if_written(quoted: re.Match[str], sql: str) -> str:
    return quoted[0] if quoted[2] in sql else "…"
