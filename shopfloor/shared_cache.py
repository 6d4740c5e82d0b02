"""A shared HTTP cache, such as stands before a service: what it may, it answers from memory; for the rest it asks.

It keeps answers to GET whose `Cache-Control` says for how long, and finds them again by their address and by what
their `Vary` names (RFC 9111, sections 3 and 4.1).
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from werkzeug.datastructures import EnvironHeaders, Headers
from werkzeug.http import parse_cache_control_header
from werkzeug.wrappers import Request, Response

from shopfloor.loopback import over_http

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


@dataclass(frozen=True)
class Kept:
    """An answer, until when it is fresh, and what the request that it was given to said in the headers that matter."""

    status: int
    headers: Headers
    body: bytes
    until: float
    selected_by: Mapping[str, str | None]


@dataclass
class SharedCache:
    """The cache.

    Attributes:
        service: the address of what it stands before.
        heeds_vary: whether it keeps apart what `Vary` says is to be kept apart. Some do not.
        url: its own address, which clients are given.
        hits: answers out of memory.
        asked: requests that the service had to answer.
    """

    service: str
    heeds_vary: bool = True
    url: str = ""
    hits: int = 0
    asked: int = 0
    _kept: defaultdict[str, list[Kept]] = field(default_factory=lambda: defaultdict(list), repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request."""
        request = Request(environ)
        with self._lock:
            found = self._find(request)
            if found:
                self.hits += 1
            else:
                self.asked += 1
        answer = found or self._ask(request)
        return Response(answer.body, answer.status, answer.headers)(environ, start_response)

    def _find(self, request: Request) -> Kept | None:
        fresh = (kept for kept in self._kept[request.full_path] if kept.until > time.monotonic())
        return next((kept for kept in fresh if request.method == "GET" and _selects(request.headers, kept)), None)

    def _ask(self, request: Request) -> Kept:
        with closing(HTTPConnection(urlsplit(self.service).netloc, timeout=10)) as connection:
            headers = {name: value for name, value in request.headers if name.lower() not in OF_THE_CONNECTION}
            connection.request(request.method, request.full_path.rstrip("?"), request.get_data() or None, headers)
            response = connection.getresponse()
            body = response.read()
        told = Headers([each for each in response.getheaders() if each[0].lower() not in OF_THE_CONNECTION])
        names = [name.strip() for name in told.get("Vary", "").split(",") if name.strip()] if self.heeds_vary else []
        selected_by = {name: request.headers.get(name) for name in names}
        answer = Kept(response.status, told, body, time.monotonic() + _seconds(told), selected_by)
        if request.method == "GET" and answer.status == 200 and "*" not in names:
            with self._lock:
                self._kept[request.full_path].append(answer)
        return answer


def _selects(headers: EnvironHeaders | Headers, kept: Kept) -> bool:
    return all(headers.get(name) == value for name, value in kept.selected_by.items())


def _seconds(headers: Headers) -> float:
    """For how long a shared cache may answer with this unasked."""
    said = parse_cache_control_header(headers.get("Cache-Control", ""))
    if "no-store" in said or "no-cache" in said or "private" in said:
        return 0
    return float(said.get("s-maxage") or said.get("max-age") or 0)


@contextmanager
def shared_cache(service: str, *, heeds_vary: bool = True) -> Iterator[SharedCache]:
    """Put a cache before a service while the block runs; clients are given its `url`.

    Args:
        service: the service's address.
        heeds_vary: false for one that finds answers by their address alone, as some networks do by default.
    """
    cache = SharedCache(service, heeds_vary)
    with over_http(cache) as cache.url:
        yield cache
