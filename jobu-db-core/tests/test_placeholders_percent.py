"""What a `%` too many or too few does to positional `%s` parameters, told in words."""

from __future__ import annotations

import pytest

from jobu_db.errors import QueryExecutionError
from jobu_db.placeholders import check_percent


@pytest.mark.parametrize(
    ("sql", "given", "told"),
    [
        ("x LIKE 'a%'", 0, """"%'" at line 1, column 10"""),
        ("x = %s\n AND DATE_FORMAT(d, '%H') = 1", 1, "'%H' at line 2, column 22"),
        ("x = %s AND y LIKE '%%' AND z % 2", 1, "'% ' at line 1, column 30"),
        ("x = %", 0, "'%' at line 1, column 5"),
        ("x = %(a)s", 1, "'%(' at line 1, column 5"),
        (
            "DATE_FORMAT(d, '%s') = %s",
            1,
            "number of %s in the SQL is 2, the number of parameters 1",
        ),
        ("x = %s", 2, "number of %s in the SQL is 1, the number of parameters 2"),
    ],
)
def test_a_stray_percent_sign_is_explained(sql: str, given: int, told: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        sql % (("'x'",) * given)
    with pytest.raises(QueryExecutionError, match="%%") as raised:
        check_percent(sql, given)
    assert told in str(raised.value)
    assert raised.value.statement == sql


@pytest.mark.parametrize("sql", ["", "x = %s", "x LIKE '%%' AND %s %% 2 = %s", "%%s", "%%%s"])
def test_correct_percent_signs_pass(sql: str) -> None:
    given = sql.replace("%%", "").count("%s")
    sql % (("'x'",) * given)
    check_percent(sql, given)
    check_percent(sql)
