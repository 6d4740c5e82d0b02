"""The recorder, between psycopg and a real PostgreSQL."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text

from shopfloor.checks.tap import CHUNK
from shopfloor.checks.wire import LONGEST_BODY, Recorder, _Conversation, _Messages, recording
from shopfloor.services import Services
from tests.helpers import wait_until


@pytest.fixture
def recorder(services: Services) -> Iterator[Recorder]:
    with recording(services.database_url) as running:
        yield running


@pytest.fixture
def connection(recorder: Recorder) -> Iterator[psycopg.Connection]:
    with connect(recorder) as connected:
        recorder.clear()
        yield connected


def connect(recorder: Recorder, **arguments: object) -> psycopg.Connection:
    url = make_url(recorder.url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(url, autocommit=True, **arguments)  # type: ignore[arg-type]  # its overloads name each


def seen(recorder: Recorder) -> list[tuple[str, int]]:
    return [(statement.sql, statement.rows) for statement in recorder.statements]


def test_statements_and_rows(recorder: Recorder, connection: psycopg.Connection) -> None:
    connection.execute("SELECT 1")
    connection.execute("SELECT generate_series(1, %s)", [5])
    connection.execute("SELECT 1 WHERE false")
    assert seen(recorder) == [("SELECT 1", 1), ("SELECT generate_series(1, $1)", 5), ("SELECT 1 WHERE false", 0)]
    recorder.clear()
    assert recorder.statements == []


def test_bytes(recorder: Recorder, connection: psycopg.Connection) -> None:
    connection.execute("SELECT 'x'")
    connection.execute("SELECT repeat('x', 1001)")
    short, long = recorder.statements
    assert long.bytes - short.bytes == 1000


def test_housekeeping_is_not_recorded(recorder: Recorder, connection: psycopg.Connection) -> None:
    for statement in ("BEGIN", "SAVEPOINT a", "RELEASE a", "COMMIT", "  set x.y = 1", "SHOW search_path"):
        connection.execute(statement)
    assert seen(recorder) == []
    connection.execute("SELECT 1 AS setting")
    connection.execute("SELECT 'BEGIN'")
    assert len(seen(recorder)) == 2


def test_sqlalchemy_loads_of_the_same_statement_are_counted_each(recorder: Recorder) -> None:
    engine = create_engine(recorder.url)
    with engine.connect() as connected:
        recorder.clear()
        for number in range(12):  # psycopg prepares it on the way
            connected.execute(text("SELECT generate_series(1, :number)"), {"number": number})
    engine.dispose()
    assert [statement.rows for statement in recorder.statements] == list(range(12))
    assert len({statement.sql for statement in recorder.statements}) == 1


def test_a_statement_of_several(recorder: Recorder, connection: psycopg.Connection) -> None:
    """They go over the wire at once; all their rows are counted."""
    connection.execute("SELECT 1; SELECT generate_series(1, 3)")
    connection.execute("SELECT generate_series(1, 7)")
    assert [statement.rows for statement in recorder.statements] == [4, 7]


def test_errors(recorder: Recorder, connection: psycopg.Connection) -> None:
    """What follows an error is matched with its own statement."""
    for statement in ("SELECT 1 / 0", "SELECT nothing", "SELEC 1"):
        with pytest.raises(psycopg.Error):
            connection.execute(statement)
        with pytest.raises(psycopg.Error):
            connection.execute(statement, prepare=True)
        connection.execute("SELECT generate_series(1, 2)")
        assert recorder.statements[-1].rows == 2
    assert sum(statement.rows for statement in recorder.statements) == 6


def test_a_pipeline(recorder: Recorder, connection: psycopg.Connection) -> None:
    """Statements that are sent before the first is answered."""
    with connection.pipeline():
        for number in range(1, 6):
            connection.execute("SELECT generate_series(1, %s)", [number])
    assert [statement.rows for statement in recorder.statements] == [1, 2, 3, 4, 5]


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def test_an_error_in_a_pipeline() -> None:
    """The server skips what was sent up to the next Sync, and goes on behind it."""
    recorder = Recorder("")
    talk = _Conversation(recorder)
    for name in (b"a", b"b", b"c", b"d"):
        talk.asked(message(b"P", name + b"\0SELECT " + name + b"\0\0\0"))
    for group in ((b"a", b"b", b"c"), (b"d",)):
        for name in group:
            talk.asked(message(b"B", b"\0" + name + b"\0rest") + message(b"E", b"\0\0\0\0\0"))
        talk.asked(message(b"S"))
    row, complete, error, ready = message(b"D", b"xy"), message(b"C"), message(b"E"), message(b"Z", b"I")
    talk.answered(row * 3 + complete + error + ready + row * 4 + complete + ready)
    assert seen(recorder) == [("SELECT a", 3), ("SELECT b", 0), ("SELECT c", 0), ("SELECT d", 4)]
    assert recorder.statements[3].bytes == 8


def test_a_cursor_of_the_servers(recorder: Recorder, connection: psycopg.Connection) -> None:
    with connection.transaction(), connection.cursor(name="c") as cursor:
        cursor.itersize = 10
        cursor.execute("SELECT generate_series(1, 25)")
        assert len(list(cursor)) == 25
    assert [rows for sql, rows in seen(recorder) if sql.startswith("FETCH")] == [10, 10, 5]


def test_copy(recorder: Recorder, connection: psycopg.Connection) -> None:
    connection.execute("CREATE TEMPORARY TABLE copied (number int)")
    with connection.cursor() as cursor:
        with cursor.copy("COPY copied FROM STDIN") as into:
            for number in range(1000):
                into.write_row([number])
        with cursor.copy("COPY copied TO STDOUT") as out:
            assert len(list(out.rows())) == 1000
    connection.execute("SELECT * FROM copied")
    assert recorder.statements[-1].rows == 1000
    assert len(recorder.statements) == 4


def test_large_rows_and_statements(recorder: Recorder, connection: psycopg.Connection) -> None:
    """Longer than what is held in memory of a message."""
    size = 3 * LONGEST_BODY
    assert connection.execute("SELECT repeat('x', %s)", [size]).fetchone() == ("x" * size,)
    assert connection.execute(f"SELECT length('{'x' * size}')").fetchone() == (size,)
    assert connection.execute("SELECT length(%s)", ["x" * size]).fetchone() == (size,)
    assert [statement.rows for statement in recorder.statements] == [1, 1, 1]
    assert recorder.statements[0].bytes > size
    assert len(recorder.statements[1].sql) < size


def test_many_rows(recorder: Recorder, connection: psycopg.Connection) -> None:
    assert len(connection.execute("SELECT generate_series(1, 50_000)").fetchall()) == 50_000
    assert recorder.statements[0].rows == 50_000


def test_connections_side_by_side(recorder: Recorder) -> None:
    def ask(number: int) -> None:
        with connect(recorder) as connected:
            for _ in range(10):
                connected.execute(f"SELECT generate_series(1, {number})")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(1, 9)))
    asked = [statement for statement in recorder.statements if "generate_series" in statement.sql]
    assert sorted(statement.rows for statement in asked) == sorted(list(range(1, 9)) * 10)


def test_a_cancelled_statement(recorder: Recorder, connection: psycopg.Connection) -> None:
    """A request to cancel comes on a connection of its own."""
    timer = threading.Timer(0.2, connection.cancel_safe)
    timer.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(60)")
    timer.join()
    assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("mode", ["disable", "prefer"])
def test_encryption_is_refused(recorder: Recorder, mode: str) -> None:
    with connect(recorder, sslmode=mode) as connected:
        assert not connected.pgconn.ssl_in_use
    with pytest.raises(psycopg.OperationalError, match="SSL"):
        connect(recorder, sslmode="require")


def test_a_wrong_password_is_told(recorder: Recorder) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        connect(recorder, password="wrong")


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 8, struct.pack("!ii", 2**31 - 1, 196608), struct.pack("!ii", -1, 0), b""],
)
def test_another_protocol_is_hung_up_on(recorder: Recorder, sent: bytes) -> None:
    url = make_url(recorder.url)
    with socket.create_connection((url.host, url.port), timeout=30) as client:
        client.sendall(sent)
        with suppress(OSError):  # hung up on before it has said all
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b""
    with connect(recorder) as connected:
        assert connected.execute("SELECT 1").fetchone() == (1,)


def test_nonsense_after_the_beginning_is_hung_up_on(recorder: Recorder, connection: psycopg.Connection) -> None:
    with socket.socket(fileno=connection.pgconn.socket) as raw:
        raw.send(b"Q\0\0\0\0")
        raw.detach()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with connect(recorder) as connected:
        assert connected.execute("SELECT 1").fetchone() == (1,)


def test_the_end_with_connections_open(services: Services, capfd: pytest.CaptureFixture[str]) -> None:
    """Everyone is hung up on, no thread is left, and nothing is printed."""
    threads = set(threading.enumerate())
    with ThreadPoolExecutor(1) as pool:
        with recording(services.database_url) as recorder:
            idle, busy = connect(recorder), connect(recorder)
            url = make_url(recorder.url)
            silent = socket.create_connection((url.host, url.port))
            sleeping = pool.submit(busy.execute, "SELECT pg_sleep(60)")
            wait_until(lambda: any("pg_sleep" in statement.sql for statement in recorder.statements))
        assert isinstance(sleeping.exception(10), psycopg.OperationalError)
    with pytest.raises(psycopg.OperationalError):
        idle.execute("SELECT 1")
    for connection in (idle, busy, silent):
        connection.close()
    assert set(threading.enumerate()) == threads
    assert capfd.readouterr() == ("", "")


def test_no_server() -> None:
    with recording("postgresql://user:password@127.0.0.1:1/none") as recorder, pytest.raises(psycopg.OperationalError):
        connect(recorder)


def chunks_of(size: int) -> Callable[[bytes], list[bytes]]:
    return lambda stream: [stream[place : place + size] for place in range(0, len(stream), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 11, 100, CHUNK])
def test_messages_are_cut_alike_however_they_come(size: int) -> None:
    stream = b"".join(
        message(kind, body)
        for kind, body in [(b"Q", b"SELECT 1\0"), (b"D", b"x" * 30), (b"Z", b""), (b"Q", b""), (b"D", b"yy")]
    )
    heard: list[tuple[bytes, int, bytes]] = []
    messages = _Messages(lambda *message: heard.append(message), wanted=b"Q")
    for chunk in chunks_of(size)(stream):
        messages.feed(chunk)
    assert heard == [
        (b"Q", 9, b"SELECT 1\0"),
        (b"D", 30, b""),
        (b"Z", 0, b""),
        (b"Q", 0, b""),
        (b"D", 2, b""),
    ]


def test_a_server_that_is_gone(recorder: Recorder) -> None:
    with recorder.tap.being("gone"), pytest.raises(psycopg.OperationalError):
        connect(recorder)
    connect(recorder).close()
