"""What a network does to a service: a TCP proxy whose faults are changed while it runs.

The proxy is a process of its own, so that it does not wait for the measured program's interpreter lock.
Each chunk of bytes leaves a fixed time after it came, whatever comes behind it: latency costs no bandwidth.
"""

import asyncio
import json
import math
import resource
import select
import selectors
import socket
import struct
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import Enum, auto
from pathlib import Path
from random import Random
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

from shopfloor.errors import UserError
from shopfloor.services.process import Child, ChildError, log_tail, start_child

DEFAULT_PORTS = {"postgresql": 5432, "postgres": 5432, "redis": 6379, "http": 80}
ENCRYPTED = {"https", "rediss"}
ANSWER_SECONDS = 10.0

BACKLOG = 128
SLICE_SECONDS = 0.005
"""What leaves at once where the bandwidth is limited: no more than fits into this time."""
LARGEST_QUEUE = 4 * 1024 * 1024
"""Bytes under way in one direction before the sender is held up; about Linux's own largest window (tcp(7), tcp_rmem)."""
MOST_DESCRIPTORS = 16384

LINGER_NOT = struct.pack("ii", 1, 0)  # with SO_LINGER: close(2) sends RST in place of FIN


@dataclass(frozen=True)
class Faults:
    """What is wrong with the network, all at once. Without arguments: nothing.

    Attributes:
        latency_ms: milliseconds that every round trip takes longer, half of them each way. Opening a connection is
            not delayed.
        jitter_ms: up to so many milliseconds more, drawn evenly for each chunk. Bytes keep their order, so one late
            chunk holds up all behind it, as in TCP.
        bytes_per_second: what passes at most, on each connection and in each direction; None for no limit.
        reset: open connections are reset (RST), and new ones as soon as they are made.
        refuse: nobody listens (ECONNREFUSED). Open connections stay; together with `reset` it is a server that crashed.
        black_hole: nothing passes and nobody is told, until it ends. New connections are made, and hang. Then
            everything is delivered, late: TCP would have sent it again. That goes for what a client sent before it
            gave up, too: a request that timed out is done nevertheless. Only connections that were both made and
            given up meanwhile never reach the server, whose handshake would have failed.

    Raises:
        ValueError: a number is out of its range, or two faults exclude each other.
    """

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_second: float | None = None
    reset: bool = False
    refuse: bool = False
    black_hole: bool = False

    def __post_init__(self) -> None:
        for name in ("latency_ms", "jitter_ms"):
            milliseconds = getattr(self, name)
            if not 0 <= milliseconds < math.inf:
                raise ValueError(f"{name} is a number of milliseconds, 0 or more; {milliseconds!r} is not.")
        if self.bytes_per_second is not None and not 0 < self.bytes_per_second < math.inf:
            raise ValueError(
                f"bytes_per_second is above 0, or None for no limit; {self.bytes_per_second!r} is not. "
                "For nothing to pass there is black_hole."
            )
        if self.reset and self.black_hole:
            raise ValueError("A connection is either reset or left hanging: choose one of reset and black_hole.")


CALM = Faults()


@dataclass(frozen=True)
class Traffic:
    """What a proxy has seen.

    Attributes:
        connections: open now.
        accepted: connections made since it started.
        bytes_there: passed on to the server.
        bytes_back: passed on to its clients.
    """

    connections: int
    accepted: int
    bytes_there: int
    bytes_back: int


class FaultProxy:
    """A running proxy. Any thread may change it.

    Attributes:
        url: what to use in place of the server's own URL.
    """

    def __init__(self, url: str, control: socket.socket, child: Child) -> None:
        self.url = url
        self._control = control
        self._answers = control.makefile("rb")
        self._child = child
        self._lock = threading.Lock()

    def set(self, faults: Faults) -> None:
        """Put these faults in place of those before, on open connections, too; when it returns, they hold.

        Raises:
            ChildError: the proxy has ended.
        """
        self._ask(asdict(faults))

    def calm(self) -> None:
        """End all faults."""
        self.set(CALM)

    @property
    def traffic(self) -> Traffic:
        """What it has seen so far."""
        return self._ask(None)

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return self.traffic.connections

    def close(self) -> None:
        """Let go of the process."""
        self._answers.close()
        self._control.close()

    def _ask(self, faults: dict[str, Any] | None) -> Traffic:
        with self._lock:
            try:
                self._control.sendall(json.dumps(faults).encode() + b"\n")
                answer = self._answers.readline()
            except OSError:  # closed, reset, or out of time
                answer = b""
        if not answer:
            raise ChildError(
                f"The fault proxy does not answer; it ended, or its block is over.\n{log_tail(self._child.log)}"
            )
        content = json.loads(answer)
        if "error" in content:
            raise ChildError(f"The fault proxy cannot listen on its port again: {content['error']}")
        return Traffic(**content)


@contextmanager
def fault_proxy(url: str, faults: Faults = CALM, *, seed: int = 0) -> Iterator[FaultProxy]:
    """Put a proxy before a server while the block runs.

    Connections that are still open at the end of the block are cut.

    Args:
        url: where the server is: PostgreSQL's, Valkey's, an http one, or any other with a host and a port.
        faults: what is wrong from the beginning.
        seed: of the jitter.

    Yields:
        The proxy; its `url` is the one to use instead, with the same credentials, path and query.

    Raises:
        UserError: the URL names no TCP address, or is one of an encrypted service.
        ChildError: the proxy does not start.
    """
    parts = urlsplit(url)
    host, port = _address(parts)
    with _kept_port() as kept, tempfile.TemporaryDirectory() as folder:
        own = kept.getsockname()[1]
        ours, theirs = socket.socketpair()
        ours.settimeout(ANSWER_SECONDS)
        command = [sys.executable, "-m", __name__, str(theirs.fileno()), str(own), host, str(port), str(seed)]
        with ours:
            with theirs:
                child = start_child(command, log=Path(folder) / "proxy.log", pass_fds=[theirs.fileno()])
            with child:
                proxy = FaultProxy(_with_port(parts, own), ours, child)
                try:
                    proxy.set(faults)  # answered as soon as it listens
                    yield proxy
                finally:
                    proxy.close()


@contextmanager
def latency(url: str, milliseconds: float) -> Iterator[str]:
    """Put a server at a distance while the block runs.

    Args:
        url: where the server is, such as `Database.url`.
        milliseconds: what every round trip takes longer, half of it on the way there. With 0 the bytes still pass
            through the proxy, which makes it the fair thing to compare with.

    Yields:
        The URL to use instead.

    Raises:
        UserError: the URL names no TCP address, or is one of an encrypted service.
    """
    with fault_proxy(url, Faults(latency_ms=milliseconds)) as proxy:
        yield proxy.url


def _address(parts: SplitResult) -> tuple[str, int]:
    scheme = parts.scheme.partition("+")[0]
    if scheme in ENCRYPTED:
        raise UserError(
            f"{parts.scheme}://… is encrypted, and its certificate would not fit the proxy's address. "
            "Put the proxy before a service without TLS."
        )
    try:
        port = parts.port or DEFAULT_PORTS.get(scheme)
    except ValueError:  # not a number, or several hosts
        port = None
    if not parts.hostname or not port:
        raise UserError(f"{parts.scheme}://… names no host and port, so nothing can be put in between.")
    return parts.hostname, port


def _with_port(parts: SplitResult, port: int) -> str:
    credentials, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{credentials}{at}127.0.0.1:{port}").geturl()


def _kept_port() -> socket.socket:
    """A socket that keeps a port while nobody listens on it: no one is given it, as their own or to call from."""
    return _bound(0)


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    # On Linux it lets one socket listen where another is only bound; BSDs want the second option for that.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform != "linux":
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        raise
    return bound


# From here on: the process of the proxy.


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
        """Pass the end of the stream on; the other direction stays open."""
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
        if self._transport is None or self.heard_all:  # asyncio would hear the end a second time
            return
        if wanted:
            self._transport.resume_reading()
        else:
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
            listener = _bound(self._port)
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
