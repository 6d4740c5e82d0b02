"""Before Flask sees it, /v2 becomes /v1: one layer of WSGI translates requests and answers, as a gateway would.

The shop behind it knows of one version. That has a price: its log and its metrics cannot tell the two apart.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import parse_qsl, quote, urlencode

from flask import Flask, request
from werkzeug.exceptions import Gone
from werkzeug.http import http_date
from werkzeug.wrappers import Request, Response

from shop.models import OrderStatus
from shop.settings import Settings, settings_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Json = dict[str, Any]

JSON = "application/json"

STATUSES = {("awaiting_payment" if word == "pending" else word): word for word in get_args(OrderStatus)}
FIELDS = {"customer_id": "customer", "lines": "items"} | {word: word for word in ("id", "status", "placed_at", "total")}


def init_app(app: Flask) -> None:
    """Put the translator in front, and have v1 end."""
    settings = settings_of(app)

    @app.before_request
    def refuse() -> None:
        if settings.v1_sunset_at and _is_v1() and datetime.now(UTC) >= settings.v1_sunset_at:
            raise Gone(f"Version 1 is no more. Ask {_successor(request.path)}.")

    @app.after_request
    def announce(response: Any) -> Any:
        if settings.v1_deprecated_at and _is_v1():
            response.headers.extend(_told(settings))
        return response

    app.wsgi_app = Translator(app.wsgi_app)  # type: ignore[method-assign]  # as Flask's manual says to


def _is_v1() -> bool:
    return request.path.startswith("/v1/") and "shop.v2" not in request.environ


def _successor(path: str) -> str:
    return path.replace("/v1/", "/v2/", 1)


def _told(settings: Settings) -> dict[str, str]:
    """The headers that say that v1 will go."""
    assert settings.v1_deprecated_at
    headers = {"Deprecation": f"@{settings.v1_deprecated_at.timestamp():.0f}"}
    links = [f"<{quote(_successor(request.path))}>; rel=successor-version"]
    if settings.v1_sunset_at:
        headers["Sunset"] = http_date(settings.v1_sunset_at)
    if settings.v1_migration_guide:
        guide = f'<{settings.v1_migration_guide}>; rel="{{}}"; type="text/html"'
        links += [guide.format("sunset"), guide.format("deprecation")]
    return headers | {"Link": ", ".join(links)}


class Translator:
    """Speaks v2 to callers, and v1 to the application."""

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request."""
        path = environ["PATH_INFO"]
        if not path.startswith("/v2/"):
            return self._app(environ, start_response)
        environ["shop.v2"] = True
        environ["PATH_INFO"] = path.replace("/v2/", "/v1/", 1)
        return self._translated(environ, path.split("/")[2:])(environ, start_response)

    def _translated(self, environ: "WSGIEnvironment", path: list[str]) -> Response:
        kind = _kind(environ["REQUEST_METHOD"], path)
        tags = environ.pop("HTTP_IF_NONE_MATCH", None) if kind == "order" else None
        if kind == "orders" and (problem := _hear_query(environ)):
            errors = [{"field": problem, "detail": "That is no word of v2's."}]
            return Response(json.dumps({"error": "Unprocessable Entity", "errors": errors}), 422, mimetype=JSON)
        if kind == "new order":
            _hear_body(environ)
        response = Response.from_app(self._app, environ, buffered=True)
        if response.headers.get("Location", "").startswith("/v1/"):
            response.headers["Location"] = _successor(response.headers["Location"])
        if kind and response.is_json:
            body = response.get_json()
            response.data = json.dumps(_say(kind, body), sort_keys=True)
        if kind == "order" and "ETag" in response.headers:
            if tags:
                environ["HTTP_IF_NONE_MATCH"] = tags
            response.add_etag(overwrite=True)
            response.make_conditional(environ)
        return response


def _kind(method: str, path: list[str]) -> str:
    """What is other in v2 about what is asked for; empty if nothing is."""
    match method, path:
        case "POST", ["orders"]:
            return "new order"
        case _, ["orders"] | ["customers", _, "orders"]:
            return "orders"
        case _, ["orders", _]:
            return "order"
        case "POST", ["products", _, "pictures"]:
            return "picture"
    return ""


def _hear_query(environ: "WSGIEnvironment") -> str:
    """Translate the query; the name of what it has that is no word of v2, if any."""
    heard = []
    for name, value in parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True):
        words = {"status": STATUSES, "fields": FIELDS}.get(name)
        said = value.split(",") if words else []
        if words and not words.keys() >= set(said):
            return name
        heard.append((name, ",".join(words[word] for word in said) if words else value))
    environ["QUERY_STRING"] = urlencode(heard)
    return ""


def _hear_body(environ: "WSGIEnvironment") -> None:
    said = Request(environ).get_data()
    try:
        new = json.loads(said)
    except ValueError:
        new = None
    if isinstance(new, dict):
        new = {_other(name): value for name, value in new.items()}
        said = json.dumps(new).encode()
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = BytesIO(said), str(len(said))


def _other(field: str) -> str:
    """A field's name in the other version."""
    first, dot, rest = field.partition(".")
    return {"items": "lines", "lines": "items"}.get(first, first) + dot + rest


def _say(kind: str, body: Json) -> Json:
    if "errors" in body:
        return body | {"errors": [error | {"field": _other(error["field"])} for error in body["errors"]]}
    if "id" not in body and "data" not in body and "url" not in body:
        return body
    if kind == "picture":
        return body | {"url": _successor(body["url"])}
    return body | {"data": [_order(order) for order in body["data"]]} if "data" in body else _order(body)


def _order(order: Json) -> Json:
    said = dict(order)
    if said.get("status") == "pending":
        said["status"] = "awaiting_payment"
    if "customer" in said:
        said["customer_id"] = said.pop("customer")["id"]
    if "items" in said:
        items = said.pop("items")
        said["lines"] = [{"quantity": item["quantity"], "unit_price": item["unit_price"]} for item in items]
        for line, item in zip(said["lines"], items, strict=True):
            line |= {
                "product_id": item["product"]["id"],
                "sku": item["product"]["sku"],
                "name": item["product"]["name"],
            }
    return said
