"""A right answer: a WSGI middleware names the request before anyone sees it, by its own header, for all who read it.

Whatever logs inside takes the name from the header, as from any caller, and so agrees with the answers.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from flask import Flask, Response, abort, got_request_exception, jsonify, request
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionLeft
from werkzeug.exceptions import HTTPException

from shop.foundations.validation import Invalid

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LATER = re.compile(r"08...|40001|40P01|55P03|53300|57...")

EXPLAINED = {
    "/v1/problems/fields": "Some fields are wrong; errors names each.",
    "/v1/problems/later": "Nothing is wrong with the request. Send it again later.",
}


class Named:
    """Gives every request a harmless X-Request-Id, if its caller has not."""

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request."""
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", environ.get("HTTP_X_REQUEST_ID", "")):
            environ["HTTP_X_REQUEST_ID"] = str(uuid4())
        return self._app(environ, start_response)


def init_app(app: Flask) -> None:
    """Name requests, explain types, and turn exceptions into problems, class by class."""
    app.wsgi_app = Named(app.wsgi_app)  # type: ignore[method-assign]  # as Flask's manual says to

    @app.get("/v1/problems/<name>")
    def explain(name: str) -> Response:
        return jsonify(EXPLAINED.get(f"/v1/problems/{name}") or abort(404))

    @app.errorhandler(HTTPException)
    def expected(error: HTTPException) -> Any:
        if error.response:
            return error.response
        headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
        kind, more = "about:blank", {}
        if isinstance(error, Invalid):
            kind, more = "/v1/problems/fields", {"errors": error.errors}
            app.logger.info("request refused", extra={**more, "received": request.get_json(silent=True)})
        return problem(error.code or 500, error.description or error.name, headers, kind, title=error.name, **more)

    @app.errorhandler(SQLAlchemyError)
    def of_the_database(error: SQLAlchemyError) -> Any:
        state = getattr(getattr(error, "orig", None), "sqlstate", None)
        if state == "23505":
            return problem(409, "Something like it is there already.")
        lost = isinstance(error, DBAPIError) and type(error).__name__ == "OperationalError" and state is None
        if isinstance(error, NoConnectionLeft) or lost or LATER.fullmatch(state or ""):
            app.logger.error("%s: no answer from the database: %s", request.headers["X-Request-Id"], error)
            later = {"Retry-After": "2"}
            return problem(503, "We are busy.", later, "/v1/problems/later", title="Later")
        return unexpected(error)

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Any:
        got_request_exception.send(app, exception=error)
        app.logger.exception("%s: crashed", request.headers["X-Request-Id"], exc_info=error)
        return problem(500, "Something broke.")


def problem(
    status: int,
    detail: str,
    headers: dict[str, str] | None = None,
    kind: str = "about:blank",
    *,
    title: str = "",
    **more: Any,
) -> Response:
    """An answer in the one form."""
    name = request.headers["X-Request-Id"]
    body = jsonify(
        type=kind,
        title=title or HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=f"#{name}",
        request_id=name,
        **more,
    )
    body.status_code = status
    body.headers.update((headers or {}) | {"X-Request-Id": name})
    body.content_type = "application/problem+json"
    return body
