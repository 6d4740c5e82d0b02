"""The process of a fault proxy: joins connections, and treats what passes as the faults of the moment ask.

Each chunk of bytes leaves a fixed time after it came, whatever comes behind it: latency costs no bandwidth.

    python -m shopfloor.fault_process CONTROL PORT HOST TARGET_PORT SEED

CONTROL is the descriptor of a socket. Each line on it is a JSON object of `Faults` to put in force, or null, and is
answered with one of `Traffic`. It listens once it has been told for the first time what is wrong.
"""

import asyncio
import json
import resource
import select
import selectors
import socket
import struct
import sys
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum, auto
from random import Random
from typing import Any, cast

from shopfloor.faults import CALM, Faults, Traffic, bound_socket

BACKLOG = 1024
SLICE_SECONDS = 0.005
"""What leaves at once where the bandwidth is limited: no more than fits into this time."""
LARGEST_QUEUE = 4 * 1024 * 1024
"""Bytes under way in one direction before the sender is held up; about Linux's largest window (tcp(7))."""
MOST_DESCRIPTORS = 16384

LINGER_NOT = struct.pack("ii", 1, 0)  # with SO_LINGER: close(2) sends RST in place of FIN


class Signal(Enum):
    """What ends a stream of bytes."""

    END = auto()  # FIN: nothing more comes from there
    BREAK = auto()  # RST: the connection is gone


@dataclass
class Way:
    """What the links of one direction have in common.

    Attributes:
        faults: what is wrong now.
        bytes: passed so far.
    """

    faults: Faults
    bytes: int = 0


@dataclass
class Chunk:
    """Bytes under way, or with none the signal that ends them.

    Attributes:
        came: when, by the loop's clock.
        luck: its share of the jitter, from 0 to 1.
        rest: what has not left yet.
        signal: told to the other end when no bytes are left.
    """

    came: float
    luck: float
    rest: memoryview
    signal: Signal | None = None


class Link:
    """One direction of one connection. What is fed in leaves in order, as the faults of the moment allow.

    Attributes:
        source: where bytes come from; it is held up when too many are under way.
        sink: where they leave; until it is known they wait.
        blocked: whether the sink takes no more for now.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, way: Way, random: Random) -> None:
        self.source: End | None = None
        self.sink: End | None = None
        self.blocked = False
        self._loop = loop
        self._way = way
        self._random = random
        self._waiting: deque[Chunk] = deque()
        self._size = 0
        self._free_at = 0.0  # when the piece before has passed a line of limited bandwidth
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, came: bytes | Signal) -> None:
        """Take in a chunk, or the end of the stream."""
        data, signal = (b"", came) if isinstance(came, Signal) else (came, None)
        self._waiting.append(Chunk(self._loop.time(), self._random.random(), memoryview(data), signal))
        self._size += len(data)
        if self._timer is None:
            self.release()
        self.regulate()

    def resume(self) -> None:
        """Go on after a change: of the faults, or because the sink has become known."""
        self._free_at = self._loop.time()  # a line that stood still does not make up for it
        self.release()
        self.regulate()

    def release(self) -> None:
        """Send all that is due, and wake up when more is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self.sink is not None and self._waiting and not self._way.faults.black_hole:
            size, moment = self._next_piece()
            if moment > self._loop.time():
                self._timer = self._loop.call_at(moment, self._wake)
                break
            self._free_at = moment
            self._leave(self.sink, size)

    def regulate(self) -> None:
        """Hold the source up, or let it go on."""
        if self.source is not None:
            self.source.read(not self.blocked and self._size <= LARGEST_QUEUE)

    def _wake(self) -> None:
        self.release()
        self.regulate()

    def _next_piece(self) -> tuple[int, float]:
        """How many bytes leave next, and when; a signal leaves as no bytes."""
        faults, chunk = self._way.faults, self._waiting[0]
        due = chunk.came + (faults.latency_ms + chunk.luck * faults.jitter_ms) / 2000
        rate = faults.bytes_per_second
        if rate is None:
            return len(chunk.rest), due
        size = min(len(chunk.rest), max(1, int(rate * SLICE_SECONDS)))
        return size, max(due, self._free_at) + size / rate

    def _leave(self, sink: "End", size: int) -> None:
        chunk = self._waiting[0]
        piece, chunk.rest = bytes(chunk.rest[:size]), chunk.rest[size:]
        self._size -= size
        self._way.bytes += size
        if not chunk.rest:
            self._waiting.popleft()
        sink.send(chunk.signal or piece)


class End(asyncio.Protocol):
    """One end of a proxied connection: what it receives goes into a link, what it is sent comes out of another."""

    def __init__(self, connection: "Connection", receives: Link, sends: Link) -> None:
        self.heard_all = False
        self._connection = connection
        self._receives = receives
        self._sends = sends
        self._transport: asyncio.Transport | None = None
        self._told_all = False
        self._broken = False
        receives.source = self

    @property
    def open(self) -> bool:
        """Whether it is connected."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to send; asyncio has set TCP_NODELAY."""
        self._transport = cast("asyncio.Transport", transport)
        if self._broken:
            self.abort()
        self._sends.sink = self
        self._sends.resume()
        self._receives.regulate()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self._receives.feed(data)

    def eof_received(self) -> bool:
        """Pass the end of the stream on; the other direction stays open.

        To be told twice does no harm: asyncio hears an end again when it reads on after a pause.
        """
        self.heard_all = True
        self._receives.feed(Signal.END)
        self._close_if_done()
        self._connection.changed()
        return True

    def send(self, what: bytes | Signal) -> None:
        """Send bytes, or the end of them."""
        if self._transport is None or self._transport.is_closing():
            return
        if what is Signal.BREAK:
            self.abort()
        elif what is Signal.END:
            with suppress(OSError):  # the other side is gone already
                self._transport.write_eof()
            self._told_all = True
            self._close_if_done()
        else:
            self._transport.write(what)

    def _close_if_done(self) -> None:
        if self.heard_all and self._told_all and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that broke breaks on the other side, too; one that ended has told so already."""
        self._transport = None
        if exc is not None:
            self._receives.feed(Signal.BREAK)
        self._connection.changed()

    def abort(self) -> None:
        """Reset the connection, now or as soon as it is made."""
        self._broken = True
        if self._transport is not None:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            self._transport.abort()

    def pause_writing(self) -> None:
        """This end takes no more for now: read no more at the other."""
        self._sends.blocked = True
        self._sends.regulate()

    def resume_writing(self) -> None:
        """This end takes more again."""
        self._sends.blocked = False
        self._sends.regulate()

    def read(self, wanted: bool) -> None:
        """Go on receiving, or stop for a while."""
        if self._transport is not None and wanted:
            self._transport.resume_reading()
        elif self._transport is not None:
            self._transport.pause_reading()


class Connection:
    """A client's connection, and the one to the server that it is joined with."""

    def __init__(self, proxy: "Proxy", number: int) -> None:
        loop = asyncio.get_running_loop()
        self._proxy = proxy
        self._there = Link(loop, proxy.there, _seeded(proxy.seed, number, "there"))
        self._back = Link(loop, proxy.back, _seeded(proxy.seed, number, "back"))
        self.near = End(self, self._there, self._back)
        self._far = End(self, self._back, self._there)
        self._joining: asyncio.Task[None] | None = None  # the loop itself keeps no task alive

    @property
    def open(self) -> bool:
        """Whether any end is connected."""
        return self.near.open or self._far.open

    def adapt(self) -> None:
        """Follow the proxy's faults."""
        faults = self._proxy.there.faults
        if faults.reset:
            self._break()
            return
        if self._joining is None and not faults.black_hole:
            self._joining = asyncio.get_running_loop().create_task(self._join())
        self._there.resume()
        self._back.resume()

    def changed(self) -> None:
        """An end heard its last, or was lost."""
        if self._joining is None and (self.near.heard_all or not self.near.open):
            self._break()  # given up in a black hole, before the server could know of it
        if not self.open and (self._joining is None or self._joining.done()):
            self._proxy.connections.discard(self)

    async def _join(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self._far, *self._proxy.target)
        except OSError:
            self.near.abort()
        finally:  # when the client has gone before, nothing else forgets it
            if not self.open:
                self._proxy.connections.discard(self)

    def _break(self) -> None:
        if self._joining is not None:
            self._joining.cancel()
        self.near.abort()
        self._far.abort()


def _seeded(*parts: object) -> Random:
    return Random(" ".join(map(str, parts)))  # noqa: S311 - repeatable, no secret


class Proxy:
    """Joins every connection to its port with one to the target.

    Attributes:
        target: host and port of the server.
        seed: of the jitter.
        there: the direction to the server.
        back: the direction to the clients.
        connections: the open ones.
    """

    def __init__(self, port: int, target: tuple[str, int], seed: int) -> None:
        self.target = target
        self.seed = seed
        self.there = Way(CALM)
        self.back = Way(CALM)
        self.connections: set[Connection] = set()
        self._port = port
        self._server: asyncio.Server | None = None
        self._accepted = 0

    async def obey(self, control: socket.socket) -> None:
        """Do what the owner says, a line of JSON each, and answer each, until it is gone."""
        reader, writer = await asyncio.open_connection(sock=control)
        while line := await reader.readline():
            writer.write(json.dumps(await self._answer(json.loads(line))).encode() + b"\n")

    async def _answer(self, faults: dict[str, Any] | None) -> dict[str, object]:
        if faults is not None:
            try:
                await self._change(Faults(**faults))
            except OSError as error:
                return {"error": str(error)}
        return asdict(Traffic(len(self.connections), self._accepted, self.there.bytes, self.back.bytes))

    async def _change(self, faults: Faults) -> None:
        self.there.faults = self.back.faults = faults
        await self._listen(not faults.refuse)
        affected = list(self.connections)
        for connection in affected:
            connection.adapt()
        while faults.reset and any(connection.open for connection in affected):
            await asyncio.sleep(0)  # asyncio closes sockets in the next turn of its loop

    async def _listen(self, wanted: bool) -> None:
        if wanted and self._server is None:
            listener = bound_socket(self._port)
            self._server = await asyncio.get_running_loop().create_server(self._accept, sock=listener, backlog=BACKLOG)
        elif not wanted and self._server is not None:
            self._server.close()
            self._server = None

    def _accept(self) -> End:
        """The near end of a new connection; its far end is connected meanwhile."""
        self._accepted += 1
        connection = Connection(self, self._accepted)
        self.connections.add(connection)
        connection.adapt()
        return connection.near


if sys.platform == "linux":

    class FineSelector(selectors.EpollSelector):
        """Waits for microseconds: Python's epoll counts whole milliseconds, rounded up, and 0.5 ms would become one.

        So select(2), which counts finer, waits for the one descriptor of the epoll. On its own it could not have
        descriptors above 1023.
        """

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """Wait as the base class does."""
            if timeout is None or timeout <= 0:
                return super().select(timeout)
            select.select([self.fileno()], [], [], timeout)
            return super().select(0)

else:
    FineSelector = selectors.DefaultSelector  # kqueue counts nanoseconds


def main(control: str, port: str, host: str, target_port: str, seed: str) -> None:
    """Run a proxy until the other end of its control socket is closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS has a lower limit than the one it tells
        wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(MOST_DESCRIPTORS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    loop = asyncio.SelectorEventLoop(FineSelector())
    proxy = Proxy(int(port), (host, int(target_port)), int(seed))
    loop.run_until_complete(proxy.obey(socket.socket(fileno=int(control))))


if __name__ == "__main__":
    main(*sys.argv[1:])
