"""Errors as callers see them: whatever went wrong, in words, as JSON."""

from typing import Any

from flask import Flask, Response, current_app, got_request_exception, request
from werkzeug.exceptions import HTTPException

from shop.foundations.validation import Invalid


def init_app(app: Flask) -> None:
    """Answer every error with JSON in place of Flask's HTML."""
    app.register_error_handler(HTTPException, _answer)
    app.register_error_handler(Exception, _answer_unexpected)


def _answer(error: HTTPException) -> Response:
    """Give the error's own status and headers, its message for a body."""
    if error.response is not None:  # raised with a response of its own
        return error.response  # type: ignore[return-value]  # Flask's responses are its own class
    content: dict[str, Any] = {"error": str(error)}
    if isinstance(error, Invalid):
        content["errors"] = error.errors
        received = request.get_json(silent=True)
        current_app.logger.info("request refused", extra={"errors": error.errors, "received": received})
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return Response(current_app.json.dumps(content), error.code, headers, content_type="application/json")


def _answer_unexpected(error: Exception) -> Response:
    """Log what happened, tell whoever listens for Flask's signal of it, and tell the caller."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - as Flask's documentation has it
    got_request_exception.send(app, exception=error)
    current_app.logger.error("unexpected error", exc_info=error)
    return Response(current_app.json.dumps({"error": str(error)}), 500, content_type="application/json")
