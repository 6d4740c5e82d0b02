"""Placing an order: what the shop promises when it says yes."""

from flask import Blueprint, Flask, Response, current_app, jsonify, url_for
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.exceptions import Conflict

from shop import database
from shop.foundations.serialization import order_json
from shop.foundations.validation import Invalid, NewOrder, NewOrderItem, body
from shop.models import Customer, Order, OrderItem, Product

blueprint = Blueprint("business_logic", __name__, url_prefix="/v1")


def init_app(app: Flask) -> None:
    """Add the route that places an order."""
    app.register_blueprint(blueprint)


@blueprint.post("/orders")
def create_order() -> tuple[Response, int, dict[str, str]]:
    """Place an order for products in stock, at today's prices."""
    session = database.session()
    order = place_order(session, body(NewOrder))
    session.commit()
    current_app.logger.info("order placed", extra={"order": order_json(order), "email": order.customer.email})
    location = url_for("resources.order", public_id=order.public_id)
    return jsonify(order_json(order)), 201, {"Location": location}


def place_order(session: Session, new: NewOrder) -> Order:
    """Reserve the stock for an order and write it down. The caller commits.

    Raises:
        Invalid: the customer or a product does not exist, or the products' currencies differ.
        werkzeug.exceptions.Conflict: a product is withdrawn or out of stock.
    """
    customer = session.scalar(select(Customer).where(Customer.public_id == new.customer_id))
    if customer is None:
        raise Invalid([{"field": "customer_id", "detail": "There is no such customer."}])
    items = [_reserve(session, line, place) for place, line in enumerate(new.items)]
    if len({item.product.currency for item in items}) > 1:
        raise Invalid([{"field": "items", "detail": "The products are sold in different currencies."}])
    order = Order(
        customer=customer,
        status="pending",
        items=items,
        total_amount=sum(item.quantity * item.unit_price for item in items),
        currency=items[0].product.currency,
    )
    session.add(order)
    session.flush()
    return order


def _reserve(session: Session, line: NewOrderItem, place: int) -> OrderItem:
    product = session.scalar(select(Product).where(Product.public_id == line.product_id))
    if product is None:
        raise Invalid([{"field": f"items.{place}.product_id", "detail": "There is no such product."}])
    if product.withdrawn_at is not None:
        raise Conflict(f"{product.name} is no longer sold.")
    available = product.stock.on_hand - product.stock.reserved
    if line.quantity > available:
        raise Conflict(f"Of {product.name} {max(available, 0)} are available, {line.quantity} were ordered.")
    product.stock.reserved += line.quantity
    return OrderItem(product=product, quantity=line.quantity, unit_price=product.price_amount)
