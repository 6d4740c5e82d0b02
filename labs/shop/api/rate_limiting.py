"""How much one caller may ask. Here each process counts the requests of an address, minute by minute.

The settings that begin with `rate_limit_` of `shop.settings` say how many there may be in which time. Unless they are
given, nothing is counted. Who a caller is, `api_keys` and `trusted_proxies` say.
"""

import time

from flask import Flask, abort, request

from shop.settings import settings_of


def init_app(app: Flask) -> None:
    """Refuse an address that has asked too much, if there is a limit."""
    settings = settings_of(app)
    limit = settings.rate_limit_per_address
    if limit is None:
        return
    asked: dict[tuple[str | None, int], int] = {}

    @app.before_request
    def count() -> None:
        window = int(time.time() / settings.rate_limit_window_seconds)
        caller = request.remote_addr, window
        asked[caller] = asked.get(caller, 0) + 1
        if asked[caller] > limit:
            abort(429)
