"""Errors as callers see them: whatever went wrong, as JSON."""

from flask import Flask, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from shop.foundations.validation import Invalid


def init_app(app: Flask) -> None:
    """Answer errors with JSON in place of Flask's HTML, with the unexpected ones among them, which Flask has logged."""
    app.register_error_handler(HTTPException, _answer)


def _answer(error: HTTPException) -> Response:
    """Give the error's own response, its message for a body."""
    if error.response is not None:  # raised with a response of its own
        return error.response
    cause = getattr(error, "original_exception", None) or error
    content = {"error": str(cause)}
    if isinstance(error, Invalid):
        content["errors"] = error.errors
        received = request.get_json(silent=True)
        current_app.logger.info("request refused", extra={"errors": error.errors, "received": received})
    response = error.get_response()
    response.data = current_app.json.dumps(content)
    response.content_type = "application/json"
    return response
