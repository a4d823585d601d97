"""What `_private.py` takes for granted of asyncmy: if one of these fails, look there."""

from __future__ import annotations

import logging
import socket
import sys
from typing import Any

import pytest
from asyncmy.connection import Connection, MySQLResult
from asyncmy.cursors import Cursor, SSCursor
from asyncmy.errors import ProgrammingError
from asyncmy.protocol import FieldDescriptorPacket, MysqlPacket
from waiting import eventually

from jobu_db_mysql._private import SESSION_CHANGED, SEVERAL_OFF, SEVERAL_ON, QuietCursor, _packet
from jobu_db_mysql.session import MySQLConnection


@pytest.mark.parametrize(
    "name",
    [
        "_stream_broken",
        "_write_bytes",
        "_read_ok_packet",
        "_read_query_result",
        "_get_server_information",
        "_request_authentication",
    ],
)
def test_asyncmy_still_has_the_method(name: str) -> None:
    assert hasattr(Connection, name)


async def test_asyncmy_still_has_the_attributes(connection: MySQLConnection) -> None:
    for name in (
        "_transport",
        "_connected",
        "_close_reason",
        "_result",
        "_next_seq_id",
        "_encoding",
        "_stmt_cache",
        "_affected_rows",
        "_password",
        "_ssl_context",
        "_client_flag",
        "_auth_plugin_name",
    ):
        assert hasattr(connection, name)
    assert isinstance(connection._deprecate_eof, bool)


async def test_results_still_have_what_is_read_of_them(connection: MySQLConnection) -> None:
    await connection.run("CREATE PROCEDURE two() BEGIN SELECT 1 AS a; SELECT 2 AS b; END")
    await connection.query("CALL two()")
    result = connection._result
    assert result.rows == ((1,),)
    assert [field.name for field in result.fields] == ["a"]
    assert result.fields[0].table_name == ""
    assert result.has_next
    assert not result.unbuffered_active
    assert result.server_status & 2


async def test_an_answer_still_says_whether_another_one_follows(
    connection: MySQLConnection,
) -> None:
    """And takes over the server's status, 0 included."""
    await connection.run("DO 1")
    assert connection.get_autocommit()
    text = connection.to_run("SET autocommit = 0; DO 1")
    await connection.send_all(SEVERAL_ON, text, SEVERAL_OFF)
    await connection.answer_to_option()
    connection._next_seq_id = 1
    assert (await connection._read_ok_packet()).has_next
    assert not (await connection._read_ok_packet()).has_next
    assert not connection.get_autocommit()


async def test_the_flags_for_the_login_can_still_be_set(connection: MySQLConnection) -> None:
    with pytest.raises(ProgrammingError, match="syntax"):
        await Connection.query(connection, "DO 1; DO 2")
    assert connection.tells_changes


async def test_what_was_changed_still_comes_as_the_message_of_an_answer(
    connection: MySQLConnection,
) -> None:
    await Connection.query(connection, "SET NAMES latin1")
    assert connection._result.server_status & SESSION_CHANGED
    assert connection._result.message.endswith(b"\x14character_set_client\x06latin1")
    await Connection.query(connection, "SELECT 1")
    assert not connection._result.server_status & SESSION_CHANGED
    assert connection._affected_rows == 1


async def test_a_status_of_zero_is_still_passed_over(connection: MySQLConnection) -> None:
    await connection.autocommit(True)
    await Connection.query(connection, "SET autocommit = 0")
    assert connection.get_autocommit(), "asyncmy sees to it now: drop refresh_status"
    connection.refresh_status()
    assert not connection.get_autocommit()


async def test_connected_still_overlooks_that_the_server_closed(
    connection: MySQLConnection, observer: Any
) -> None:
    assert connection.open
    await observer.execute(f"KILL {connection.thread_id()}")
    await eventually(lambda: not connection.open)
    assert connection.connected, "asyncmy sees to it now: drop `open`"


async def test_the_drivers_charset_still_cannot_be_changed(connection: MySQLConnection) -> None:
    with pytest.raises(AttributeError):
        await Connection.set_charset(connection, "latin1")
    assert connection._encoding == "utf8", "asyncmy mended it: the reset must set it back"


async def test_ping_still_reconnects_by_default(connection: MySQLConnection) -> None:
    connection.close()
    with pytest.raises(Exception, match="Already closed"):
        await connection.ping()
    await Connection.ping(connection)
    assert connection.open, "asyncmy no longer reconnects: drop the override of ping"


async def test_warnings_are_still_asked_for_and_logged_by_asyncmy_alone(
    connection: MySQLConnection, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "asyncmy"):
        await Cursor(connection).execute("SELECT CAST('secret' AS SIGNED)")
        assert "secret" in caplog.text, "asyncmy no longer logs warnings: drop QuietCursor"
        caplog.clear()
        await connection.cursor().execute("SELECT CAST('secret' AS SIGNED)")
        assert type(connection.cursor()) is QuietCursor
        assert caplog.text == ""


async def test_asyncmy_still_receives_what_nobody_reads(connection: MySQLConnection) -> None:
    cursor = SSCursor(connection)
    await cursor.execute("SELECT REPEAT('x', 100000) FROM information_schema.columns LIMIT 100")
    await cursor.fetchone()
    await eventually(lambda: connection._proto.length > 5_000_000)  # else drop `receive`


async def test_a_plain_cursor_still_cuts_an_unbuffered_one_short(
    connection: MySQLConnection,
) -> None:
    cursor = SSCursor(connection)
    await cursor.execute("SELECT 1 FROM information_schema.columns LIMIT 500")
    await cursor.fetchone()
    with pytest.warns(UserWarning, match="left incomplete"):
        await Connection.query(connection, "SELECT 1")
    assert await cursor.fetchone() is None or len(await cursor.fetchall()) < 499


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have only some of them")
async def test_a_silent_peer_is_asked_within_silence_timeout(
    connection: MySQLConnection,
) -> None:
    own = connection._transport.get_extra_info("socket")
    assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    idle, pause, probes = (
        own.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names
    )
    assert idle + pause * probes == 20
    assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0, "it ends a shut window"


async def test_a_long_row_still_passes_for_the_end_of_all(connection: MySQLConnection) -> None:
    """Else drop `read_packet` and `_LongPacket`."""
    packet = MysqlPacket(b"\xfe" + (2**24).to_bytes(8, "little") + b"y" * 2**24, "utf8")
    assert packet.is_auth_switch_request()
    result = MySQLResult(connection)
    assert result._check_packet_is_eof(packet), "asyncmy heeds the length now"
    long = _packet(b"\xfe" + (2**24).to_bytes(8, "little") + b"y" * 2**24, encoding="utf8")
    assert not MySQLResult(connection)._check_packet_is_eof(long)
    assert long.read_row(((0, None, None),)) == (b"y" * 2**24,)


async def test_results_are_still_read_by_read_packet(
    connection: MySQLConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = []
    read = MySQLConnection.read_packet

    def note(self: MySQLConnection, *kind: Any) -> Any:
        kinds.append(kind)
        return read(self, *kind)

    await connection.query("SELECT 1")
    monkeypatch.setattr(MySQLConnection, "read_packet", note)
    await connection.query("SELECT 1")
    # How many columns, the column, and the end; the row was in the buffer.
    assert kinds == [(), (FieldDescriptorPacket,), ()]


async def test_a_columns_type_can_still_be_set(connection: MySQLConnection) -> None:
    """How types that asyncmy does not know become bytes."""
    await connection.query("SELECT 'x' AS a")
    (field,) = connection._result.fields
    field.type_code = 250
    assert field.type_code == 250
