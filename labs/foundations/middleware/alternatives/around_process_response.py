"""A right answer: what is Flask's last step is replaced, so that no order of registration matters on the way out.

`process_response` runs every function of `after_request`, for answers and errors alike; around it is outside of all of
them. Tags are told apart by their first letter. On the way in, `url_value_preprocessor` is before all `before_request`.
"""

import gzip
from http import HTTPStatus

from flask import Flask, Response, request
from werkzeug.datastructures import ETags

from shop.settings import settings_of

LEFT_ALONE = {HTTPStatus.NO_CONTENT, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.NOT_MODIFIED}
SENT = ["Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "X-API-Key", "X-Request-Id"]
READ = ["ETag", "Location", "Retry-After", "X-Request-Id", "X-RateLimit-Remaining", "X-RateLimit-Reset"]
Z = "z."


def init_app(app: Flask) -> None:
    """Stand around Flask's last step, and before its first."""
    settings = settings_of(app)
    inner = app.process_response

    def process_response(response: Response) -> Response:
        response = inner(response)
        if settings.compress_from_bytes is not None:
            pack(response, settings.compress_from_bytes)
        if settings.cors_origins:
            allow(response)
        return response

    app.process_response = process_response  # type: ignore[method-assign]  # Flask documents that it may be

    def allow(response: Response) -> None:
        response.vary.add("Origin")
        if request.headers.get("Origin") not in settings.cors_origins:
            return
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = ", ".join(READ)
        if is_preflight():
            response.headers["Access-Control-Allow-Methods"] = request.headers["Access-Control-Request-Method"]
            response.headers["Access-Control-Allow-Headers"] = ", ".join(SENT)
            response.headers["Access-Control-Max-Age"] = "86400"

    @app.url_value_preprocessor
    def understand_tags(*_: object) -> None:
        for name in ("if_match", "if_none_match"):
            given: ETags = getattr(request, name)
            strong = [tag.removeprefix(Z) for tag in given.as_set()]
            understood = ETags(strong, [tag.removeprefix(Z) for tag in given._weak], given.star_tag)  # noqa: SLF001
            setattr(request, name, understood)  # which Werkzeug has read once, and keeps
            request.environ[f"HTTP_{name.upper()}"] = understood.to_header()

    if settings.cors_origins:
        app.before_request(lambda: Response(status=204) if is_preflight() else None)


def is_preflight() -> bool:
    """Whether a browser asks for a script."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def pack(response: Response, smallest: int) -> None:
    """Pack JSON and its like, where it may be."""
    if (
        response.status_code in LEFT_ALONE
        or response.is_streamed
        or not (response.is_json or response.mimetype == "text/csv")
        or "back-office" in request.path
    ):
        return
    response.vary.add("Accept-Encoding")
    size = response.calculate_content_length() or 0
    if size < smallest or not request.accept_encodings.quality("gzip"):
        return
    response.data = gzip.compress(response.data, 4)
    response.content_encoding = "gzip"
    tag, is_weak = response.get_etag()
    if tag:
        response.set_etag(Z + tag, weak=bool(is_weak))
