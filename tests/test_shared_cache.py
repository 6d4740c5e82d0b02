"""A cache that stands before a service."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from werkzeug.wrappers import Request, Response

from shopfloor.loopback import over_http
from shopfloor.shared_cache import SharedCache, shared_cache


@contextmanager
def before(*, heeds_vary: bool = True, **headers: str) -> Iterator[SharedCache]:
    """A cache before a service that says in which language it was asked, with these headers."""

    @Request.application
    def service(request: Request) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Response(f"{request.method} {request.headers.get('Accept-Language')}", headers=named)

    with over_http(service) as url, shared_cache(url, heeds_vary=heeds_vary) as cache:
        yield cache


def ask(cache: SharedCache, language: str, method: str = "GET", path: str = "/page?a=b") -> str:
    with closing(HTTPConnection(urlsplit(cache.url).netloc, timeout=30)) as connection:
        connection.request(method, path, headers={"Accept-Language": language})
        return connection.getresponse().read().decode()


def test_without_vary_the_first_answer_is_everybodys() -> None:
    with before(Cache_Control="max-age=60") as cache:
        assert [ask(cache, "de"), ask(cache, "en")] == ["GET de", "GET de"]
    assert (cache.hits, cache.asked) == (1, 1)


def test_vary_keeps_answers_apart() -> None:
    with before(Cache_Control="public, max-age=60", Vary="Accept-Language") as cache:
        assert [ask(cache, each) for each in ("de", "en", "de", "en")] == ["GET de", "GET en", "GET de", "GET en"]
    assert (cache.hits, cache.asked) == (2, 2)


def test_a_cache_may_heed_no_vary() -> None:
    with before(heeds_vary=False, Cache_Control="max-age=60", Vary="Accept-Language") as cache:
        assert [ask(cache, "de"), ask(cache, "en")] == ["GET de", "GET de"]


def test_another_address_is_another_answer() -> None:
    with before(Cache_Control="max-age=60") as cache:
        assert [ask(cache, "de"), ask(cache, "en", path="/page?a=c")] == ["GET de", "GET en"]


@pytest.mark.parametrize("said", ["", "no-store, max-age=60", "no-cache", "private, max-age=60", "max-age=0"])
def test_what_nobody_may_keep_is_asked_for_each_time(said: str) -> None:
    with before(Cache_Control=said) as cache:
        assert [ask(cache, "de"), ask(cache, "en")] == ["GET de", "GET en"]


def test_vary_star_is_never_kept() -> None:
    with before(Cache_Control="max-age=60", Vary="*") as cache:
        assert [ask(cache, "de"), ask(cache, "en")] == ["GET de", "GET en"]


def test_other_methods_pass() -> None:
    with before(Cache_Control="max-age=60") as cache:
        assert [ask(cache, "de", "POST"), ask(cache, "en", "POST")] == ["POST de", "POST en"]
    assert cache.hits == 0
