"""What a program asks PostgreSQL, read off the wire between the two.

A recorder is a proxy that understands enough of the protocol to know each statement and the rows that
came back for it. Whatever runs behind it, in whatever language, cannot leave a statement out.

Source: PostgreSQL manual, "Frontend/Backend Protocol", message formats.
"""

import asyncio
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
CHUNK = 65536

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
    """What was asked since the last `clear`, in order, without transaction control and settings."""

    url: str
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
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    credentials = parts.netloc.rpartition("@")[0]
    recorder = Recorder(parts._replace(netloc=f"{credentials}@127.0.0.1:{listener.getsockname()[1]}").geturl())
    proxy = _Proxy(listener, parts.hostname or "127.0.0.1", parts.port or 5432, recorder)
    thread = threading.Thread(target=proxy.run, daemon=True)
    thread.start()
    try:
        yield recorder
    finally:
        proxy.stop()
        thread.join()


class _Proxy:
    """Joins each connection to one of its own to the server, and reads what passes."""

    def __init__(self, listener: socket.socket, host: str, port: int, recorder: Recorder) -> None:
        self._listener, self._host, self._port, self._recorder = listener, host, port, recorder
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._join, sock=self._listener)
        await self._ended.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = _Conversation(self._recorder)
        try:
            await _refuse_encryption(reader, writer, talk)
            server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
            server_writer.write(talk.startup)
            await asyncio.gather(
                _pass_on(reader, server_writer, talk.asked), _pass_on(server_reader, writer, talk.answered)
            )
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # either side hung up: the other is told by the closing below
        finally:
            writer.close()


async def _refuse_encryption(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, talk: "_Conversation") -> None:
    """Answer requests for encryption with a no, until the start-up message comes."""
    while True:
        head = await reader.readexactly(8)
        length, code = struct.unpack("!ii", head)
        talk.startup = head + await reader.readexactly(length - 8)
        if code not in {SSL_REQUEST, GSS_REQUEST}:
            return
        writer.write(b"N")


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: "_Messages") -> None:
    try:
        while data := await reader.read(CHUNK):
            heard.feed(data)
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


class _Conversation:
    """One connection: which statements it prepared, which are under way."""

    def __init__(self, recorder: Recorder) -> None:
        self.startup = b""
        self.asked = _Messages(self._hear_question)
        self.answered = _Messages(self._hear_answer)
        self._recorder = recorder
        self._prepared: dict[bytes, str] = {}
        self._portals: dict[bytes, str] = {}
        self._under_way: deque[Statement] = deque()

    def _hear_question(self, kind: bytes, body: bytes) -> None:
        if kind == b"Q":
            self._begin(body[:-1].decode())
        elif kind == b"P":
            name, sql, _ = body.split(b"\0", 2)
            self._prepared[name] = sql.decode()
        elif kind == b"B":
            portal, name, _ = body.split(b"\0", 2)
            self._portals[portal] = self._prepared[name]
        elif kind == b"E":
            self._begin(self._portals[body.split(b"\0", 1)[0]])

    def _begin(self, sql: str) -> None:
        statement = Statement(sql)
        self._under_way.append(statement)
        self._recorder.add(statement)

    def _hear_answer(self, kind: bytes, body: bytes) -> None:
        if not self._under_way:
            return
        if kind == b"D":
            self._under_way[0].rows += 1
            self._under_way[0].bytes += len(body)
        elif kind in {b"C", b"I", b"s"}:
            self._under_way.popleft()
        elif kind == b"E":
            self._under_way.clear()  # the server skips the rest of what was sent


class _Messages:
    """Cuts a stream of bytes into messages: a kind, a length, a body."""

    def __init__(self, hear: Callable[[bytes, bytes], None]) -> None:
        self._hear = hear
        self._rest = b""

    def feed(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= 5:
            end = 1 + int.from_bytes(self._rest[1:5], "big")
            if len(self._rest) < end:
                return
            self._hear(self._rest[:1], self._rest[5:end])
            self._rest = self._rest[end:]
