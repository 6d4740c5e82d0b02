"""structlog writes every line, those of `logging` too, in a chain of small functions; the id is in its context."""

import json
import logging
import re
import sys
import time
from typing import Any
from uuid import uuid4

import structlog
from flask import Flask, Response, request
from structlog.typing import EventDict

from shop import outgoing

SECRETS = ("password", "secret", "token", "authorization", "cookie", "apikey", "cardnumber", "cvc", "cvv", "email")
IN_TEXTS = re.compile(
    r"""(?<=://)[^/\s@]{1,256}(?=@)                  # credentials in an address
      | [\w.+'-]{1,64}@[\w-]{1,63}(\.[\w-]{1,63})+   # an e-mail address
      | (?P<card>(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-]))
    """,
    re.VERBOSE,
)
DEEPEST = 12


def init_app(app: Flask) -> None:
    """Have all of it written by one handler, and bind the id to the context of the request."""
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.format_exc_info,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            mask,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.JSONRenderer(serializer=json.dumps),
        ],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("shop").setLevel(logging.INFO)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    serve = app.wsgi_app

    def with_context(environ: Any, start_response: Any) -> Any:
        given = environ.get("HTTP_X_REQUEST_ID", "")
        known = re.fullmatch("[A-Za-z0-9._-]{1,64}", given)
        with structlog.contextvars.bound_contextvars(request_id=given if known else uuid4().hex):
            environ["shop.began"] = time.monotonic()
            return serve(environ, start_response)

    app.wsgi_app = with_context  # type: ignore[method-assign]  # as Flask's manual says to
    app.after_request(_say)
    outgoing.add(app, lambda: {"X-Request-Id": _id()} if _id() else {})


def _id() -> str:
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def _say(response: Response) -> Response:
    response.headers["X-Request-Id"] = _id()
    if request.endpoint == "shutdown.livez" and response.status_code == 200:
        return response
    logging.getLogger("shop").log(
        logging.ERROR if response.status_code >= 500 else logging.INFO,
        "request",
        extra={
            "method": request.method,
            "route": request.url_rule and request.url_rule.rule,
            "status": response.status_code,
            "duration_ms": 1000 * (time.monotonic() - request.environ["shop.began"]),
        },
    )
    return response


def mask(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """A processor: the event without secrets. The id has been looked at already."""
    kept = {name: event.pop(name) for name in ("request_id",) if name in event}
    return {**_masked(dict(event), 0), **kept}


def _masked(value: Any, depth: int) -> Any:
    if depth > DEEPEST:
        return "..."
    match value:
        case dict():
            return {
                IN_TEXTS.sub(_instead, str(name)): "[masked]" if _secret(str(name)) else _masked(member, depth + 1)
                for name, member in value.items()
            }
        case list() | tuple():
            return [_masked(member, depth + 1) for member in value]
        case None | bool():
            return value
        case int() | float() if re.fullmatch(r"-?\d{1,12}(\.\d+)?(e-?\d+)?", str(value)):
            return value
        case _:
            return IN_TEXTS.sub(_instead, str(value))


def _instead(found: re.Match[str]) -> str:
    """Of a long number, its own words, unless it ends in the check digit of a card."""
    number = [int(each) for each in found["card"] or "" if each.isdigit()]
    number[-2::-2] = [2 * each - 9 * (each > 4) for each in number[-2::-2]]
    return found[0] if sum(number) % 10 else "[masked]"


def _secret(name: str) -> bool:
    letters = "".join(filter(str.isalnum, name.casefold()))
    return any(secret in letters for secret in SECRETS)
