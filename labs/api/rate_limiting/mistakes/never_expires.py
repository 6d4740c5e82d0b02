"""Nothing expires.

Old requests are removed from a caller's log when the same caller asks again. A caller who does not come again leaves it
behind for ever. A public shop sees millions of addresses, most of them once; a scanner with an IPv6 network has more
than Valkey has bytes. After some weeks Valkey is full, and then it evicts what it likes, or refuses to write: the
cache, the sessions and the limits are gone together.

Whatever is written for a caller expires with its window.

Read: "One script" in the chapter Rate limiting.
"""

import hashlib
import json
import logging
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import redis
from flask import Flask, Response, g, request
from redis.backoff import NoBackoff
from redis.retry import Retry

from shop.settings import Settings, settings_of

Address = IPv4Address | IPv6Address
log = logging.getLogger(__name__)

PREFIX = "shop:1:rate:"  # whose keys they are, and of which shape: another number when the shape changes
SECOND = 1_000_000  # in Valkey's own unit, the microsecond
NEVER_LIMITED = frozenset({"/livez", "/readyz", "/metrics"})  # who watches the shop must see it when it is busy, too
SITE_BITS = 64  # of an IPv6 address: the rest of it is for one subscriber to choose (RFC 4291, 2.5.4)
UNREACHABLE_SECONDS = 1

# Let a request through if fewer than the limit were in the window that ends now, and note it; a refused one leaves no
# trace. In microseconds of Valkey's own clock. Gives: whether it may pass, how many are noted, now, and the time until
# there is room for one more than now.
ADMIT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local count = redis.call('ZCARD', KEYS[1])
local passes = count < limit
if passes then
    redis.call('ZADD', KEYS[1], now, ARGV[3])
    count = count + 1
end
local next = math.max(0, count - limit)
local leaves = redis.call('ZRANGE', KEYS[1], next, next, 'WITHSCORES')[2]
return {passes and 1 or 0, count, now, leaves + window - now}
"""


@dataclass(frozen=True)
class Standing:
    """Where a caller stands with this request.

    Attributes:
        passes: whether it is let through.
        limit: most requests in a window.
        count: how many are in the window that ends now.
        now: the time of day, in microseconds.
        wait: until there is room for one more than now, in microseconds.
    """

    passes: bool
    limit: int
    count: int
    now: int
    wait: int

    @property
    def headers(self) -> dict[str, str]:
        """Times are rounded up: whoever comes back then is not too early."""
        told = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(0, self.limit - self.count)),
            "X-RateLimit-Reset": str(math.ceil((self.now + self.wait) / SECOND)),
        }
        return told if self.passes else told | {"Retry-After": str(max(1, math.ceil(self.wait / SECOND)))}


class Limiter:
    """Counts in Valkey; safe to use from many threads and processes."""

    def __init__(self, settings: Settings) -> None:
        client = redis.Redis.from_url(
            settings.redis_url or "redis://",
            socket_timeout=settings.cache_timeout_seconds,
            socket_connect_timeout=settings.cache_timeout_seconds,
            retry=Retry(NoBackoff(), 0),  # said, since the library's own depends on how the client is made
        )
        self._admit = client.register_script(ADMIT)
        self._window = int(settings.rate_limit_window_seconds * SECOND)
        self._is_there = settings.redis_url is not None

    def ask(self, caller: str, limit: int) -> Standing:
        """Count one request of a caller, if it may pass.

        Raises:
            redis.RedisError: nobody can tell.
        """
        if not self._is_there:
            raise redis.ConnectionError("there is no Valkey")
        token = secrets.token_bytes(8)  # two requests in the same microsecond are two
        passes, count, now, wait = self._admit([PREFIX + caller], [self._window, limit, token])
        return Standing(bool(passes), limit, count, now, wait)


def init_app(app: Flask) -> None:
    """Count each request but those of whoever watches the shop, if there is a limit."""
    settings = settings_of(app)
    limiter = Limiter(settings)

    @app.before_request
    def limit_rate() -> Response | None:
        if request.path in NEVER_LIMITED:
            return None
        caller, limit = _caller(settings)
        if limit is None:
            return None
        try:
            g.standing = standing = limiter.ask(caller, limit)
        except redis.RedisError as error:
            log.warning("requests cannot be counted: %s", error)
            return None if settings.rate_limit_fail_open else _cannot_tell()
        return None if standing.passes else _refused(standing)

    @app.after_request
    def tell(response: Response) -> Response:
        if standing := g.pop("standing", None):
            response.headers.update(standing.headers)
        return response


def _refused(standing: Standing) -> Response:
    wait = math.ceil(standing.wait / SECOND)
    return _problem(429, "Too Many Requests", f"There were {standing.limit} requests. There is room again in {wait} s.")


def _cannot_tell() -> Response:
    """It is not the caller's fault, so it is no 429."""
    response = _problem(503, "Service Unavailable", "The shop cannot take requests at the moment.")
    response.headers["Retry-After"] = str(UNREACHABLE_SECONDS)
    return response


def _problem(status: int, title: str, detail: str) -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(json.dumps(body), status, content_type="application/problem+json")


def _caller(settings: Settings) -> tuple[str, int | None]:
    """Who asks, as a part of a key in Valkey, and how much they may ask."""
    key = request.headers.get("X-API-Key", "")
    if key in settings.api_keys:  # any other is no user: whoever invents keys would have as many limits
        digest = hashlib.sha256(key.encode()).hexdigest()  # Valkey's slow log and its backups are no place for secrets
        return f"user:{digest}", settings.rate_limit_per_user
    return f"address:{_site(_address(settings.trusted_proxies))}", settings.rate_limit_per_address


def _address(proxies: Sequence[IPv4Network | IPv6Network]) -> Address | None:
    """Where the request comes from: the nearest address that is none of our own proxies.

    Each proxy adds to X-Forwarded-For, at its end, the address that it was asked from. What stands before the entry
    of the outermost of ours was written by the caller.
    """
    address = _read(request.remote_addr or "")
    forwarded = ",".join(request.headers.getlist("X-Forwarded-For")).split(",")
    while address and forwarded and any(address in proxy for proxy in proxies):
        if (before := _read(forwarded.pop())) is None:
            break
        address = before
    return address


def _read(text: str) -> Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def _site(address: Address | None) -> str:
    """What one subscriber has: an address of IPv4, a network of IPv6."""
    if address is None or address.version == 4:
        return str(address)
    return str(IPv6Network((int(address), SITE_BITS), strict=False))
