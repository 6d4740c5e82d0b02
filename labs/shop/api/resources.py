"""Single things, and what they are called."""

from uuid import UUID

from flask import Blueprint, Flask, Response, jsonify
from werkzeug.exceptions import NotFound

from shop import database
from shop.data import caching, n_plus_one
from shop.foundations import validation
from shop.foundations.serialization import order_json

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


@blueprint.get("/products/<uuid:public_id>")
def product(public_id: UUID) -> Response:
    """A product, and how many can be had."""
    found = caching.product_detail(database.session(), public_id)
    if found is None:
        raise NotFound("There is no such product.")
    return jsonify(found)


@blueprint.get("/bestsellers")
def bestsellers() -> Response:
    """What sold best of late."""
    query = validation.query(validation.BestsellersQuery)
    found = caching.bestsellers(database.session(), query.days, query.limit)
    return jsonify({"data": found, "meta": {"days": query.days, "limit": query.limit, "count": len(found)}})
