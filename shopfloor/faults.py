"""What a network does to a service: a TCP proxy whose faults are changed while it runs.

The proxy is a process of its own (`fault_process.py`), so that it does not wait for the measured program's
interpreter lock.
"""

import json
import math
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from shopfloor.errors import UserError
from shopfloor.services.process import Child, ChildError, log_tail, start_child

PROCESS = "shopfloor.fault_process"
DEFAULT_PORTS = {"postgresql": 5432, "postgres": 5432, "redis": 6379, "http": 80}
ENCRYPTED = {"https", "rediss"}
ANSWER_SECONDS = 10.0


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
    # Keeps the port while nobody listens: the system gives it to no one, as their own or to call from.
    with bound_socket(0) as kept, tempfile.TemporaryDirectory() as folder:
        own = kept.getsockname()[1]
        ours, theirs = socket.socketpair()
        ours.settimeout(ANSWER_SECONDS)
        command = [sys.executable, "-m", PROCESS, str(theirs.fileno()), str(own), host, str(port), str(seed)]
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


def bound_socket(port: int) -> socket.socket:
    """A socket on a loopback port (0: a free one) that may be bound to a second time, by this function alone.

    Raises:
        OSError: someone else has the port.
    """
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
