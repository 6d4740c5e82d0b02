"""A right answer: one handler for all there is, which matches the exception against psycopg's own classes.

No problem has a type of its own: each is about:blank, and its status says all.
"""

import re
from uuid import uuid4

import sqlalchemy.exc
from flask import Flask, Response, current_app, g, got_request_exception, make_response, request
from psycopg import errors
from werkzeug.exceptions import Conflict, HTTPException, InternalServerError, ServiceUnavailable

from shop import outgoing
from shop.foundations.validation import Invalid


def init_app(app: Flask) -> None:
    """Flask asks the handler of Exception for every HTTPException as well, if those have none."""
    app.register_error_handler(Exception, _handle)


def _handle(error: Exception) -> Response:
    known = _meaning(error)
    if known is None:
        got_request_exception.send(current_app._get_current_object(), exception=error)  # type: ignore[attr-defined]  # noqa: SLF001 - Flask's manual
        current_app.logger.critical("[%s] a bug", _name(), exc_info=(type(error), error, error.__traceback__))
        known = InternalServerError("This is our mistake, not yours.")
    elif known is not error:
        current_app.logger.warning("[%s] %s: %s", _name(), type(error).__name__, error)
    if known.response is not None:
        return make_response(known.response)
    answer = make_response(known.get_response())
    problem = {
        "type": "about:blank",
        "title": known.name,
        "status": known.code,
        "detail": known.description,
        "instance": f"urn:request:{_name()}",
        "request_id": _name(),
    }
    if isinstance(known, Invalid):
        problem["errors"] = [{"field": one["field"], "detail": one["detail"]} for one in known.errors]
        current_app.logger.info(
            "request refused", extra={"errors": known.errors, "received": request.get_json(silent=True)}
        )
    answer.data = current_app.json.dumps(problem)
    answer.headers["Content-Type"] = "application/problem+json"
    answer.headers["X-Request-Id"] = _name()
    return answer


def _meaning(error: Exception) -> HTTPException | None:
    match error:
        case HTTPException():
            return error
        case sqlalchemy.exc.IntegrityError(orig=errors.UniqueViolation()):
            return Conflict("It exists already.")
        case sqlalchemy.exc.OperationalError() | sqlalchemy.exc.TimeoutError() | sqlalchemy.exc.InterfaceError():
            return ServiceUnavailable("Please try again.", retry_after=3)
        case _:
            return None


def _name() -> str:
    if not hasattr(g, "name_of_the_request"):
        name = outgoing.headers().get("X-Request-Id", request.headers.get("X-Request-Id", ""))
        g.name_of_the_request = name if re.fullmatch(r"[\w.-]{1,64}", name, re.ASCII) else uuid4().hex
    return str(g.name_of_the_request)
