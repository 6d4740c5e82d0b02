"""What every request that leaves the shop carries: given code, no lab changes it.

Whoever has something to send along, such as the id of the request that caused it, adds a function in its `init_app`.
"""

from collections.abc import Callable, Mapping

from flask import Flask, current_app

Headers = Callable[[], Mapping[str, str]]


def init_app(app: Flask) -> None:
    """Nothing is sent along yet."""
    app.extensions["outgoing"] = []


def add(app: Flask, headers: Headers) -> None:
    """Have what `headers` returns sent along with every request that leaves the shop."""
    app.extensions["outgoing"].append(headers)


def headers() -> dict[str, str]:
    """The headers to send along now."""
    return {name: value for each in current_app.extensions["outgoing"] for name, value in each().items()}
