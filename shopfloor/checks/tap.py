"""A proxy on the way to a server: hears what passes, and can make the server seem slow, silent or gone.

It runs in threads of the process that judges, so that a check can change what it does from one request to the next.
"""

import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, Protocol

CHUNK = 65536

State = Literal["well", "silent", "gone"]
Hear = Callable[[bytes], None]


class Conversation(Protocol):
    """Understands one connection. Each method may raise ValueError if what it hears makes no sense."""

    def begin(self, client: socket.socket) -> bytes:
        """What the server must be sent before the bytes that follow, read from the client. May raise EOFError."""

    def asked(self, data: bytes) -> None:
        """Hear what the client sends."""

    def answered(self, data: bytes) -> None:
        """Hear what the server sends."""


class Tap:
    """Joins each connection to one of its own to the server, with a thread for each direction.

    Attributes:
        port: where it listens, on the loopback interface.
    """

    def __init__(self, listener: socket.socket, server: tuple[str, int], converse: Callable[[], Conversation]) -> None:
        self.port: int = listener.getsockname()[1]
        self._listener, self._server, self._converse = listener, server, converse
        self._changed = threading.Condition()
        self._state: State = "well"
        self._delay = 0.0
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._threads: list[threading.Thread] = []
        self._stopped = False

    def start(self) -> None:
        """Take connections."""
        self._spawn(self._accept)

    def stop(self) -> None:
        """Hang up on everyone, and return when no thread is left."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            self._hang_up_on_all()
        with suppress(OSError):  # closing a listener does not wake who waits on it; a caller does
            socket.create_connection(self._listener.getsockname(), timeout=1).close()
        for thread in self._threads:  # the one that starts others comes first
            thread.join()

    @contextmanager
    def being(self, state: State) -> Iterator[None]:
        """Have the server seem to be in a state while the block runs.

        Args:
            state: `silent`: connections stand, new ones are taken, and nothing comes through until it is well again;
                `gone`: every connection is broken, and so is each new one.
        """
        self._become(state)
        try:
            yield
        finally:
            self._become("well")

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Have whatever is sent to the server come later while the block runs."""
        self._delay = seconds
        try:
            yield
        finally:
            self._delay = 0.0

    def _become(self, state: State) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()
            if state == "gone":
                self._hang_up_on_all()

    def _hang_up_on_all(self) -> None:
        for connection in self._open:
            hang_up(connection)

    def _spawn(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        while not self._stopped:
            try:
                client, _ = self._listener.accept()
            except OSError:  # no descriptor left, or the caller is gone already
                time.sleep(0.01)
            else:
                self._spawn(self._join, client)

    def _join(self, client: socket.socket) -> None:
        with client, suppress(OSError, EOFError, ValueError):  # someone hung up, or does not speak the protocol
            self._keep(client)
            talk = self._converse()
            self._wait_while_silent()
            beginning = talk.begin(client)
            with socket.create_connection(self._server) as server:
                self._keep(server)
                server.sendall(beginning)
                back = self._spawn(self._pass_on, server, client, talk.answered)
                self._pass_on(client, server, talk.asked, delayed=True)
                back.join()

    def _keep(self, connection: socket.socket) -> None:
        """Have others hang up on a connection; at once, when they have."""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._changed:
            self._open.add(connection)
            if self._stopped or self._state == "gone":
                hang_up(connection)

    def _pass_on(self, source: socket.socket, target: socket.socket, hear: Hear, *, delayed: bool = False) -> None:
        """Hear, then pass on, so that what the program has been answered is recorded by then."""
        try:
            with suppress(OSError, ValueError):
                while data := source.recv(CHUNK):
                    hear(data)
                    if delayed and self._delay:
                        time.sleep(self._delay)
                    self._wait_while_silent()
                    target.sendall(data)
        finally:
            hang_up(source)
            hang_up(target)

    def _wait_while_silent(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._state != "silent" or self._stopped)


@contextmanager
def tapping(server: tuple[str, int], converse: Callable[[], Conversation]) -> Iterator[Tap]:
    """Put a tap in front of a server while the block runs.

    Args:
        server: its host and port.
        converse: makes what understands a connection.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        tap = Tap(listener, server, converse)
        tap.start()
        try:
            yield tap
        finally:
            tap.stop()


def hang_up(connection: socket.socket) -> None:
    """End a connection in both directions, whoever waits on it."""
    with suppress(OSError):  # it is closed already
        connection.shutdown(socket.SHUT_RDWR)
