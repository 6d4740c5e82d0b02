"""A right answer: Flask is left to log what nobody expected, and to send its signal; only its words are changed.

There is no handler for Exception. Flask then hands the handler of HTTPException an InternalServerError, and calls
`log_exception` itself. What the database means is decided where its errors leave the session: they are turned into
application errors before they reach any handler.
"""

import json
import re
import uuid
from http import HTTPStatus
from types import TracebackType
from typing import Any

from flask import Blueprint, Flask, Response, current_app, g, request
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from shop import outgoing
from shop.foundations.validation import Invalid

explanations = Blueprint("explanations", __name__)


class AppError(Exception):
    """An error that has an answer.

    Attributes:
        status: of the answer.
        words: for the caller.
        seconds: after which it may be repeated; None if that is of no use.
    """

    def __init__(self, status: int, words: str, seconds: int | None = None) -> None:
        super().__init__(words)
        self.status, self.words, self.seconds = status, words, seconds


@explanations.get("/problems")
def explain() -> str:
    """All types on one page."""
    return "later: send it again.\nfields: see errors.\nexists: there can be only one.\n"


def init_app(app: Flask) -> None:
    """Handle what is HTTP's, what is the application's, and the pool's; leave the rest to Flask."""
    app.register_blueprint(explanations)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(AppError, _ours)
    app.register_error_handler(PoolTimeout, lambda error: _ours(_later(error)))
    app.log_exception = _log_exception  # type: ignore[method-assign]  # it is there to be overridden
    event.listen(app.extensions["engine"], "handle_error", _understand)


def _understand(context: ExceptionContext) -> None:
    """Called by SQLAlchemy with each error of the driver's, in the place where it happens."""
    state = getattr(context.original_exception, "sqlstate", None)
    if state == "23505":
        raise AppError(HTTPStatus.CONFLICT, "One like this exists.") from context.original_exception
    kind = type(context.sqlalchemy_exception).__name__
    if context.is_disconnect or kind == "OperationalError":
        raise _later(context.original_exception) from context.original_exception


def _later(error: BaseException) -> AppError:
    current_app.logger.warning("request %s: %s: %s", _id(), type(error).__name__, error)
    return AppError(HTTPStatus.SERVICE_UNAVAILABLE, "Please come back a little later.", 1)


def _log_exception(info: tuple[type, BaseException, TracebackType] | tuple[None, None, None]) -> None:
    current_app.logger.error("request %s crashed", _id(), exc_info=info)


def _ours(error: AppError) -> Response:
    headers = {} if error.seconds is None else {"Retry-After": str(error.seconds)}
    kind = "/problems#later" if error.seconds else "/problems#exists"
    return _problem(error.status, HTTPStatus(error.status).phrase, error.words, headers, kind)


def _http(error: HTTPException) -> Response:
    if error.response is not None:
        return error.response  # type: ignore[return-value]  # Flask's responses are its own class
    more: dict[str, Any] = {}
    if isinstance(error, Invalid):
        more = {"errors": error.errors}
        current_app.logger.info("request refused", extra=more | {"received": request.get_json(silent=True)})
    words = "It was not your fault." if error.code == 500 else str(error.description)
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    kind = "/problems#fields" if more else "about:blank"
    return _problem(error.code or 500, error.name, words, headers, kind, **more)


def _problem(
    status: int, title: str, detail: str, headers: dict[str, str], kind: str = "about:blank", **more: Any
) -> Response:
    problem = {"type": kind, "title": title, "status": int(status), "detail": detail, "request_id": _id(), **more}
    problem["instance"] = f"/v1/occurrences/{_id()}"
    return Response(
        json.dumps(problem), int(status), headers | {"X-Request-Id": _id()}, content_type="application/problem+json"
    )


def _id() -> str:
    if (found := g.get("id_of_the_request")) is None:
        found = outgoing.headers().get("X-Request-Id") or request.headers.get("X-Request-Id") or ""
        found = found if re.fullmatch("[-._A-Za-z0-9]{1,64}", found) else str(uuid.uuid4())
        g.id_of_the_request = found
    return str(found)
