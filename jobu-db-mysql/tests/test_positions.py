"""Positions as the servers write them: what covers what, and what both are together."""

from __future__ import annotations

import pytest

from jobu_db_mysql.replication import (
    MySQLReplication,
    parse_domain_position,
    parse_gtid_set,
)

A, B = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "c3996064-e957-11f1-b3fe-02fc00000001"


def test_a_set_is_read_as_the_server_shows_it() -> None:
    shown = f"{A.upper()}:1-3:5:7-9,\n{B}:1-2:deploy:4-6:8"
    gtids = parse_gtid_set(shown)
    assert gtids.numbers == {
        A: ((1, 3), (5, 5), (7, 9)),
        B: ((1, 2),),
        f"{B}:deploy": ((4, 6), (8, 8)),
    }
    assert parse_gtid_set(str(gtids)) == gtids
    assert parse_gtid_set("").numbers == {}


def test_a_set_covers_what_is_in_it() -> None:
    gtids = parse_gtid_set(f"{A}:1-10:12-20,{B}:1-5")
    for inside in (f"{A}:1-10", f"{A}:5", f"{A}:3-4:12-13,{B}:5", ""):
        assert gtids.covers(parse_gtid_set(inside)), inside
    for outside in (f"{A}:11", f"{A}:10-12", f"{A}:1-21", f"{B}:6", f"{A}:deploy:1"):
        assert not gtids.covers(parse_gtid_set(outside)), outside


def test_sets_merge_by_union() -> None:
    first, second = parse_gtid_set(f"{A}:1-3:8"), parse_gtid_set(f"{A}:4-5:7,{B}:2")
    both = first.merged(second)
    assert both == second.merged(first) == parse_gtid_set(f"{A}:1-5:7-8,{B}:2")
    assert both.covers(first)
    assert both.covers(second)


def test_what_a_long_task_has_written_does_not_grow_for_ever() -> None:
    own = parse_gtid_set("")
    for number in range(1, 2001, 2):  # others have every second transaction
        own = parse_gtid_set(f"{A}:{number}").after(own)
    assert len(own.numbers[A]) == 64
    assert own.covers(parse_gtid_set(f"{A}:1:3:777:1999"))
    assert not own.covers(parse_gtid_set(f"{A}:1998"))
    assert not own.covers(parse_gtid_set(f"{A}:2000"))


def test_positions_of_mariadb_have_a_number_in_each_domain() -> None:
    position = parse_domain_position("0-1-100,7-3-5")
    assert position.numbers == {0: 100, 7: 5}
    assert position.covers(parse_domain_position("0-2-100"))
    assert position.covers(parse_domain_position(""))
    assert not position.covers(parse_domain_position("0-1-101"))
    assert not position.covers(parse_domain_position("8-1-1"))
    both = position.merged(parse_domain_position("0-1-7,8-1-1"))
    assert both.numbers == {0: 100, 7: 5, 8: 1}
    assert parse_domain_position(str(both)) == both


@pytest.mark.parametrize("text", ["hello", f"{A}", f"{A}:", f"{A}:x-y", "0-1", "0-1-2,x"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a GTID"):
        MySQLReplication().parse(text)
