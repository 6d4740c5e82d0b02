"""Each worker counts for itself.

The log of requests is a dictionary of the process. With one worker it is right to the microsecond. With four workers
on three machines every caller has twelve times the limit, more after each deployment that adds a worker, and all of it
again after each restart. In the tests, with one process, nobody can see it.

What workers must agree on has to be where all of them look: in Valkey.

Read: "Two workers" in the chapter Rate limiting.
"""

import hashlib
import json
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from flask import Flask, Response, g, request

from shop.settings import Settings, settings_of

Address = IPv4Address | IPv6Address

SECOND = 1_000_000  # in microseconds
NEVER_LIMITED = frozenset({"/livez", "/readyz", "/metrics"})  # who watches the shop must see it when it is busy, too
SITE_BITS = 64  # of an IPv6 address: the rest of it is for one subscriber to choose (RFC 4291, 2.5.4)


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
    """Counts in a log for each caller; safe to use from many threads."""

    def __init__(self, settings: Settings) -> None:
        self._logs: dict[str, deque[int]] = {}
        self._lock = threading.Lock()
        self._window = int(settings.rate_limit_window_seconds * SECOND)

    def ask(self, caller: str, limit: int) -> Standing:
        """Count one request of a caller, if it may pass."""
        now = time.time_ns() // 1000
        with self._lock:
            log = self._logs.setdefault(caller, deque())
            while log and log[0] <= now - self._window:
                log.popleft()
            if passes := len(log) < limit:
                log.append(now)
            return Standing(passes, limit, len(log), now, log[max(0, len(log) - limit)] + self._window - now)


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
        g.standing = standing = limiter.ask(caller, limit)
        return None if standing.passes else _refused(standing)

    @app.after_request
    def tell(response: Response) -> Response:
        if standing := g.pop("standing", None):
            response.headers.update(standing.headers)
        return response


def _refused(standing: Standing) -> Response:
    wait = math.ceil(standing.wait / SECOND)
    return _problem(429, "Too Many Requests", f"There were {standing.limit} requests. There is room again in {wait} s.")


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
