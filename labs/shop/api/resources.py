"""Single things: how they are made, shown, changed and removed, each request as if it were the only one."""

import math
from typing import Any
from uuid import UUID

from flask import Blueprint, Flask, Response, current_app, jsonify
from sqlalchemy import delete, func, select
from werkzeug.exceptions import Conflict, NotFound, ServiceUnavailable

from shop import database, outside
from shop.catalogue import NewProduct, columns
from shop.data import caching, n_plus_one
from shop.foundations import validation
from shop.foundations.serialization import order_json, product_json, quote_json
from shop.models import Order, OrderItem, Product, ProductEvent, Stock
from shop.reliability.failures import ProviderError, Unavailable

blueprint = Blueprint("resources", __name__, url_prefix="/v1")


def init_app(app: Flask) -> None:
    """Add the routes of single resources."""
    app.register_blueprint(blueprint)


@blueprint.get("/orders/<uuid:public_id>")
def order(public_id: UUID) -> Response:
    """An order with its items and their products."""
    found = n_plus_one.order_detail(database.session(), public_id)
    if found is None:
        raise NotFound("There is no such order.")
    return jsonify(order_json(found))


@blueprint.get("/orders/<uuid:public_id>/delivery-quotes")
def delivery_quotes(public_id: UUID) -> Response:
    """What it costs to have an order delivered."""
    try:
        quotes = outside.quotes(_order(public_id))
    except ProviderError as error:
        raise _unavailable(error, "The delivery company gave no quote.") from error
    return jsonify({"data": [quote_json(quote) for quote in quotes]})


@blueprint.post("/orders/<uuid:public_id>/pickup")
def book_pickup(public_id: UUID) -> tuple[Response, int]:
    """Have a courier come for an order that is paid."""
    order = _order(public_id)
    if order.status != "paid":
        raise Conflict(f"An order that is {order.status} is not picked up.")
    try:
        booking = outside.book_pickup(order)
    except ProviderError as error:
        raise _unavailable(error, "Whether a courier comes is not known.") from error
    order.status = "shipped"
    database.session().commit()
    return jsonify({"booking": booking}), 201


def _order(public_id: UUID) -> Order:
    """An order of which anything may be read, not only what its page shows."""
    found = database.session().scalar(select(Order).where(Order.public_id == public_id))
    if found is None:
        raise NotFound("There is no such order.")
    return found


def _unavailable(error: ProviderError, detail: str) -> ServiceUnavailable:
    current_app.logger.warning("the delivery company failed: %s", error)
    seconds = error.retry_after if isinstance(error, Unavailable) else None
    return ServiceUnavailable(detail, retry_after=None if seconds is None else math.ceil(seconds))


@blueprint.post("/products")
def create_product() -> Response:
    """Put a new product on sale. There are none of it in the warehouse yet."""
    new = validation.body(NewProduct)
    session = database.session()
    if session.scalar(select(Product).where(Product.sku == new.sku)):
        return jsonify({"error": f"There is a product {new.sku} already."})
    product = Product(**columns(session, new), version=1)
    session.add(Stock(product=product, on_hand=0))
    caching.save_product(session, product)
    return jsonify(product_json(product))


@blueprint.get("/products/<uuid:public_id>")
def product(public_id: UUID) -> Response:
    """A product, and how many can be had."""
    found = caching.product_detail(database.session(), public_id)
    if found is None:
        raise NotFound("There is no such product.")
    return jsonify(found)


@blueprint.put("/products/<uuid:public_id>")
def replace_product(public_id: UUID) -> Response:
    """Change all of a product that a caller decides."""
    return _save(_product(public_id), columns(database.session(), validation.body(NewProduct)))


@blueprint.patch("/products/<uuid:public_id>")
def change_product(public_id: UUID) -> Response:
    """Change a product's name or price, or withdraw it."""
    change = validation.body(validation.ProductChange)
    values: dict[str, Any] = change.model_dump(include={"name", "price_amount"}, exclude_none=True)
    if change.withdrawn is not None:
        values["withdrawn_at"] = func.now() if change.withdrawn else None
    return _save(_product(public_id), values)


@blueprint.delete("/products/<uuid:public_id>")
def remove_product(public_id: UUID) -> Response:
    """Remove a product, and whatever would keep the database from removing it."""
    session = database.session()
    product = _product(public_id)
    for part in (OrderItem, Stock, ProductEvent):
        session.execute(delete(part).where(part.product_id == product.id))
    session.delete(product)
    caching.save_product(session, product)
    return jsonify({"deleted": True})


def _product(public_id: UUID) -> Product:
    found = database.session().scalar(select(Product).where(Product.public_id == public_id))
    if found is None:
        raise NotFound("There is no such product.")
    return found


def _save(product: Product, values: dict[str, Any]) -> Response:
    for name, value in values.items():
        setattr(product, name, value)
    product.version += 1
    caching.save_product(database.session(), product)
    return jsonify(product_json(product))


@blueprint.get("/bestsellers")
def bestsellers() -> Response:
    """What sold best of late."""
    query = validation.query(validation.BestsellersQuery)
    found = caching.bestsellers(database.session(), query.days, query.limit)
    return jsonify({"data": found, "meta": {"days": query.days, "limit": query.limit, "count": len(found)}})
