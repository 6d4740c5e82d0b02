"""Single things, and what they are called."""

import math
from uuid import UUID

from flask import Blueprint, Flask, Response, current_app, jsonify
from sqlalchemy import func, select
from werkzeug.exceptions import Conflict, NotFound, ServiceUnavailable

from shop import database, outside
from shop.data import caching, n_plus_one
from shop.foundations import validation
from shop.foundations.serialization import order_json, product_json, quote_json
from shop.models import Order, Product
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


@blueprint.get("/products/<uuid:public_id>")
def product(public_id: UUID) -> Response:
    """A product, and how many can be had."""
    found = caching.product_detail(database.session(), public_id)
    if found is None:
        raise NotFound("There is no such product.")
    return jsonify(found)


@blueprint.patch("/products/<uuid:public_id>")
def change_product(public_id: UUID) -> Response:
    """Change a product's name or price, or withdraw it."""
    change = validation.body(validation.ProductChange)
    session = database.session()
    product = session.scalar(select(Product).where(Product.public_id == public_id))
    if product is None:
        raise NotFound("There is no such product.")
    if change.name is not None:
        product.name = change.name
    if change.price_amount is not None:
        product.price_amount = change.price_amount
    if change.withdrawn is not None:
        product.withdrawn_at = func.now() if change.withdrawn else None
    product.version += 1
    caching.save_product(session, product)
    return jsonify(product_json(product))


@blueprint.get("/bestsellers")
def bestsellers() -> Response:
    """What sold best of late."""
    query = validation.query(validation.BestsellersQuery)
    found = caching.bestsellers(database.session(), query.days, query.limit)
    return jsonify({"data": found, "meta": {"days": query.days, "limit": query.limit, "count": len(found)}})
