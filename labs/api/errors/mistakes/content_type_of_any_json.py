"""The problem is right, and sent as application/json.

The media type is how a client knows what it holds before it looks inside. With application/json a library that reads
problems leaves it alone, and a client that reads any JSON as what it asked for takes the error for an order without
items. A member called title says nothing: products have one, too.

Send application/problem+json.

Read: "One form" in the chapter Errors, and RFC 9457, section 3.
"""

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from flask import Blueprint, Flask, Response, current_app, g, got_request_exception, jsonify, request, url_for
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import Conflict, HTTPException, InternalServerError, NotFound, ServiceUnavailable

from shop import outgoing
from shop.foundations.validation import Invalid

PROBLEM = "application/json"
HEADER = "X-Request-Id"
HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")

blueprint = Blueprint("errors", __name__, url_prefix="/problems")


def init_app(app: Flask) -> None:
    """Answer every error, expected or not, as a problem; and what its type means, to whoever asks."""
    app.register_blueprint(blueprint)
    app.register_error_handler(HTTPException, _answer)
    app.register_error_handler(SQLAlchemyError, _answer_database)
    app.register_error_handler(Exception, _answer_unexpected)


class Duplicate(Conflict):
    """What was to be written is there already, and there can be only one."""

    description = "There is one like this already."


class TryAgain(ServiceUnavailable):
    """The shop could not do it now. Nothing was wrong with the request."""

    description = "The shop cannot do this at the moment."


class ShopError(InternalServerError):
    """The shop is wrong. That much its caller is told, and no more."""

    description = "Something went wrong in the shop. When you report it, quote the request_id."


@dataclass(frozen=True)
class Type:
    """What is the same of all problems that a program should treat alike."""

    title: str
    meaning: str


TYPES = {
    "invalid": Type("Not Acceptable As It Is", "Each entry of errors names a field and what is wrong with it."),
    "duplicate": Type("Already There", "Something that can exist only once exists. Read it, or choose another name."),
    "try-again": Type("Not Now", "The request was in order. Send it again after the seconds that Retry-After says."),
}
BY_CLASS = {Invalid: "invalid", Duplicate: "duplicate", TryAgain: "try-again"}


@blueprint.get("/<name>")
def explain(name: str) -> Response:
    """What a type of problem means: the address that `type` gives leads here."""
    if name not in TYPES:
        raise NotFound("There is no such type of problem.")
    return jsonify({"title": TYPES[name].title, "meaning": TYPES[name].meaning})


def _answer(error: HTTPException) -> Response:
    """Give the error's own status and headers, such as Allow and Retry-After, and a problem for a body."""
    if error.response is not None:  # raised with a response of its own
        return error.response  # type: ignore[return-value]  # Flask's responses are its own class
    name = BY_CLASS.get(type(error))
    problem: dict[str, Any] = {
        "type": url_for("errors.explain", name=name) if name else "about:blank",
        "title": TYPES[name].title if name else error.name,
        "status": error.code,
        "detail": error.description,
        "instance": f"{quote(request.path)}#{request_id()}",
        "request_id": request_id(),
    }
    if isinstance(error, Invalid):
        problem["errors"] = error.errors
        received = request.get_json(silent=True)
        current_app.logger.info("request refused", extra={"errors": error.errors, "received": received})
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    headers[HEADER] = request_id()
    content = json.dumps(problem, default=str)  # whatever an extension is: to fail here would hide the first error
    return Response(content, status=error.code, headers=headers, content_type=PROBLEM)


def request_id() -> str:
    """The name of this request, under which the log has it.

    It is the one that calls of other services carry, if something names requests; else the caller's, if that is
    harmless; else a new one.
    """
    if "request_id" not in g:
        known = outgoing.headers().get(HEADER) or request.headers.get(HEADER, "")
        g.request_id = known if HARMLESS.fullmatch(known) else str(uuid4())
    return str(g.request_id)


UNIQUE_VIOLATION = "23505"
PASSING = {"40001": 1, "40P01": 1, "55P03": 1, "53300": 2}  # the transaction lost a race, or found no room: seconds
GONE = ("08", "57")  # classes: the connection failed; an operator or a time limit ended it
GONE_SECONDS = 5


def _answer_database(error: SQLAlchemyError) -> Response:
    """Tell apart what the caller can do about it, what will pass, and what is a bug."""
    known = _translated(error)
    if known is None:
        return _answer_unexpected(error)
    if isinstance(known, TryAgain):
        cause = getattr(error, "orig", None) or error
        current_app.logger.warning(
            "the database failed in request %s: %s: %s", request_id(), type(cause).__name__, cause
        )
    return _answer(known)


def _translated(error: SQLAlchemyError) -> HTTPException | None:
    """What the database's failure means to whoever asked; None if it means that the shop is wrong."""
    if isinstance(error, PoolTimeout):  # every connection is in use
        return TryAgain(retry_after=1)
    if not isinstance(error, DBAPIError):
        return None
    state = getattr(error.orig, "sqlstate", None)
    if state == UNIQUE_VIOLATION:
        return Duplicate()
    if state in PASSING:
        return TryAgain(retry_after=PASSING[state])
    never_connected = state is None and isinstance(error, OperationalError)
    if error.connection_invalidated or never_connected or (state or "").startswith(GONE):
        return TryAgain(retry_after=GONE_SECONDS)
    return None


def _answer_unexpected(error: Exception) -> Response:
    """Log it once, with its stack; tell whoever listens for Flask's signal; tell the caller nothing of it."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - as Flask's documentation has it
    got_request_exception.send(app, exception=error)
    current_app.logger.error("unexpected error in request %s", request_id(), exc_info=error)
    return _answer(ShopError())
