"""No script: WATCH, MULTI and EXEC, and again if somebody was faster. And it stands outside Flask."""

import hashlib
import ipaddress
import json
import math
import time
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import redis
from flask import Flask
from redis.backoff import NoBackoff
from redis.retry import Retry
from werkzeug.wrappers import Request, Response

from shop.settings import Settings, settings_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

WATCHERS = ("/livez", "/readyz", "/metrics")
Headers = dict[str, str]


class Unknown(Exception):  # noqa: N818 - what it says of the count
    """Nobody can tell how many there were."""


class RateLimit:
    """Stands around a WSGI application."""

    def __init__(self, application: "WSGIApplication", settings: Settings) -> None:
        self._application = application
        self._settings = settings
        self._valkey: Any = settings.redis_url and redis.Redis.from_url(
            settings.redis_url,
            socket_timeout=settings.cache_timeout_seconds,
            socket_connect_timeout=settings.cache_timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer, or have the application answer."""
        request = Request(environ)
        name, limit = self._caller(request)
        if request.path in WATCHERS or limit is None:
            return self._application(environ, start_response)
        try:
            passes, headers = self._count(f"limit:{name}", limit)
        except (redis.RedisError, Unknown):
            if self._settings.rate_limit_fail_open:
                return self._application(environ, start_response)
            return _problem(503, "Service Unavailable", {"Retry-After": "1"})(environ, start_response)
        if not passes:
            return _problem(429, "Too Many Requests", headers)(environ, start_response)

        def with_headers(status: str, given: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
            return start_response(status, [*given, *headers.items()], *rest)

        return self._application(environ, with_headers)

    def _count(self, key: str, limit: int) -> tuple[bool, Headers]:
        """Note a request if there is room; repeat that for as long as others change the same log meanwhile."""
        if not self._valkey:
            raise Unknown
        window = self._settings.rate_limit_window_seconds
        deadline = time.monotonic() + self._settings.cache_timeout_seconds
        while time.monotonic() < deadline:
            with self._valkey.pipeline() as pipeline:
                try:
                    pipeline.watch(key)
                    seconds, microseconds = pipeline.time()
                    now = seconds + microseconds / 1e6
                    known = [score for _, score in pipeline.zrange(key, 0, -1, withscores=True)]
                    known = [score for score in known if score > now - window]
                    if passes := len(known) < limit:
                        pipeline.multi()
                        pipeline.zremrangebyscore(key, "-inf", now - window)
                        pipeline.zadd(key, {uuid.uuid4().bytes: now})
                        pipeline.pexpire(key, math.ceil(1000 * window) + 1)
                        pipeline.execute()
                        known.append(now)
                    room = known[max(0, len(known) - limit)] + window
                    headers = {
                        "X-RateLimit-Limit": str(limit),
                        "X-RateLimit-Remaining": str(max(0, limit - len(known))),
                        "X-RateLimit-Reset": str(math.ceil(room)),
                    }
                    return passes, headers if passes else headers | {"Retry-After": str(math.ceil(room - now))}
                except redis.WatchError:
                    continue
        raise Unknown

    def _caller(self, request: Request) -> tuple[str, int | None]:
        key = request.headers.get("X-API-Key")
        if key in self._settings.api_keys:
            return hashlib.blake2b(key.encode(), digest_size=16).hexdigest(), self._settings.rate_limit_per_user
        hops = [*",".join(request.headers.getlist("X-Forwarded-For")).split(","), request.remote_addr or ""]
        address: Any = None
        while hops:
            try:
                address = ipaddress.ip_address(hops.pop().strip())
            except ValueError:
                break
            address = getattr(address, "ipv4_mapped", None) or address
            if not any(address in proxy for proxy in self._settings.trusted_proxies):
                break
        if getattr(address, "version", 4) == 6:
            address = ipaddress.ip_network(f"{address}/64", strict=False)
        return str(address), self._settings.rate_limit_per_address


def _problem(status: int, title: str, headers: Headers) -> Response:
    body = json.dumps({"type": "about:blank", "title": title, "status": status})
    return Response(body, status, headers, content_type="application/problem+json")


def init_app(app: Flask) -> None:
    """Put it around the application."""
    app.wsgi_app = RateLimit(app.wsgi_app, settings_of(app))  # type: ignore[method-assign]
