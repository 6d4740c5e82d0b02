"""Network distance on one machine: a TCP proxy that delays what passes through it.

The proxy is a process of its own, so that it does not wait for the measured program's interpreter lock.
Each chunk of bytes leaves a fixed time after it came, whatever comes behind it: the delay costs no bandwidth.
"""

import asyncio
import contextlib
import selectors
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from urllib.parse import SplitResult, urlsplit

from shopfloor.errors import UserError
from shopfloor.services.process import start_child, wait_until_ready

DEFAULT_PORTS = {"postgresql": 5432, "postgres": 5432, "redis": 6379}

READY = "ready\n"
"""What the proxy prints when it takes connections."""


@contextlib.contextmanager
def latency(url: str, milliseconds: float) -> Iterator[str]:
    """Put a server at a distance while the block runs.

    Connections that are still open at the end of the block are cut.

    Args:
        url: where the server is, such as `Database.url`.
        milliseconds: what every round trip takes longer, half of it on the way there. With 0 the bytes still pass
            through the proxy, which makes it the fair thing to compare with.

    Yields:
        The URL to use instead.

    Raises:
        UserError: the URL names no TCP address.
    """
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS.get(parts.scheme.partition("+")[0])
    if not parts.hostname or not port:
        raise UserError(f"{parts.scheme}://… names no host and port, so nothing can be put in between.")
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "proxy.log"
        command = [sys.executable, "-m", __name__, str(listener.fileno()), parts.hostname, str(port), str(milliseconds)]
        with start_child(command, log=log, pass_fds=[listener.fileno()]) as child:
            wait_until_ready(child, lambda: log.read_text() == READY, name="The latency proxy")
            yield _with_address(parts, listener.getsockname()[1])


def _with_address(parts: SplitResult, port: int) -> str:
    credentials, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{credentials}{at}127.0.0.1:{port}").geturl()


class Link:
    """One direction of one connection. What is fed in leaves after the delay, in order.

    Attributes:
        delay: seconds between a chunk's arrival and its departure.
        sink: where chunks leave; until it is known they wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        self.delay = delay
        self.sink: End | None = None
        self._loop = loop
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, data: bytes | None) -> None:
        """Take a chunk in; None is the end of the stream."""
        self._waiting.append((self._loop.time() + self.delay, data))
        if self._timer is None:
            self.release()

    def release(self) -> None:
        """Send all that is due, and wake up when the next chunk is."""
        self._timer = None
        if self.sink is None:
            return
        while self._waiting and self._waiting[0][0] <= self._loop.time():
            self.sink.send(self._waiting.popleft()[1])
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0][0], self.release)


class End(asyncio.Protocol):
    """One end of a proxied connection: what it receives goes into a link, what it is sent comes out of another."""

    def __init__(self, receives: Link, sends: Link) -> None:
        self.peer: End | None = None
        self._receives = receives
        self._sends = sends
        self._transport: asyncio.Transport | None = None
        self._open_directions = 2
        self._broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to send; asyncio has set TCP_NODELAY."""
        self._transport = cast("asyncio.Transport", transport)
        if self._broken:
            self._transport.abort()
        self._sends.sink = self
        self._sends.release()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self._receives.feed(data)

    def eof_received(self) -> bool:
        """Pass the end of the stream on; the other direction stays open."""
        self._receives.feed(None)
        self._direction_ended()
        return True

    def send(self, data: bytes | None) -> None:
        """Send a chunk; None is the end of the stream."""
        if self._transport is None or self._transport.is_closing():
            return
        if data is not None:
            self._transport.write(data)
        else:
            self._transport.write_eof()
            self._direction_ended()

    def _direction_ended(self) -> None:
        self._open_directions -= 1
        if not self._open_directions and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that broke breaks on the other side, too; one that ended has told so already."""
        if exc is not None and self.peer is not None:
            self.peer.abort()

    def abort(self) -> None:
        """Break the connection off, now or as soon as it is made."""
        self._broken = True
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        """This end takes no more for now: read no more at the other."""
        if self.peer is not None:
            self.peer.read(False)

    def resume_writing(self) -> None:
        """This end takes more again."""
        if self.peer is not None:
            self.peer.read(True)

    def read(self, wanted: bool) -> None:
        """Go on receiving, or stop for a while."""
        if self._transport is not None and wanted:
            self._transport.resume_reading()
        elif self._transport is not None:
            self._transport.pause_reading()


class Proxy:
    """Joins every connection to the listening socket with one to the target."""

    def __init__(self, host: str, port: int, delay: float) -> None:
        self._host = host
        self._port = port
        self._delay = delay
        self._joining: set[asyncio.Task[None]] = set()

    def accept(self) -> End:
        """The near end of a new connection; its far end is connected meanwhile."""
        loop = asyncio.get_running_loop()
        there, back = Link(loop, self._delay), Link(loop, self._delay)
        near, far = End(there, back), End(back, there)
        near.peer, far.peer = far, near
        task = loop.create_task(self._join(near, far))
        self._joining.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(self._joining.discard)
        return near

    async def _join(self, near: End, far: End) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, self._host, self._port)
        except OSError:
            near.abort()


async def _serve(listener: socket.socket, proxy: Proxy) -> None:
    server = await asyncio.get_running_loop().create_server(proxy.accept, sock=listener)
    print(READY, end="", flush=True)
    await server.serve_forever()


def main(descriptor: str, host: str, port: str, milliseconds: str) -> None:
    """Run the proxy on a socket that listens already."""
    # epoll counts whole milliseconds and rounds up, which would make 0.5 ms one; select counts microseconds.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    proxy = Proxy(host, int(port), delay=float(milliseconds) / 2000)
    loop.run_until_complete(_serve(socket.socket(fileno=int(descriptor)), proxy))


if __name__ == "__main__":
    main(*sys.argv[1:])
