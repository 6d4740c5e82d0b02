"""Each request of v2 that is other becomes a second request, of v1, to the same application, inside the first one.

What comes back is v1's whole answer, as a client would have it. The guards of a route stand before both.
"""

import json
from datetime import UTC, datetime
from typing import Any, get_args

from flask import Flask, Response, current_app, g, request
from werkzeug.exceptions import Gone
from werkzeug.http import http_date
from werkzeug.test import EnvironBuilder

from shop.foundations.validation import Invalid
from shop.models import OrderStatus
from shop.settings import settings_of

Json = dict[str, Any]

WORDS = {
    "status": {"awaiting_payment": "pending"} | {word: word for word in get_args(OrderStatus) if word != "pending"},
    "fields": {"customer_id": "customer", "lines": "items"}
    | {word: word for word in ("id", "status", "placed_at", "total")},
}
CHANGED = {"resources.order", "pagination.orders", "pagination.customer_orders", "business_logic.create_order"}
PICTURE = "request_content.upload"


def init_app(app: Flask) -> None:
    """Have every blueprint of v1 in v2, and have what v2 changes ask v1."""
    for name, blueprint in tuple(app.blueprints.items()):
        if (blueprint.url_prefix or "").startswith("/v1"):
            app.register_blueprint(blueprint, name=f"v2:{name}", url_prefix=f"/v2{(blueprint.url_prefix or '')[3:]}")
    for endpoint in CHANGED:
        app.view_functions[f"v2:{endpoint}"] = _of_v2(app, endpoint)
    app.before_request(_end)
    app.after_request(_announce)
    app.after_request(_turn_links)


def _version() -> str:
    return request.path.split("/")[1]


def _end() -> None:
    sunset = settings_of(current_app).v1_sunset_at
    if sunset is not None and _version() == "v1" and "by_v2" not in g and datetime.now(UTC) > sunset:
        raise Gone("This version is gone.")


def _announce(response: Response) -> Response:
    settings = settings_of(current_app)
    deprecated, sunset, guide = settings.v1_deprecated_at, settings.v1_sunset_at, settings.v1_migration_guide
    if deprecated and _version() == "v1" and "by_v2" not in g:
        response.headers["Deprecation"] = f"@{int(deprecated.timestamp())}"
        response.headers.add("Link", f"</v2{request.path[3:]}>", rel="successor-version")
        if guide:
            response.headers.add("Link", f"<{guide}>", rel="deprecation sunset")
        if sunset:
            response.headers["Sunset"] = http_date(sunset)
    return response


def _turn_links(response: Response) -> Response:
    location = response.headers.get("Location", "")
    if _version() == "v2" and location.startswith("/v1/"):
        response.headers["Location"] = f"/v2{location[3:]}"
        if request.endpoint == f"v2:{PICTURE}":
            response.data = json.dumps(response.get_json() | {"url": f"/v2{location[3:]}"})
    return response


def _of_v2(app: Flask, endpoint: str) -> Any:
    """A handler that asks v1's handler, in a context of its own."""

    def handler(**arguments: Any) -> Response:
        query = {name: _heard(name, value) for name, value in request.args.items(multi=True)}
        data = _basket(request.get_data()) if request.method == "POST" else None
        kept = {name: value for name, value in request.headers if name not in {"If-None-Match", "Content-Length"}}
        inner = EnvironBuilder(
            f"/v1{request.path[3:]}", method=request.method, query_string=query, data=data, headers=kept
        )
        g.by_v2 = True
        try:
            with app.request_context(inner.get_environ()):
                try:
                    answer = app.make_response(app.view_functions[endpoint](**arguments))
                except Exception as error:  # noqa: BLE001 - whatever it is, it has an answer
                    answer = app.make_response(app.handle_user_exception(error))
        finally:
            g.pop("by_v2")
        answer.data = json.dumps(_said(answer.get_json()), sort_keys=True)
        if "ETag" in answer.headers:
            answer.add_etag(overwrite=True)
            answer.make_conditional(request)
        return answer

    return handler


def _heard(name: str, value: str) -> str:
    known = WORDS.get(name)
    if known is None:
        return value
    words = value.split(",")
    if not set(words) <= known.keys():
        raise Invalid([{"field": name, "detail": f"There is {', '.join(known)}."}])
    return ",".join(known[word] for word in words)


def _basket(sent: bytes) -> bytes:
    try:
        new = json.loads(sent)
    except ValueError:
        return sent
    return json.dumps({_turned(name): new[name] for name in new}).encode() if isinstance(new, dict) else sent


def _turned(name: str) -> str:
    if name.partition(".")[0] in {"items", "lines"}:
        return name.replace("items", "lines") if name.startswith("items") else name.replace("lines", "items")
    return name


def _said(body: Json) -> Json:
    if "errors" in body:
        return body | {"errors": [error | {"field": _turned(error["field"])} for error in body["errors"]]}
    if "data" in body:
        return body | {"data": [_said(order) for order in body["data"]]}
    said = dict(body)
    if said.get("status") == "pending":
        said["status"] = "awaiting_payment"
    if "customer" in said:
        said["customer_id"] = said.pop("customer")["id"]
    if "items" in said:
        said["lines"] = [
            {f"product_{name}" if name == "id" else name: value for name, value in item.pop("product").items()} | item
            for item in said.pop("items")
        ]
    return said
