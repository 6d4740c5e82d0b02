"""The second version of orders, at /v2: the first one's handlers, copied, with another shape.

What is other about it, and until when there is the first, the brief of the lab says. The settings that begin with
`v1_` of `shop.settings` are read by nobody yet.
"""

from typing import Any
from uuid import UUID

from flask import Blueprint, Flask, Response, current_app, jsonify, url_for
from pydantic import Field
from sqlalchemy import ColumnElement  # noqa: TC002 - as everywhere in the shop
from werkzeug.exceptions import NotFound

from shop import database
from shop.data import n_plus_one
from shop.foundations import validation
from shop.foundations.business_logic import place_order
from shop.foundations.serialization import moment, money, page_json
from shop.models import Order, OrderStatus
from shop.settings import settings_of

blueprint = Blueprint("versioning", __name__, url_prefix="/v2")


class NewOrder(validation.Strict):
    """A basket that a customer sends off."""

    customer_id: UUID
    lines: list[validation.NewOrderItem] = Field(min_length=1)


class OrdersQuery(validation.Strict):
    """Which orders."""

    limit: int | None = Field(default=None, ge=1)
    offset: int = Field(default=0, ge=0, le=1_000_000_000)
    status: OrderStatus | None = None


def init_app(app: Flask) -> None:
    """Add the routes of the second version."""
    app.register_blueprint(blueprint)


@blueprint.post("/orders")
def create_order() -> tuple[Response, int, dict[str, str]]:
    """Place an order."""
    new = validation.body(NewOrder)
    order = place_order(validation.NewOrder(customer_id=new.customer_id, items=new.lines))
    location = url_for("resources.order", public_id=order.public_id)
    return jsonify(_order_json(order)), 201, {"Location": location}


@blueprint.get("/orders/<uuid:public_id>")
def order(public_id: UUID) -> Response:
    """An order with its lines."""
    found = n_plus_one.order_detail(database.session(), public_id)
    if found is None:
        raise NotFound("There is no such order.")
    return jsonify(_order_json(found))


@blueprint.get("/orders")
def orders() -> Response:
    """All orders, the newest first."""
    query = validation.query(OrdersQuery)
    settings = settings_of(current_app)
    limit = min(query.limit or settings.page_limit_default, settings.page_limit_max)
    where: list[ColumnElement[bool]] = [] if query.status is None else [Order.status == query.status]
    page = n_plus_one.orders_page(database.session(), where=where, limit=limit, offset=query.offset)
    return jsonify(page_json([_order_json(order) for order in page], limit, query.offset))


def _order_json(order: Order) -> dict[str, Any]:
    return {
        "id": str(order.public_id),
        "status": "awaiting_payment" if order.status == "pending" else order.status,
        "placed_at": moment(order.placed_at),
        "total": money(order.total_amount, order.currency),
        "customer_id": str(order.customer.public_id),
        "lines": [
            {
                "product_id": str(item.product.public_id),
                "sku": item.product.sku,
                "name": item.product.name,
                "quantity": item.quantity,
                "unit_price": money(item.unit_price, order.currency),
            }
            for item in order.items
        ],
    }
