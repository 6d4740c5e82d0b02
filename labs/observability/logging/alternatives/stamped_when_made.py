"""Plain `logging`: a factory stamps each record with the id when it is made, and the id is in `flask.g`.

The mask keeps a list of what is still to do, where others call themselves.
"""

import json
import logging
import re
import time
import traceback
from collections import deque
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from flask import Flask, Response, g, has_app_context, request

from shop import outgoing

OF_RECORDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "request_id"}
NAMES = re.compile("pass|secret|token|auth|cookie|key|card|cvc|cvv|mail", re.IGNORECASE)
MAIL = re.compile(r"[^\s@<>\"']{1,64}@[^\s@<>\"']{1,255}")
DIGITS = re.compile(r"\b(?:\d[ -]?){13,19}\b")
MOST_VALUES = 500


def init_app(app: Flask) -> None:
    """Stamp records, hook into Flask, print."""
    make = logging.LogRecord

    def stamped(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make(*arguments, **options)
        record.request_id = _id()
        return record

    logging.setLogRecordFactory(stamped)
    handler = logging.StreamHandler()
    handler.setFormatter(Lines())
    logging.root.handlers = [handler]
    logging.root.setLevel("WARNING")
    logging.getLogger("werkzeug").setLevel("WARNING")
    app.logger.setLevel("INFO")
    app.before_request(_begin)
    app.after_request(_end)
    outgoing.add(app, lambda: {"X-Request-Id": one} if (one := _id()) else {})


def _id() -> str | None:
    """The id of the request; `g` lasts until its application context is gone, and goes to threads with the context."""
    return g.get("request_id") if has_app_context() else None


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    is_harmless = re.fullmatch(r"[\w.-]{1,64}", given, re.ASCII)
    g.request_id = given if is_harmless else str(uuid4())
    g.began = time.perf_counter_ns()


def _end(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    event = {
        "method": request.method,
        "route": str(request.url_rule) if request.url_rule else "",
        "status": response.status_code,
        "duration_ms": (time.perf_counter_ns() - g.began) / 1e6,
    }
    logger = logging.getLogger("shop")
    if response.status_code >= 500:
        logger.error("answered", extra=event)
    elif response.status_code >= 400:
        logger.warning("answered", extra=event)
    elif not request.path.endswith("z"):
        logger.info("answered", extra=event)
    return response


class Lines(logging.Formatter):
    """One object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        event = {name: value for name, value in vars(record).items() if name not in OF_RECORDS}
        event["event"] = record.getMessage()
        if record.exc_info and record.exc_info[1]:
            event["exception"] = [*traceback.TracebackException.from_exception(record.exc_info[1]).format()]
        event = masked(event)
        event["time"] = datetime.fromtimestamp(record.created, UTC).isoformat()
        event["level"] = record.levelname.lower()
        if stamp := getattr(record, "request_id", None):
            event["request_id"] = stamp
        return json.dumps(event, skipkeys=True)


def masked(event: dict[str, Any]) -> dict[str, Any]:
    """A masked copy, without calling itself: at most `MOST_VALUES` values, breadth first."""
    copy: dict[str, Any] = {}
    waiting: deque[tuple[Any, Any]] = deque([(event, copy)])
    left = MOST_VALUES
    while waiting:
        source, target = waiting.popleft()
        for name, value in source.items() if isinstance(source, dict) else enumerate(source):
            left -= 1
            held: Any
            if left < 0:
                held = None
            elif isinstance(source, dict) and NAMES.search(str(name)):
                held = "xxx"
            elif isinstance(value, dict):
                held = {}
                waiting.append((value, held))
            elif isinstance(value, list | tuple):
                held = []
                waiting.append((value, held))
            else:
                held = _shown(value)
            if isinstance(target, dict):
                target[_shown(str(name))] = held
            else:
                target.append(held)
    return copy


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    words = DIGITS.sub(_unless_it_is_none, MAIL.sub("xxx", re.sub(r"//[^/@\s]+@", "//xxx/", str(value))))
    is_number = isinstance(value, int | float) and re.fullmatch(r"[\d.e-]{1,40}", words)
    return value if is_number else words


def _unless_it_is_none(number: re.Match[str]) -> str:
    """A card's number ends in its check digit."""
    total = 0
    for place, digit in enumerate(re.findall(r"\d", number[0])[::-1]):
        total += sum(map(int, str(2 * int(digit)))) if place % 2 else int(digit)
    return number[0] if total % 10 else "xxx"
