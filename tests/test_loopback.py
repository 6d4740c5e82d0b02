"""An application served from within, and what passes on the way to it."""

from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import pytest

from shopfloor.loopback import over_http, overhearing

PAGE = b"a page with a name on it"


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", str(len(PAGE)))])
    return [PAGE]


@pytest.fixture
def url() -> Iterator[str]:
    with over_http(application) as url:
        yield url


def ask(connection: HTTPConnection) -> bytes:
    connection.request("GET", "/page", headers={"Authorization": "Bearer secret"})
    return connection.getresponse().read()


def connection_to(url: str) -> HTTPConnection:
    return HTTPConnection(url.removeprefix("http://"), timeout=5)


def test_the_relay_hears_both_sides_of_every_request_on_a_connection(url: str) -> None:
    with overhearing(url) as heard:
        connection = connection_to(heard.url)
        assert (ask(connection), ask(connection)) == (PAGE, PAGE)
        connection.close()
    assert heard.connections == 1
    assert heard.asked.count(b"Bearer secret") == 2
    assert heard.answered.count(PAGE) == 2
    assert heard.size == len(heard.asked) + len(heard.answered)


def test_what_was_heard_can_be_forgotten(url: str) -> None:
    with overhearing(url.removeprefix("http://")) as heard:
        connection = connection_to(heard.url)
        ask(connection)
        heard.clear()
        assert (heard.size, heard.connections) == (0, 0)
        ask(connection)
        assert heard.answered.count(PAGE) == 1
        connection.close()


def test_nobody_listens_afterwards() -> None:
    with over_http(application) as url:
        pass
    with pytest.raises(ConnectionRefusedError):
        ask(connection_to(url))
