"""Requests only put their events into a queue; one thread masks them, writes them, and waits for the disk or the pipe.

What is in an event is settled when it is put there: the writer's thread has no request. The mask looks at each event
as it is read back from JSON.
"""

import json
import logging
import queue
import re
import sys
import threading
import uuid
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from flask import Flask, Response, request

from shop import outgoing

request_id: ContextVar[str] = ContextVar("request_id", default="")
KEPT = 10_000
SENSITIVE = {"password", "secret", "token", "authorization", "cookie", "apikey", "cardnumber", "cvc", "cvv", "email"}
DOUBLED = dict(zip("0123456789", (0, 2, 4, 6, 8, 1, 3, 5, 7, 9), strict=True))  # and the sum of its digits


def cards_only(number: re.Match[str]) -> str:
    """Luhn's check: barcodes and parcels have long numbers, too."""
    digits = [digit for digit in reversed(number[0]) if digit in DOUBLED]
    total = sum(map(int, digits[::2])) + sum(DOUBLED[digit] for digit in digits[1::2])
    return number[0] if total % 10 else "?"


TEXTS: list[tuple[re.Pattern[str], Any]] = [
    (re.compile(r"://[^/\s@]*@"), "://?@"),
    (re.compile(r"[^\s@<>\"]{1,64}@(?=[\w-]*\.)[\w.-]{1,255}"), "?"),
    (re.compile(r"(?<!\w)(?:\d[ -]?){13,19}(?!\w)"), cards_only),
]
USUAL = set(vars(logging.makeLogRecord({})))


class Enqueue(logging.Handler):
    """Puts what a record says into the queue, and throws it away when that is full: no request waits for its log."""

    def __init__(self) -> None:
        super().__init__()
        self.events: queue.Queue[dict[str, Any]] = queue.Queue(KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        """Settle what the event says, and leave it."""
        event = {name: value for name, value in vars(record).items() if name not in USUAL}
        event |= {
            "time": datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        if request_id.get():
            event["request_id"] = request_id.get()
        if record.exc_info:
            event["exception"] = logging.Formatter().formatException(record.exc_info)
        with suppress(queue.Full):
            self.events.put_nowait(event)

    def write(self) -> None:
        """Write until the process ends."""
        while True:
            event = self.events.get()
            try:
                line = json.dumps(clean(json.loads(json.dumps(event, default=str), object_pairs_hook=by_name)))
            except (ValueError, RecursionError):  # too deep: without what cannot be followed
                flat = {name: value for name, value in event.items() if not isinstance(value, dict | list)}
                line = json.dumps(clean({**flat, "errors": "(not shown)"}), default=str)
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


def by_name(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON's, without the values whose names are sensitive."""
    return {name: "?" if sensitive(name) else value for name, value in pairs}


def sensitive(name: str) -> bool:
    """Whether some part of the name is."""
    plain = re.sub(r"[\W_]", "", name).lower()
    return any(one in plain for one in SENSITIVE)


def clean(value: Any) -> Any:
    """The same for texts."""
    if isinstance(value, dict):
        return {clean(name): member if name == "request_id" else clean(member) for name, member in value.items()}
    if isinstance(value, list):
        return [clean(member) for member in value]
    if value is None or isinstance(value, bool):
        return value
    words = str(value)
    for pattern, instead in TEXTS:
        words = pattern.sub(instead, words)
    return value if isinstance(value, int | float) and abs(value) < 1e12 else words


def init_app(app: Flask) -> None:
    """Start the writer, and give each request its id around all that Flask does."""
    handler = Enqueue()
    threading.Thread(target=handler.write, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    app.logger.setLevel(logging.INFO)
    app.wsgi_app = _named(app.wsgi_app)  # type: ignore[method-assign]  # as Flask's manual says to
    outgoing.add(app, lambda: {"X-Request-Id": request_id.get()} if request_id.get() else {})

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = request_id.get()
        route = request.url_rule.rule if request.url_rule else "none"
        said = {"method": request.method, "route": route, "status": response.status_code}
        said["duration_ms"] = int(1e6 * (monotonic() - request.environ["began"])) / 1000
        if route not in {"/livez", "/readyz"} or response.status_code != 200:
            level = logging.ERROR if response.status_code > 499 else logging.INFO
            app.logger.log(level, "%s %s", request.method, route, extra=said)
        return response


def _named(serve: Any) -> Any:
    def named(environ: Any, start_response: Any) -> Any:
        given = environ.get("HTTP_X_REQUEST_ID", "")
        if not given or len(given) > 64 or re.search(r"[^A-Za-z0-9._-]", given):
            given = uuid.uuid4().hex
        environ["began"] = monotonic()
        before = request_id.set(given)
        try:
            return serve(environ, start_response)
        finally:
            request_id.reset(before)

    return named
