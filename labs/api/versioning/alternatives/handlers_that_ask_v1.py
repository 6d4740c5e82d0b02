"""v2 has handlers of its own for what is other about it, and each of them calls v1's and translates what it returns.

What v1's handlers raise is translated as an exception, before anybody makes an answer of it.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from uuid import UUID

from flask import Flask, Response, current_app, jsonify, request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import Gone
from werkzeug.http import http_date

from shop.foundations.validation import Invalid
from shop.settings import settings_of

Json = dict[str, Any]
Handler = Callable[..., Response]


def init_app(app: Flask) -> None:
    """Register v1's blueprints for v2, and put handlers of v2's own in the place of some."""
    first = [each for each in app.blueprints.values() if (each.url_prefix or "").startswith("/v1")]
    for blueprint in first:
        prefix = (blueprint.url_prefix or "").replace("/v1", "/v2", 1)
        app.register_blueprint(blueprint, url_prefix=prefix, name=f"second-{blueprint.name}")
    handlers: dict[str, Handler] = {
        "business_logic.create_order": create_order,
        "pagination.orders": orders,
        "pagination.customer_orders": customer_orders,
        "resources.order": order,
    }
    app.view_functions |= {f"second-{endpoint}": handler for endpoint, handler in handlers.items()}

    @app.before_request
    def end() -> None:
        sunset = settings_of(app).v1_sunset_at
        if sunset and request.path.startswith("/v1/") and sunset <= datetime.now(UTC):
            raise Gone(f"v1 ended on {sunset:%Y-%m-%d}.")

    app.after_request(announce)
    app.after_request(stay)


def announce(response: Response) -> Response:
    """Say that v1 will go."""
    settings = settings_of(current_app)
    if not request.path.startswith("/v1/") or not settings.v1_deprecated_at:
        return response
    response.headers["Deprecation"] = f"@{int(settings.v1_deprecated_at.timestamp())}"
    response.headers.add("Link", f'<{request.path.replace("/v1/", "/v2/", 1)}>; rel="successor-version"')
    if settings.v1_migration_guide:
        response.headers.add("Link", f'<{settings.v1_migration_guide}>; rel="deprecation"; type="text/html"')
        response.headers.add("Link", f'<{settings.v1_migration_guide}>; rel="sunset"; type="text/html"')
    if settings.v1_sunset_at:
        response.headers["Sunset"] = http_date(settings.v1_sunset_at)
    return response


def stay(response: Response) -> Response:
    """Have what v2 says to be somewhere be in v2."""
    location = response.headers.get("Location", "")
    if request.path.startswith("/v2/") and location.startswith("/v1/"):
        response.headers["Location"] = location.replace("/v1/", "/v2/", 1)
        if response.is_json and "url" in (body := response.get_json()):
            response.data = json.dumps(body | {"url": response.headers["Location"]})
    return response


def ask_v1(endpoint: str, **arguments: Any) -> Response:
    """What v1's handler returns.

    Raises:
        werkzeug.exceptions.HTTPException: it does; fields are named as v2 names them.
    """
    try:
        return current_app.make_response(current_app.view_functions[endpoint](**arguments))
    except Invalid as error:
        raise Invalid([each | {"field": _named(each["field"])} for each in error.errors]) from error


def _named(field: str) -> str:
    names = field.split(".")
    names[0] = {"items": "lines", "lines": "items"}.get(names[0], names[0])
    return ".".join(names)


def create_order() -> Response:
    """Place an order."""
    sent = request.get_data(cache=False)
    try:
        body = json.loads(sent)
    except ValueError:
        body = None
    if isinstance(body, dict):
        sent = json.dumps({_named(name): value for name, value in body.items()}).encode()
    request.stream = BytesIO(sent)
    response = ask_v1("business_logic.create_order")
    response.data = json.dumps(_shown(response.get_json()))
    return response


def order(public_id: UUID) -> Response:
    """An order. v1's tag is thrown away, and with it what was asked of it."""
    known = request.environ.pop("HTTP_IF_NONE_MATCH", "")
    found = ask_v1("resources.order", public_id=public_id)
    response = jsonify(_shown(found.get_json()))
    response.headers["Cache-Control"] = found.headers.get("Cache-Control", "no-cache, private")
    request.environ["HTTP_IF_NONE_MATCH"] = known
    response.add_etag()
    return response.make_conditional(request)  # type: ignore[return-value]  # it is the same response


def orders() -> Response:
    """All orders."""
    return _list("pagination.orders")


def customer_orders(public_id: UUID) -> Response:
    """A customer's."""
    return _list("pagination.customer_orders", public_id=public_id)


def _list(endpoint: str, **arguments: Any) -> Response:
    query = MultiDict(request.args)
    wanted = query.get("status")
    if wanted == "pending":
        raise Invalid([{"field": "status", "detail": "In v2 it is awaiting_payment."}])
    if wanted == "awaiting_payment":
        query["status"] = "pending"
    if fields := query.get("fields"):
        names = fields.split(",")
        if {"customer", "items"} & set(names):
            raise Invalid([{"field": "fields", "detail": "There is no such field."}])
        query["fields"] = ",".join({"customer_id": "customer", "lines": "items"}.get(name, name) for name in names)
    request.args = query  # type: ignore[assignment]  # which reads the same
    response = ask_v1(endpoint, **arguments)
    page = response.get_json()
    response.data = json.dumps(page | {"data": [_shown(order) for order in page["data"]]})
    return response


def _shown(order: Json) -> Json:
    shown = {name: order[name] for name in ("id", "placed_at", "total") if name in order}
    if "status" in order:
        shown["status"] = {"pending": "awaiting_payment"}.get(order["status"], order["status"])
    if "customer" in order:
        shown["customer_id"] = order["customer"]["id"]
    if "items" in order:
        shown["lines"] = [
            {
                "product_id": item["product"]["id"],
                "sku": item["product"]["sku"],
                "name": item["product"]["name"],
                "quantity": item["quantity"],
                "unit_price": item["unit_price"],
            }
            for item in order["items"]
        ]
    return shown
