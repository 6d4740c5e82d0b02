import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psutil
import pytest
from sqlalchemy import create_engine, text

from shopfloor.errors import UserError
from shopfloor.latency import Link, latency
from shopfloor.services import Services
from tests.helpers import wait_until


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A TCP server that lets `answer` talk on each connection, one after another."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def receive_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def reverse(connection: socket.socket) -> None:
    """Answer the whole of what came, once it has all come."""
    connection.sendall(receive_all(connection)[::-1])


class Clock:
    """A loop whose time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> object:
        self.timers.append((when, callback))
        return self.timers[-1]

    def advance(self, to: float) -> None:
        self.now = to
        due = [timer for timer in self.timers if timer[0] <= to]
        self.timers = [timer for timer in self.timers if timer[0] > to]
        for _, callback in due:
            callback()


class Sink:
    def __init__(self) -> None:
        self.sent: list[bytes | None] = []

    def send(self, data: bytes | None) -> None:
        self.sent.append(data)


def test_each_chunk_leaves_after_the_delay_whatever_comes_behind_it() -> None:
    clock, sink = Clock(), Sink()
    link = Link(clock, delay=1.0)
    link.sink = sink
    for at, chunk in ((0.0, b"a"), (0.1, b"b"), (0.9, b"c")):
        clock.advance(at)
        link.feed(chunk)
    clock.advance(0.99)
    assert sink.sent == []
    clock.advance(1.0)
    assert sink.sent == [b"a"]
    clock.advance(1.1)
    assert sink.sent == [b"a", b"b"]
    clock.advance(2.5)
    link.feed(None)
    assert sink.sent == [b"a", b"b", b"c"]
    clock.advance(3.5)
    assert sink.sent == [b"a", b"b", b"c", None]


def test_what_comes_before_the_other_end_is_connected_waits() -> None:
    clock, sink = Clock(), Sink()
    link = Link(clock, delay=0.0)
    link.feed(b"a")
    link.feed(b"b")
    assert sink.sent == []
    link.sink = sink
    link.release()
    assert sink.sent == [b"a", b"b"]


def test_a_round_trip_takes_the_delay_longer(services: Services) -> None:
    with latency(services.database_url, milliseconds=30) as url:
        engine = create_engine(url)
        with engine.connect() as connection:
            start = time.perf_counter()
            assert connection.execute(text("SELECT 1")).scalar() == 1
            assert time.perf_counter() - start >= 0.030
        engine.dispose()


def test_the_url_keeps_all_but_the_address() -> None:
    original = "postgresql+psycopg://user:p%40ss@127.0.0.1:1/shop?application_name=x"
    with latency(original, milliseconds=0) as url:
        there = urlsplit(url)
        assert there.hostname == "127.0.0.1"
        assert there.port != 1
        assert url == original.replace("127.0.0.1:1/", f"127.0.0.1:{there.port}/")


def test_much_data_passes_whole_and_in_order() -> None:
    data = bytes(range(256)) * 40_000
    with server(reverse) as target, latency(target, milliseconds=2) as url, connect(url) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection) == data[::-1]


def test_many_connections_at_once(services: Services) -> None:
    with latency(services.database_url, milliseconds=1) as url:
        engine = create_engine(url, pool_size=8)
        connections = [engine.connect() for _ in range(8)]
        answers = [connection.scalar(text("SELECT :n"), {"n": n}) for n, connection in enumerate(connections)]
        assert answers == list(range(8))
        for connection in connections:
            connection.close()
        engine.dispose()


def test_a_broken_connection_breaks_on_the_other_side() -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with server(reset) as target, latency(target, milliseconds=0) as url, connect(url) as connection:
        connection.sendall(b"x")
        assert ended(connection)


def test_a_target_that_is_not_there_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with latency(f"tcp://127.0.0.1:{port}", milliseconds=0) as url, connect(url) as connection:
        assert ended(connection)


def test_ended_connections_leave_nothing_open() -> None:
    with server(reverse) as target, latency(target, milliseconds=0) as url:
        children = psutil.Process().children(recursive=True)
        (proxy,) = (process for process in children if process.cmdline()[1:3] == ["-m", "shopfloor.latency"])
        before = proxy.num_fds()
        for _ in range(20):
            with connect(url) as connection:
                connection.sendall(b"ab")
                connection.shutdown(socket.SHUT_WR)
                assert receive_all(connection) == b"ba"
        wait_until(lambda: proxy.num_fds() == before)


def test_the_proxy_ends_with_the_block() -> None:
    with server(reverse) as target:
        with latency(target, milliseconds=0) as url:
            connection = connect(url)
        with connection:
            assert ended(connection)


@pytest.mark.parametrize("url", ["postgresql:///shop?host=/run/postgresql", "smtp://localhost"])
def test_a_url_without_a_tcp_address_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="names no host and port"), latency(url, milliseconds=1):
        pass
