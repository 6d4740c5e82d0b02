"""Each fault, before real servers and changed while connections are open."""

import errno
import math
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import create_engine, text

from shopfloor.errors import UserError
from shopfloor.faults import PROCESS, FaultProxy, Faults, fault_proxy, latency
from shopfloor.services import Services
from tests.helpers import wait_until
from tests.services.conftest import assert_gone

HOUR = 3_600_000
UNANSWERED = 0.2  # seconds; how long a test waits for what must not come


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
        try:
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


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


def echo(connection: socket.socket) -> None:
    try:
        while data := connection.recv(65536):
            connection.sendall(data)
    except ConnectionResetError:
        pass


def round_trip(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    answer = b""
    while len(answer) < len(data):
        more = connection.recv(65536)
        assert more
        answer += more
    return answer


def proxy_process() -> psutil.Process:
    children = psutil.Process().children(recursive=True)
    (process,) = (child for child in children if child.cmdline()[1:3] == ["-m", PROCESS])
    return process


# Clients of the three kinds of service. Each keeps one connection open, and has no patience of its own.


class Postgres:
    failures = (psycopg.OperationalError,)

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)

    def ask(self) -> None:
        assert self._connection.execute("SELECT 42").fetchone() == (42,)

    def close(self) -> None:
        self._connection.close()


class Valkey:
    failures = (redis.ConnectionError,)

    def __init__(self, url: str, timeout: float = 30) -> None:
        self._client = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0)
        )

    def ask(self) -> None:
        assert self._client.echo("hello") == b"hello"

    def close(self) -> None:
        self._client.close()


class Http:
    failures = (ConnectionError,)

    def __init__(self, url: str, timeout: float = 30) -> None:
        parts = urlsplit(url)
        self._connection = HTTPConnection(parts.hostname, parts.port, timeout=timeout)

    def ask(self, path: str = "/") -> None:
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        assert response.status == 200
        assert response.read() == path.encode()

    def close(self) -> None:
        self._connection.close()


@dataclass
class Site:
    """A web server that remembers what it was asked for."""

    url: str = ""
    paths: list[str] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            known.paths.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.path)))
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            assert isinstance(sys.exception(), OSError)  # a client that is gone

    known = Site()
    with Server(("127.0.0.1", 0), Handler) as running:
        known.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield known
        running.shutdown()
        thread.join()


Client = Postgres | Valkey | Http


@dataclass
class Service:
    client: type[Client]
    url: str


@pytest.fixture(params=[Postgres, Valkey, Http])
def service(request: pytest.FixtureRequest, services: Services, site: Site) -> Service:
    urls = {Postgres: services.database_url, Valkey: services.redis_url, Http: site.url}
    return Service(request.param, urls[request.param])


@pytest.fixture
def proxy(service: Service) -> Iterator[FaultProxy]:
    with fault_proxy(service.url) as running:
        yield running


@pytest.fixture
def client(service: Service, proxy: FaultProxy) -> Iterator[Client]:
    with closing(service.client(proxy.url)) as connected:
        connected.ask()  # so that it is connected indeed
        yield connected


def ask_anew(service: Service, proxy: FaultProxy) -> None:
    with closing(service.client(proxy.url)) as another:
        another.ask()


def test_latency_reaches_an_open_connection(proxy: FaultProxy, client: Client) -> None:
    proxy.set(Faults(latency_ms=50))
    start = time.perf_counter()
    client.ask()
    assert time.perf_counter() - start >= 0.050


def test_calm_frees_what_is_delayed(proxy: FaultProxy, client: Client) -> None:
    proxy.set(Faults(latency_ms=HOUR))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.ask)
        with pytest.raises(TimeoutError):
            asked.result(UNANSWERED)
        proxy.calm()
        asked.result(10)


def test_a_reset_breaks_open_connections_and_new_ones(service: Service, proxy: FaultProxy, client: Client) -> None:
    proxy.set(Faults(reset=True))
    assert proxy.connections == 0
    with pytest.raises(client.failures):
        client.ask()
    with pytest.raises(client.failures):
        ask_anew(service, proxy)
    proxy.calm()
    ask_anew(service, proxy)


def test_refused_connections_leave_open_ones_alone(service: Service, proxy: FaultProxy, client: Client) -> None:
    proxy.set(Faults(refuse=True))
    with pytest.raises(client.failures, match="refused"):
        ask_anew(service, proxy)
    client.ask()
    proxy.calm()
    ask_anew(service, proxy)
    client.ask()


def test_a_crash_is_a_reset_and_refusal(service: Service, proxy: FaultProxy, client: Client) -> None:
    proxy.set(Faults(reset=True, refuse=True))
    with pytest.raises(client.failures):
        client.ask()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy.url)
    proxy.calm()
    ask_anew(service, proxy)


def test_a_black_hole_answers_late(service: Service, proxy: FaultProxy, client: Client) -> None:
    before = proxy.traffic
    proxy.set(Faults(black_hole=True))
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(client.ask), pool.submit(ask_anew, service, proxy)]
        for future in asked:
            with pytest.raises(TimeoutError):
                future.result(UNANSWERED)
        held = proxy.traffic
        assert (held.bytes_there, held.bytes_back) == (before.bytes_there, before.bytes_back)
        assert held.connections == before.connections + 1
        proxy.calm()
        for future in asked:
            future.result(10)


@pytest.mark.parametrize("faults", [Faults(latency_ms=HOUR), Faults(black_hole=True), Faults(bytes_per_second=1e-6)])
def test_calm_frees_an_answer_on_its_way_back(faults: Faults) -> None:
    def answer_when_told(connection: socket.socket) -> None:
        connection.sendall(connection.recv(1))
        told.wait(30)
        connection.sendall(b"late")

    told = threading.Event()
    with server(answer_when_told) as target, fault_proxy(target) as proxy, connect(proxy.url) as connection:
        assert round_trip(connection, b"x") == b"x"
        proxy.set(faults)
        told.set()
        connection.settimeout(UNANSWERED)
        with pytest.raises(TimeoutError):
            connection.recv(4)
        proxy.calm()
        connection.settimeout(10)
        assert receive_all(connection) == b"late"


@pytest.mark.parametrize("kind", [Valkey, Http])
def test_timeouts_fire_in_a_black_hole(kind: type[Valkey | Http], services: Services, site: Site) -> None:
    with (
        fault_proxy(services.redis_url if kind is Valkey else site.url) as proxy,
        closing(kind(proxy.url, timeout=UNANSWERED)) as client,
    ):
        client.ask()
        proxy.set(Faults(black_hole=True))
        for _ in range(2):  # on the open connection, then on a new one
            with pytest.raises((TimeoutError, redis.TimeoutError)):
                client.ask()
            client.close()
        proxy.calm()
        client.ask()


def test_a_request_that_timed_out_in_a_black_hole_is_done_nevertheless(site: Site) -> None:
    with fault_proxy(site.url) as proxy:
        client = Http(proxy.url, timeout=UNANSWERED)
        client.ask()
        proxy.set(Faults(black_hole=True))
        with pytest.raises(TimeoutError):
            client.ask("/charge")
        client.close()
        assert site.paths == ["/"]
        proxy.calm()
        wait_until(lambda: site.paths == ["/", "/charge"])
        wait_until(lambda: proxy.connections == 0)


def test_a_connection_made_and_given_up_in_a_black_hole_never_reaches_the_server(site: Site) -> None:
    with fault_proxy(site.url, Faults(black_hole=True)) as proxy:
        client = Http(proxy.url, timeout=UNANSWERED)
        with pytest.raises(TimeoutError):
            client.ask("/charge")
        client.close()
        wait_until(lambda: proxy.connections == 0)
        proxy.calm()
        client.ask("/after")
        client.close()
    assert site.paths == ["/after"]


def test_a_reset_ends_what_hangs_in_a_black_hole() -> None:
    with (
        server(echo) as target,
        fault_proxy(target) as proxy,
        connect(proxy.url) as before,
    ):
        assert round_trip(before, b"x") == b"x"
        proxy.set(Faults(black_hole=True))
        with connect(proxy.url) as during:
            for connection in (before, during):
                connection.sendall(b"y")
            wait_until(lambda: proxy.connections == 2)
            proxy.set(Faults(reset=True))
            for connection in (before, during):
                with pytest.raises(ConnectionResetError):
                    connection.recv(1)


def test_connections_are_gone_when_the_reset_returns() -> None:
    with server(echo) as target, fault_proxy(target, Faults(black_hole=True)) as proxy:
        process = proxy_process()
        before = process.num_fds()
        connections = [connect(proxy.url) for _ in range(100)]
        wait_until(lambda: proxy.connections == len(connections))
        proxy.set(Faults(reset=True))
        assert process.num_fds() == before
        for connection in connections:
            connection.close()


@contextmanager
def full_server() -> Iterator[str]:
    """A server that accepts no more: who calls it waits."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as waiting:
        for _ in range(3):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


def test_a_reset_reaches_who_waits_for_a_server_that_accepts_no_more() -> None:
    with full_server() as target, fault_proxy(target) as proxy, connect(proxy.url) as connection:
        wait_until(lambda: proxy.connections == 1)
        proxy.set(Faults(reset=True))
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        wait_until(lambda: proxy.connections == 0)


def test_a_client_that_gave_up_is_forgotten_when_the_server_cannot_be_reached() -> None:
    with ExitStack() as proxied:
        with full_server() as target:
            proxy = proxied.enter_context(fault_proxy(target))
            with connect(proxy.url) as connection:
                wait_until(lambda: proxy.connections == 1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_until(lambda: proxy.connections == 0)  # a second later, when the system calls again and is refused


def test_a_reset_is_one_on_both_sides() -> None:
    outcome: list[bytes | OSError] = []

    def note(connection: socket.socket) -> None:
        try:
            outcome.append(connection.recv(1))
            outcome.append(connection.recv(1))
        except OSError as error:
            outcome.append(error)

    with server(note) as target, fault_proxy(target) as proxy, connect(proxy.url) as connection:
        connection.sendall(b"x")
        wait_until(lambda: outcome)
        proxy.set(Faults(reset=True))
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        wait_until(lambda: len(outcome) == 2)
        assert isinstance(outcome[1], ConnectionResetError)


@pytest.mark.parametrize("faults", [Faults(), Faults(latency_ms=20), Faults(bytes_per_second=5000)])
def test_a_reset_of_the_servers_own_arrives_behind_its_answer(faults: Faults) -> None:
    def answer_and_reset(connection: socket.socket) -> None:
        connection.sendall(connection.recv(1) * 100)
        proxied.wait(30)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    proxied = threading.Event()
    with server(answer_and_reset) as target, fault_proxy(target, faults) as proxy, connect(proxy.url) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        proxied.set()
        for _ in range(99):
            assert connection.recv(1) == b"x"
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_the_port_is_kept_while_connections_are_refused() -> None:
    with server(echo) as target, fault_proxy(target, Faults(refuse=True)) as proxy:
        port = urlsplit(proxy.url).port
        with pytest.raises(ConnectionRefusedError):
            connect(proxy.url)
        with socket.socket() as thief:
            with pytest.raises(OSError, match="in use") as caught:
                thief.bind(("127.0.0.1", port))
            assert caught.value.errno == errno.EADDRINUSE
        for _ in range(20):
            proxy.calm()
            with connect(proxy.url) as connection:
                assert round_trip(connection, b"x") == b"x"
            proxy.set(Faults(refuse=True))
            with pytest.raises(ConnectionRefusedError):
                connect(proxy.url)


def test_bandwidth_is_limited_each_way() -> None:
    size, rate = 30_000, 100_000
    data = bytes(range(250)) * (size // 250)
    with server(reverse) as target, fault_proxy(target) as proxy, connect(proxy.url) as connection:
        proxy.set(Faults(bytes_per_second=rate))
        start = time.perf_counter()
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection) == data[::-1]
        assert time.perf_counter() - start >= 2 * size / rate


def test_calm_frees_what_a_narrow_line_holds_up() -> None:
    data = os.urandom(1_000_000)
    with server(reverse) as target, fault_proxy(target) as proxy, connect(proxy.url) as connection:
        proxy.set(Faults(bytes_per_second=10))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert proxy.traffic.bytes_there < len(data) / 2
        proxy.calm()
        assert receive_all(connection) == data[::-1]
        assert proxy.traffic.bytes_there == proxy.traffic.bytes_back == len(data)


def test_thousands_of_small_pieces_stay_in_order_under_jitter_and_changes() -> None:
    pieces = [number.to_bytes(4, "big") for number in range(5000)]
    changes = [Faults(jitter_ms=8), Faults(latency_ms=2, jitter_ms=20), Faults(bytes_per_second=2e6), Faults()]

    def send() -> None:
        for number, piece in enumerate(pieces):
            connection.sendall(piece)
            if number % 250 == 0:
                proxy.set(changes[number // 250 % len(changes)])
        proxy.set(Faults(jitter_ms=8))
        connection.shutdown(socket.SHUT_WR)

    with server(echo) as target, fault_proxy(target) as proxy, connect(proxy.url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(send)
            assert receive_all(connection) == b"".join(pieces)
            sent.result(10)


def test_a_black_hole_takes_a_limited_amount_and_loses_none_of_it() -> None:
    data = os.urandom(1024) * 30_000  # more than the proxy and the kernel's buffers hold
    with server(reverse) as target, fault_proxy(target) as proxy, connect(proxy.url) as connection:
        proxy.set(Faults(black_hole=True))
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(connection.sendall, data)
            with pytest.raises(TimeoutError):
                sent.result(UNANSWERED)
            proxy.calm()
            sent.result(10)
        connection.shutdown(socket.SHUT_WR)
        assert receive_all(connection) == data[::-1]


def test_an_ended_direction_survives_a_receiver_that_pauses() -> None:
    def read_late(connection: socket.socket) -> None:
        told.wait(30)
        reverse(connection)

    told = threading.Event()
    data = os.urandom(1024) * 3500  # all of it fits into the proxy, not into the kernel's buffers behind it
    with server(read_late) as target, fault_proxy(target) as proxy, connect(proxy.url) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        wait_until(lambda: proxy.traffic.bytes_there == len(data))
        told.set()
        assert receive_all(connection) == data[::-1]


def test_more_connections_than_select_can_watch() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = 1200
    if soft < 2 * count:
        pytest.skip("too few descriptors are allowed")
    with server(echo) as target, fault_proxy(target, Faults(black_hole=True)) as proxy:
        connections = [connect(proxy.url) for _ in range(count)]
        wait_until(lambda: proxy.connections == count)
        proxy.set(Faults(reset=True))
        for connection in connections:
            with connection, pytest.raises(ConnectionResetError):
                connection.recv(1)
        proxy.calm()
        with connect(proxy.url) as connection:
            assert round_trip(connection, b"x") == b"x"


def test_traffic_is_counted() -> None:
    with server(echo) as target, fault_proxy(target) as proxy:
        for open_before in range(2):
            with connect(proxy.url) as connection:
                assert round_trip(connection, b"12345") == b"12345"
                traffic = proxy.traffic
                assert (traffic.connections, traffic.accepted) == (1, open_before + 1)
                assert traffic.bytes_there == traffic.bytes_back == 5 * (open_before + 1)
            wait_until(lambda: proxy.connections == 0)


def test_any_thread_may_change_it() -> None:
    with server(echo) as target, fault_proxy(target) as proxy, ThreadPoolExecutor(8) as pool:

        def work(number: int) -> int:
            proxy.set(Faults(latency_ms=number))
            return proxy.connections

        assert list(pool.map(work, range(200))) == [0] * 200


OWNER = """
import sys
from shopfloor.faults import fault_proxy
with fault_proxy("tcp://127.0.0.1:9") as proxy:
    print(proxy.url, flush=True)
    sys.stdin.read()
"""


def test_it_is_gone_with_its_owner() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        url = owner.stdout.readline().decode()
        children = psutil.Process(owner.pid).children(recursive=True)
        assert any(PROCESS in child.cmdline() for child in children)
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        assert_gone(children)
        with pytest.raises(ConnectionRefusedError):
            connect(url)


def test_a_proxy_that_is_gone_says_so() -> None:
    with fault_proxy("tcp://127.0.0.1:9") as proxy:
        proxy_process().kill()
        with pytest.raises(UserError, match="does not answer"):
            proxy.calm()
    with pytest.raises(UserError, match="block is over"):
        proxy.set(Faults(reset=True))


@pytest.mark.parametrize(
    "wrong",
    [
        {"latency_ms": -1},
        {"latency_ms": math.nan},
        {"jitter_ms": math.inf},
        {"bytes_per_second": 0},
        {"bytes_per_second": math.inf},
        {"reset": True, "black_hole": True},
    ],
)
def test_impossible_faults_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Faults(**wrong)


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("postgresql+psycopg://user:p%40ss@127.0.0.1:1/shop?application_name=x", "user:p%40ss@{}/shop"),
        ("redis://:secret@localhost/0", ":secret@{}/0"),
        ("http://localhost/v1?a=b", "http://{}/v1?a=b"),
        ("postgres://localhost/shop", "postgres://{}/shop"),
    ],
)
def test_the_url_keeps_all_but_the_address(url: str, instead: str) -> None:
    with fault_proxy(url, Faults(refuse=True)) as proxy:
        parts = urlsplit(proxy.url)
        assert parts.hostname == "127.0.0.1"
        assert parts.port not in {1, 80, 5432, 6379}
        assert instead.format(f"127.0.0.1:{parts.port}") in proxy.url
        assert parts._replace(netloc=urlsplit(url).netloc).geturl() == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql:///shop?host=/run/postgresql", "names no host and port"),
        ("postgresql://one:1,two:2/shop", "names no host and port"),
        ("smtp://localhost", "names no host and port"),
        ("https://localhost", "encrypted"),
        ("rediss://localhost:6379", "encrypted"),
    ],
)
def test_a_url_without_a_plain_tcp_address_is_refused(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message), fault_proxy(url):
        pass


# At a distance, or with no faults at all.


def test_a_round_trip_takes_the_delay_longer(services: Services) -> None:
    with latency(services.database_url, milliseconds=30) as url:
        engine = create_engine(url)
        with engine.connect() as connection:
            start = time.perf_counter()
            assert connection.execute(text("SELECT 1")).scalar() == 1
            assert time.perf_counter() - start >= 0.030
        engine.dispose()


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


def test_a_target_that_is_not_there_resets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with fault_proxy(f"tcp://127.0.0.1:{port}") as proxy:
        with pytest.raises(ConnectionResetError), connect(proxy.url) as connection:  # connect(2) may tell it already
            connection.recv(1)
        wait_until(lambda: proxy.connections == 0)


def test_ended_connections_leave_nothing_open() -> None:
    with server(reverse) as target, fault_proxy(target) as proxy:
        process = proxy_process()
        before = process.num_fds()
        for _ in range(20):
            with connect(proxy.url) as connection:
                connection.sendall(b"ab")
                connection.shutdown(socket.SHUT_WR)
                assert receive_all(connection) == b"ba"
        wait_until(lambda: process.num_fds() == before)
        assert proxy.connections == 0


def test_the_proxy_ends_with_the_block() -> None:
    with server(reverse) as target:
        with latency(target, milliseconds=0) as url:
            connection = connect(url)
        with connection:
            assert ended(connection)
