"""A right answer: a WSGI middleware around all of Flask adds the headers and packs; preflights are answered inside.

It stands outside of what logs and counts, so it answers nothing itself, and what it does to an answer is in no log.
"""

import re
import zlib
from collections.abc import Iterable
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any

from flask import Flask, request

from shop.settings import Settings, settings_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Headers = list[tuple[str, str]]

PACKED = re.compile(r"(application/(problem\+)?json|application/xml|text/(csv|plain))\b")
GZIP = re.compile(r"(?:^|,)\s*(?:gzip|\*)\s*(?:;\s*q=(?P<weight>[0-9.]+)\s*)?(?:,|$)", re.IGNORECASE)
GRANTED = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
    "Access-Control-Max-Age": "3600",
}
MAY_READ = "ETag, Location, Retry-After, X-Request-Id, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"


def init_app(app: Flask) -> None:
    """Put the layer around the application, and answer preflights within it."""
    settings = settings_of(app)
    app.wsgi_app = Layer(app.wsgi_app, settings)  # type: ignore[method-assign]  # as Flask's manual says to
    if not settings.cors_origins:
        return

    @app.before_request
    def grant() -> tuple[str, int, dict[str, str]] | None:
        asked = request.headers.get("Access-Control-Request-Headers", "")
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        return "", 200, GRANTED | {"Access-Control-Allow-Headers": asked}


class Layer:
    """Adds the headers, and packs what is whole, large and no secret."""

    def __init__(self, app: "WSGIApplication", settings: Settings) -> None:
        self._app = app
        self._origins = settings.cors_origins
        self._smallest = settings.compress_from_bytes

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request: what belongs to it is in this call's own names."""
        origin = environ.get("HTTP_ORIGIN", "")
        told: dict[str, Any] = {}
        for name in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"):
            if name in environ:
                environ[name] = environ[name].replace('.z"', '"')

        def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
            headers = list(headers)
            if self._origins:
                _vary(headers, "Origin")
                if origin in self._origins:
                    headers += [("Access-Control-Allow-Origin", origin), ("Access-Control-Expose-Headers", MAY_READ)]
            if self._smallest is not None and PACKED.match(_get(headers, "Content-Type")):
                _vary(headers, "Accept-Encoding")
            told.update(status=status, headers=headers)
            if self._is_packed(environ, status, headers):
                told["packs"] = True
                return lambda _: None
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        answer = self._app(environ, start)
        if not told.get("packs"):
            return answer
        with closing(answer) if hasattr(answer, "close") else nullcontext():
            packer = zlib.compressobj(wbits=31)
            body = packer.compress(b"".join(answer)) + packer.flush()
        start_response(told["status"], [*_of_packed(told["headers"]), ("Content-Length", str(len(body)))])
        return [body]

    def _is_packed(self, environ: "WSGIEnvironment", status: str, headers: Headers) -> bool:
        found = GZIP.search(environ.get("HTTP_ACCEPT_ENCODING", ""))
        wanted = found and (found["weight"] is None or found["weight"].strip("0.") != "")
        return bool(
            self._smallest is not None
            and wanted
            and PACKED.match(_get(headers, "Content-Type"))
            and int(_get(headers, "Content-Length") or -1) >= self._smallest  # a stream has none
            and not _get(headers, "Content-Encoding")
            and status[:3] not in {"204", "206", "304"}
            and environ["REQUEST_METHOD"] != "HEAD"
            and not environ["PATH_INFO"].startswith("/v1/back-office")
        )


def _of_packed(headers: Headers) -> Headers:
    kept = [each for each in headers if each[0].lower() not in {"content-length", "etag"}]
    tag = _get(headers, "ETag")
    if tag:
        kept.append(("ETag", tag if tag.startswith("W/") else f'{tag[:-1]}.z"'))
    return [*kept, ("Content-Encoding", "gzip")]


def _get(headers: Headers, name: str) -> str:
    return next((value for each, value in headers if each.lower() == name.lower()), "")


def _vary(headers: Headers, name: str) -> None:
    before = [value for each, value in headers if each.lower() == "vary"]
    headers[:] = [each for each in headers if each[0].lower() != "vary"]
    headers.append(("Vary", ", ".join([*before, name])))
