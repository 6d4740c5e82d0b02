"""A right answer: streams are packed as well, each piece flushed; what has a strong tag is left as it is.

The response stays the same object, so whoever waits for its end is told. Functions in place of classes.
"""

import zlib
from collections.abc import Iterable, Iterator

from flask import Flask, Response, request

from shop.settings import Settings, settings_of

NOT_TEXT = ("image/png", "image/jpeg", "image/webp", "image/gif", "video/", "audio/", "application/zip")
ALL = "DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT"
MAY_READ = "etag,location,retry-after,x-request-id,x-ratelimit-limit,x-ratelimit-remaining,x-ratelimit-reset"


def init_app(app: Flask) -> None:
    """Two functions, one on the way in and one on the way out."""
    settings = settings_of(app)

    def way_in() -> Response | None:
        method = request.headers.get("Access-Control-Request-Method")
        if not settings.cors_origins or request.method != "OPTIONS" or not method:
            return None
        response = Response(status=200)
        response.access_control_allow_methods = ALL.split(",")
        response.access_control_allow_headers = request.access_control_request_headers
        response.access_control_max_age = 60
        return response

    def way_out(response: Response) -> Response:
        if settings.cors_origins:
            _tell_who_may_read(response, settings)
        if settings.compress_from_bytes is not None:
            _pack(response, settings.compress_from_bytes)
        return response

    app.before_request(way_in)
    app.after_request(way_out)


def _tell_who_may_read(response: Response, settings: Settings) -> None:
    response.vary.update(["Origin"])
    origin = request.origin
    if origin is not None and origin in settings.cors_origins:
        response.access_control_allow_origin = origin
        response.headers["access-control-expose-headers"] = MAY_READ


def _pack(response: Response, smallest: int) -> None:
    response.vary.update(["Accept-Encoding"])
    tag, is_weak = response.get_etag()
    if (
        not request.accept_encodings.quality("gzip")
        or (tag and not is_weak)
        or response.status_code in (204, 206, 304)
        or response.mimetype.startswith(NOT_TEXT)
        or request.path.startswith("/v1/back-office")
        or (not response.is_streamed and (response.calculate_content_length() or 0) < smallest)
    ):
        return
    response.response = _packed(response.response)  # type: ignore[arg-type]  # it is bytes, once encoded
    response.headers.pop("Content-Length", None)
    response.headers["Content-Encoding"] = "gzip"


def _packed(pieces: Iterable[str | bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=31)
    for piece in pieces:
        raw = piece.encode() if isinstance(piece, str) else piece
        yield packer.compress(raw) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()
