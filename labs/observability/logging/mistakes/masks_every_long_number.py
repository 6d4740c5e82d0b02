"""Every long run of digits is taken for a card's number.

It looks like the safe side. But barcodes, tracking numbers, invoice numbers and clocks that count microseconds are as
long as a card's number, and in a shop they are what people quote when they ask for help. "Where is parcel 0034...?"
finds nothing, and of a refused order the log hides the one field that was wrong. Soon somebody switches the mask off
to see at all.

A card's last digit is a check digit (Luhn's, ISO/IEC 7812-1). Nine of ten other numbers of that length do not have it:
mask those that do.

Read: "What must not be in it" in the chapter Logging.
"""

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, request
from flask.logging import default_handler

from shop import outgoing

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HEADER = "X-Request-Id"
PROBES = frozenset({"shutdown.livez", "shutdown.readyz", "metrics.metrics"})


# --- Whose line it is -------------------------------------------------------------------------------------------------


HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Current:
    """The request that is being worked on: its id, and when it began on the monotonic clock."""

    id: str
    began: float


_current: ContextVar[Current | None] = ContextVar("current_request", default=None)


class WithId:
    """Gives each request an id: the caller's own if it is harmless, else a new one."""

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request. The id outlives Flask's own contexts: their teardown logs, too."""
        given = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = given if HARMLESS.fullmatch(given) else str(uuid.uuid4())
        token = _current.set(Current(request_id, time.perf_counter()))
        try:
            return self._app(environ, start_response)
        finally:
            _current.reset(token)  # the thread goes on to the next request


def _headers() -> dict[str, str]:
    """What every call that leaves the shop carries."""
    current = _current.get()
    return {HEADER: current.id} if current else {}


def init_app(app: Flask) -> None:
    """Log to standard output, name every request, and say what became of it."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)  # the libraries' lines as well
    logging.captureWarnings(True)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # its line for each request is ours already
    app.logger.setLevel(logging.INFO)
    app.logger.removeHandler(default_handler)  # there if anyone has used this logger before
    app.wsgi_app = WithId(app.wsgi_app)  # type: ignore[method-assign]  # as Flask's manual says to
    outgoing.add(app, _headers)

    @app.after_request
    def say_what_became_of_it(response: Response) -> Response:
        current = _current.get()
        assert current
        response.headers[HEADER] = current.id
        facts = {
            "method": request.method,
            "route": request.url_rule.rule if request.url_rule else None,  # the raw path is in no fact
            "status": response.status_code,
            "duration_ms": round(1000 * (time.perf_counter() - current.began), 3),
        }
        app.logger.log(_level(response.status_code), "request ended", extra=facts)
        return response


def _level(status: int) -> int:
    """The callers' mistakes are no errors of the shop's. A probe that finds all well is no news."""
    if status >= 500:
        return logging.ERROR
    return logging.DEBUG if request.endpoint in PROBES else logging.INFO


# --- What it says -----------------------------------------------------------------------------------------------------

NO_FACTS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line. What goes wrong here is told in the line, and is no failure of whoever logs."""
        try:
            said = masked(self._said(record))
        except Exception as error:  # noqa: BLE001 - such as a message whose arguments do not fit
            where = f"{record.pathname}:{record.lineno}"
            said = {"event": "a line could not be written", "where": where, "why": type(error).__name__}
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": moment.replace("+00:00", "Z"), "level": record.levelname.lower(), "logger": record.name}
        if current := _current.get():
            line["request_id"] = current.id
        return json.dumps(line | said | line)  # these come first, and no fact may replace them

    def _said(self, record: logging.LogRecord) -> dict[str, Any]:
        facts = {name: value for name, value in vars(record).items() if name not in NO_FACTS}
        said = {"event": record.getMessage()} | facts
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)  # with its causes, and where each was raised
        if record.stack_info:
            said["stack"] = record.stack_info
        return said


# --- What it does not say ---------------------------------------------------------------------------------------------

MASK = "***"
DEEPEST = 16
CONTAINERS = Mapping | list | tuple | set | frozenset
NUMBER = re.compile(r"-?\d{1,300}(?:\.\d+)?(?:e[+-]\d+)?")  # not NaN, which JSON does not know
SECRET_NAME = re.compile(r"passw|passphrase|secret|token|authori[sz]ation|cookie|apikey|cardnumber|cvc|cvv|email")
EMAIL = re.compile(r"[\w.+'-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
CREDENTIALS = re.compile(r"(?<=://)[^/\s@]{1,256}(?=@)")
BEARER = re.compile(r"\bbearer\s+\S+", re.IGNORECASE)
CARD_NUMBER = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")


def masked(value: Any, path: tuple[int, ...] = ()) -> Any:
    """A copy that JSON can hold, without what must not be logged. The value itself stays as it is.

    Args:
        value: anything.
        path: the containers that it lies in, by their identity.
    """
    if isinstance(value, CONTAINERS):
        if id(value) in path or len(path) == DEEPEST:
            return "(and so on)"
        return _masked_members(value, (*path, id(value)))
    if value is None or isinstance(value, bool):
        return value
    words = masked_text(_words(value))
    return value if NUMBER.fullmatch(words) and isinstance(value, int | float) else words


def _masked_members(container: Any, path: tuple[int, ...]) -> Any:
    if not isinstance(container, Mapping):
        return [masked(one, path) for one in container]
    named = [(_words(name), one) for name, one in container.items()]
    return {masked_text(name): MASK if is_secret(name) else masked(one, path) for name, one in named}


def is_secret(name: str) -> bool:
    """Whether what has this name is never logged, however it is spelt: `cardNumber`, `Card-Number`, `card_number`."""
    return bool(SECRET_NAME.search(re.sub(r"[^a-z0-9]", "", name.lower())))


def masked_text(text: str) -> str:
    """A text without e-mail addresses, credentials and card numbers."""
    if "@" in text:  # few have one, and these two patterns would look at every letter of the others
        text = EMAIL.sub(MASK, CREDENTIALS.sub(MASK, text))
    text = BEARER.sub(MASK, text)
    return CARD_NUMBER.sub(MASK, text)


def _words(value: object) -> str:
    """A value as text, if it can be had."""
    try:
        return value.isoformat() if isinstance(value, date) else str(value)
    except Exception:  # noqa: BLE001 - whatever its class does
        return f"({type(value).__name__})"
