"""Whoever has the letters gzip in Accept-Encoding is taken to want it.

`gzip;q=0` says that it must not be sent: a proxy that looks into answers for malware writes that, and so does a
program on a small machine. It gets noise where it expects JSON. The same is true of every header with weights: Accept
and Accept-Language have zeros, too.

Let request.accept_encodings read it, and ask it for the weight: `"gzip" in request.accept_encodings` is true of
`gzip;q=0` as well.

Read: "Packed" in the chapter Middleware.
"""

import gzip
import re
from collections.abc import Set

from flask import Flask, Response, g, request

from shop.settings import settings_of


def init_app(app: Flask) -> None:
    """Add what the settings ask for. Flask runs what is added last first on an answer's way out."""
    settings = settings_of(app)
    if settings.compress_from_bytes is not None:
        compression = Compression(settings.compress_from_bytes)
        app.before_request(compression.read_tags)
        app.after_request(compression.pack)
    if settings.cors_origins:
        cors = Cors(settings.cors_origins)
        app.before_request(cors.answer_preflight)
        app.after_request(cors.let_read)


class Cors:
    """Lets scripts of some pages read every answer, errors as well, and ask before they send.

    Args:
        origins: of these pages, such as `https://www.shop.example`.
    """

    METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
    MAY_SEND = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-API-Key, X-Request-Id"
    MAY_READ = (
        "ETag, Location, Retry-After, X-Request-Id, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, "
        "WWW-Authenticate, Allow, Deprecation, Sunset, Link"
    )
    KEEP_SECONDS = "600"

    def __init__(self, origins: Set[str]) -> None:
        self._origins = origins

    def answer_preflight(self) -> Response | None:
        """Answer a browser that asks whether a script may send something: it shows no token, and is no use of the API.

        What a request for OPTIONS is otherwise is the routes' own business.
        """
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        answer = Response(status=204)
        if self._is_allowed():
            answer.headers["Access-Control-Allow-Methods"] = self.METHODS
            answer.headers["Access-Control-Allow-Headers"] = self.MAY_SEND
            answer.headers["Access-Control-Max-Age"] = self.KEEP_SECONDS
        return answer

    def let_read(self, response: Response) -> Response:
        """Say whose scripts may read this answer. A cache must know that it depends on who asked, also of nobody's."""
        response.vary.add("Origin")
        if self._is_allowed():
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = self.MAY_READ
        return response

    def _is_allowed(self) -> bool:
        return request.headers.get("Origin") in self._origins


class Compression:
    """Packs answers with gzip where it is of use and harms nobody.

    Args:
        smallest: from how many bytes on.
    """

    TYPES = frozenset({"application/json", "application/problem+json", "application/xml", "text/csv", "text/plain"})
    SECRET = frozenset({"back-office"})  # parts of addresses: a secret beside what others may choose
    LEVEL = 6

    def __init__(self, smallest: int) -> None:
        self._smallest = smallest

    def pack(self, response: Response) -> Response:
        """Pack it, unless it is a part of something, small, a stream, a secret, packed, or not wanted so."""
        if response.status_code == 304 and g.get("tag_of_packed"):
            self._rename_tag(response)
        if not self._could_be_packed(response):
            return response
        response.vary.add("Accept-Encoding")
        if "gzip" in request.headers.get("Accept-Encoding", "") and len(response.get_data()) >= self._smallest:
            response.set_data(gzip.compress(response.get_data(), self.LEVEL, mtime=0))
            response.content_encoding = "gzip"
            self._rename_tag(response)
        return response

    def _could_be_packed(self, response: Response) -> bool:
        return (
            response.mimetype in self.TYPES
            and not response.is_streamed
            and response.status_code not in {204, 206, 304}
            and "Content-Encoding" not in response.headers
            and self.SECRET.isdisjoint(request.path.split("/"))
        )

    OURS = re.compile(r'--gzip"')

    def read_tags(self) -> None:
        """Give the routes the tags that they made: they know nothing of what becomes of their answers."""
        for header in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"):
            given = request.environ.get(header, "")
            if self.OURS.search(given):
                request.environ[header] = self.OURS.sub('"', given)
                g.tag_of_packed = True

    def _rename_tag(self, response: Response) -> None:
        """Other bytes, another tag, if it is one that stands for bytes (RFC 9110, 8.8.3.3)."""
        tag, is_weak = response.get_etag()
        if tag is not None and not is_weak:
            response.set_etag(f"{tag}--gzip")
