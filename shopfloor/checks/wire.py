"""What a program asks PostgreSQL, read off the wire between the two.

A recorder is a proxy that understands enough of the protocol to know each statement and the rows that
came back for it. Whatever runs behind it, in whatever language, cannot leave a statement out.

Source: PostgreSQL manual, "Frontend/Backend Protocol", message formats.
"""

import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from shopfloor.checks.tap import Tap, tapping

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
LONGEST_STARTUP = 10_000  # PostgreSQL's own limit (MAX_STARTUP_PACKET_LENGTH)
LONGEST_BODY = 2**20  # what is heard of a message; all of it is passed on

_HOUSEKEEPING = re.compile(
    r"\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET|SHOW|DEALLOCATE|SELECT pg_catalog\.version)\b", re.IGNORECASE
)


@dataclass
class Statement:
    """One execution of a statement, as it went over the wire.

    Attributes:
        sql: its text, with `$1` where its parameters stand.
        rows: how many rows came back.
        bytes: what those rows weighed on the wire.
    """

    sql: str
    rows: int = 0
    bytes: int = 0


@dataclass
class Recorder:
    """What was asked since the last `clear`, in order, without transaction control and settings.

    Attributes:
        tap: can make the server seem silent or gone.
    """

    url: str
    tap: Tap = field(init=False, repr=False)
    _statements: list[Statement] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def statements(self) -> list[Statement]:
        """The statements so far."""
        with self._lock:
            return list(self._statements)

    def clear(self) -> None:
        """Forget what was recorded."""
        with self._lock:
            self._statements.clear()

    def add(self, statement: Statement) -> None:
        """Record a statement that has begun; its rows are counted as they come."""
        if not _HOUSEKEEPING.match(statement.sql):
            with self._lock:
                self._statements.append(statement)


@contextmanager
def recording(url: str) -> Iterator[Recorder]:
    """Put a recorder in front of a PostgreSQL server while the block runs.

    Args:
        url: of a database, such as `Database.url`.

    Yields:
        The recorder; its `url` is what the program under test must be given.
    """
    parts = urlsplit(url)
    recorder = Recorder("")
    with tapping((parts.hostname or "127.0.0.1", parts.port or 5432), lambda: _Conversation(recorder)) as tap:
        credentials = parts.netloc.rpartition("@")[0]
        recorder.url = parts._replace(netloc=f"{credentials}@127.0.0.1:{tap.port}").geturl()
        recorder.tap = tap
        yield recorder


def _startup(client: socket.socket) -> bytes:
    """The start-up message; requests for encryption before it are answered with a no.

    Raises:
        EOFError: the client hung up.
        ValueError: it does not speak the protocol.
    """
    while True:
        head = _exactly(client, 8)
        length, code = struct.unpack("!ii", head)
        if not 8 <= length <= LONGEST_STARTUP:
            raise ValueError(length)
        message = head + _exactly(client, length - 8)
        if code not in {SSL_REQUEST, GSS_REQUEST}:
            return message
        client.sendall(b"N")


def _exactly(client: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = client.recv(length - len(data))
        if not more:
            raise EOFError
        data += more
    return data


@dataclass(frozen=True)
class _UnderWay:
    """What the server has still to answer: a statement, or where a group of messages ends."""

    statement: Statement | None
    ends_group: bool  # answered by ReadyForQuery, up to which an error skips everything


class _Conversation:
    """One connection: which statements it prepared, which are under way."""

    def __init__(self, recorder: Recorder) -> None:
        self._questions = _Messages(self._hear_question, wanted=b"QPBES")
        self._answers = _Messages(self._hear_answer, wanted=b"")
        self._recorder = recorder
        self._prepared: dict[bytes, str] = {}
        self._portals: dict[bytes, str] = {}
        self._under_way: deque[_UnderWay] = deque()

    def begin(self, client: socket.socket) -> bytes:
        """The start-up message."""
        return _startup(client)

    def asked(self, data: bytes) -> None:
        """Hear what the program sends."""
        self._questions.feed(data)

    def answered(self, data: bytes) -> None:
        """Hear what PostgreSQL sends."""
        self._answers.feed(data)

    def _hear_question(self, kind: bytes, _length: int, body: bytes) -> None:
        if kind == b"Q":
            self._begin(body[:-1].decode(errors="replace"), ends_group=True)
        elif kind == b"P":
            name, sql, *_ = body.split(b"\0", 2)
            self._prepared[name] = sql.decode(errors="replace")
        elif kind == b"B":
            portal, name, *_ = body.split(b"\0", 2)
            self._portals[portal] = self._prepared.get(name, "")
        elif kind == b"E":
            self._begin(self._portals.get(body.split(b"\0", 1)[0], ""), ends_group=False)
        elif kind == b"S":
            self._under_way.append(_UnderWay(None, ends_group=True))

    def _begin(self, sql: str, *, ends_group: bool) -> None:
        statement = Statement(sql)
        self._under_way.append(_UnderWay(statement, ends_group))
        self._recorder.add(statement)

    def _hear_answer(self, kind: bytes, length: int, _body: bytes) -> None:
        if not self._under_way:
            return
        first = self._under_way[0]
        if kind == b"D" and first.statement:
            first.statement.rows += 1
            first.statement.bytes += length
        elif kind in {b"C", b"I", b"s"} and not first.ends_group:
            self._under_way.popleft()
        elif kind == b"E":
            while self._under_way and not self._under_way[0].ends_group:
                self._under_way.popleft()
        elif kind == b"Z":
            self._under_way.popleft()


class _Messages:
    """Cuts a stream of bytes into messages: a kind, the length of a body, and the body where it is wanted."""

    def __init__(self, hear: Callable[[bytes, int, bytes], None], wanted: bytes) -> None:
        self._hear = hear
        self._wanted = wanted
        self._rest = b""  # the beginning of a message, of which more must come
        self._to_skip = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream.

        Raises:
            ValueError: it is not made of messages.
        """
        data, place = self._rest + data, 0
        while True:
            skipped = min(self._to_skip, len(data) - place)
            place, self._to_skip = place + skipped, self._to_skip - skipped
            head = data[place : place + 5]
            if len(head) < 5:
                break
            kind, length = head[:1], int.from_bytes(head[1:], "big") - 4
            if length < 0:
                raise ValueError(f"a message of {length} bytes")
            needed = 5 + (min(length, LONGEST_BODY) if kind in self._wanted else 0)
            if len(data) - place < needed:
                break
            self._hear(kind, length, data[place + 5 : place + needed])
            self._to_skip = 5 + length
        self._rest = data[place:]
