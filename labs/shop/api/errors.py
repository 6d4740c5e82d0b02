"""Errors as callers see them: one form for all, as of RFC 9457."""

from typing import Any

from flask import Flask, Response, current_app, got_request_exception, request
from werkzeug.exceptions import HTTPException, InternalServerError

from shop.foundations.validation import Invalid


def init_app(app: Flask) -> None:
    """Answer every error, expected or not, as a problem."""
    app.register_error_handler(HTTPException, _answer)
    app.register_error_handler(Exception, _answer_unexpected)


def _answer(error: HTTPException) -> Response:
    """Give the error's own response, with its headers (such as Allow), a problem for a body."""
    if error.response is not None:  # raised with a response of its own
        return error.response  # type: ignore[return-value]  # Flask's responses are its own class
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": error.name,
        "status": error.code,
        "detail": error.description,
    }
    if isinstance(error, Invalid):
        problem["errors"] = error.errors
        received = request.get_json(silent=True)
        current_app.logger.info("request refused", extra={"errors": error.errors, "received": received})
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return Response(
        current_app.json.dumps(problem), status=error.code, headers=headers, content_type="application/problem+json"
    )


def _answer_unexpected(error: Exception) -> Response:
    """Log what happened, and tell whoever listens for Flask's signal of it; tell the caller nothing."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - as Flask's documentation has it
    got_request_exception.send(app, exception=error)
    current_app.logger.error("unexpected error", exc_info=error)
    return _answer(InternalServerError())
