"""A provider speaks HTTP/1.1 as it should, to clients that do and to those that do not."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from shopfloor.services.payments import Charges
from shopfloor.services.provider_http import LARGEST_BODY, MOST_AHEAD
from shopfloor.services.providers import Plan, Provider, running
from tests.helpers import wait_until


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running(Provider(Charges())) as provider:
        yield provider


Connect = Callable[[], socket.socket]


@pytest.fixture
def connect(provider: Provider) -> Iterator[Connect]:
    opened: list[socket.socket] = []

    def connect() -> socket.socket:
        address = urlsplit(provider.url)
        opened.append(socket.create_connection((address.hostname, address.port), timeout=30))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def all_of(connection: socket.socket) -> bytes:
    data = b""
    with suppress(ConnectionResetError):
        while more := connection.recv(65536):
            data += more
    return data


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def test_requests_in_advance_are_answered_in_order(provider: Provider, connect: Connect) -> None:
    provider.plan = Plan(script=("slow 0.05", "ok", "error 500"))
    connection = connect()
    connection.sendall(get("/a") + get("/b") + get("/c", "Connection: close"))
    text = all_of(connection).decode()
    assert re.findall(r"HTTP/1\.1 (\d+) ", text) == ["404", "404", "500"]
    assert text.index("GET /a") < text.index("GET /b")
    assert [received.path for received in provider.received()] == ["/a", "/b", "/c"]


def test_requests_too_far_in_advance_are_not_kept(provider: Provider, connect: Connect) -> None:
    provider.plan = Plan(script=("hang",))
    connection = connect()
    with suppress(ConnectionError):
        connection.sendall(get("/a") + get("/b") * MOST_AHEAD)
    assert all_of(connection) == b""
    wait_until(lambda: provider.counts().now == 0)
    assert provider.counts().requests == 1


def test_a_request_in_pieces(provider: Provider, connect: Connect) -> None:
    connection = connect()
    body = b'{"amount": 1, "currency": "EUR", "reference": "x"}'
    head = b"POST /charges HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = head + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    for piece in (pieces[i : i + 7] for i in range(0, len(pieces), 7)):
        connection.sendall(piece)
    assert connection.recv(4096).startswith(b"HTTP/1.1 201 ")
    assert provider.received()[0].body == body


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        get("//["),
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"POST /charges HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST /charges HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4001\r\n" + b"x" * (LARGEST_BODY + 1),
        b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000,
    ],
    ids=lambda text: str(text[:40]),
)
def test_what_is_not_http_is_refused(provider: Provider, connect: Connect, text: bytes) -> None:
    connection = connect()
    with suppress(ConnectionError):
        connection.sendall(text)
    answer = all_of(connection)
    assert answer.split(b"\r\n")[0] in (b"HTTP/1.1 400 Bad Request", b"")  # nothing: it was reset after that
    assert provider.counts().requests == 0
    provider_still_answers = connect()
    provider_still_answers.sendall(get("/stats"))
    assert provider_still_answers.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_answer_to_head_has_no_body(provider: Provider) -> None:
    connection = HTTPConnection(urlsplit(provider.url).netloc, timeout=30)
    for _ in range(2):
        connection.request("HEAD", "/")
        response = connection.getresponse()
        assert (response.status, response.read()) == (404, b"")
    connection.close()


def test_connection_of_http_1_0_ends(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"GET /stats HTTP/1.0\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in all_of(connection)


def test_client_may_leave_in_the_middle_of_a_request(provider: Provider, connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"POST /charges HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    connection.close()
    other = connect()
    other.sendall(get("/stats"))
    assert other.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert provider.counts().requests == 0
