"""An application served from within, and what passes on the way to it."""

from collections.abc import Iterator
from contextlib import closing
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


def ask(url: str) -> bytes:
    with closing(HTTPConnection(url.removeprefix("http://"), timeout=30)) as connection:
        connection.request("GET", "/page", headers={"Authorization": "Bearer secret"})
        return connection.getresponse().read()


def test_the_relay_hears_both_sides_of_every_request(url: str) -> None:
    with overhearing(url) as heard:
        assert (ask(heard.url), ask(heard.url)) == (PAGE, PAGE)
    assert heard.connections == 2
    assert heard.asked.count(b"Bearer secret") == 2
    assert heard.answered.count(PAGE) == 2
    assert heard.size == len(heard.asked) + len(heard.answered)


def test_what_was_heard_can_be_forgotten(url: str) -> None:
    with overhearing(url.removeprefix("http://")) as heard:
        ask(heard.url)
        heard.clear()
        assert (heard.size, heard.connections) == (0, 0)
        ask(heard.url)
        assert heard.answered.count(PAGE) == 1


def test_nobody_listens_afterwards() -> None:
    with over_http(application) as url:
        pass
    with pytest.raises(ConnectionRefusedError):
        ask(url)
