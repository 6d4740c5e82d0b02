"""What every request that leaves the shop carries, and who stands around it: given code, no lab changes it.

Whoever has something to send along, such as the id of the request that caused it, adds a function in its `init_app`.
So does whoever wants to see a request leave and its answer come. httpx2 offers no place to stand for that, so its
`Client.send` is wrapped, which every request of every client passes through; OpenTelemetry's instrumentations wrap
their libraries in the same way.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
from flask import Flask, current_app, has_app_context

Headers = Callable[[], Mapping[str, str]]
Send = Callable[[], httpx2.Response]
Around = Callable[[httpx2.Request, Send], httpx2.Response]


def init_app(app: Flask) -> None:
    """Nothing is sent along yet, and nobody looks."""
    app.extensions["outgoing"] = []
    app.extensions["around_outgoing"] = []


def add(app: Flask, headers: Headers) -> None:
    """Have what `headers` returns sent along with every request that leaves the shop."""
    app.extensions["outgoing"].append(headers)


def headers() -> dict[str, str]:
    """The headers to send along now."""
    return {name: value for each in current_app.extensions["outgoing"] for name, value in each().items()}


def add_around(app: Flask, around: Around) -> None:
    """Have `around` called in place of sending a request that leaves the shop: once for each attempt.

    It is given the request, whose headers it may still change, and a function that sends it and reads the answer. It
    returns what that function returned, or raises what it raised: an `httpx2.HTTPError` if there was no answer.
    """
    app.extensions["around_outgoing"].append(around)


_send: Callable[..., httpx2.Response] = getattr(httpx2.Client.send, "__wrapped__", httpx2.Client.send)


@functools.wraps(_send)
def _send_with_company(client: httpx2.Client, request: httpx2.Request, **options: Any) -> httpx2.Response:
    send: Send = functools.partial(_send, client, request, **options)
    company: list[Around] = current_app.extensions["around_outgoing"] if has_app_context() else []
    for around in reversed(company):
        send = functools.partial(around, request, send)
    return send()


httpx2.Client.send = _send_with_company  # type: ignore[method-assign, assignment]  # as above
