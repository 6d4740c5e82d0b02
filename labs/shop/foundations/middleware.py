"""What stands between the network and every route: who else's pages may read the answers, and how they are packed.

The settings `cors_origins` and `compress_from_bytes` say so. Without them, answers go out as they are.
"""

import gzip

from flask import Flask, Response, request

from shop.settings import settings_of


def init_app(app: Flask) -> None:
    """Add to each answer what the settings ask for."""
    settings = settings_of(app)
    if settings.cors_origins:
        app.after_request(_let_scripts_read)
    if settings.compress_from_bytes is not None:
        app.after_request(_compress)


def _let_scripts_read(response: Response) -> Response:
    response.headers["Access-Control-Allow-Origin"] = request.headers.get("Origin", "*")
    response.headers["Access-Control-Allow-Credentials"] = "true"
    return response


def _compress(response: Response) -> Response:
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        response.direct_passthrough = False
        response.set_data(gzip.compress(response.get_data()))
        response.headers["Content-Encoding"] = "gzip"
    return response
