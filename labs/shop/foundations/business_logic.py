"""Placing an order: what the shop promises when it says yes."""

from flask import Blueprint, Flask, Response, current_app, jsonify, url_for
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.exceptions import Conflict

from shop import database, warehouse
from shop.foundations.serialization import order_json
from shop.foundations.validation import Invalid, NewOrder, NewOrderItem, body
from shop.models import Customer, Order, OrderItem, Product
from shop.settings import settings_of

blueprint = Blueprint("business_logic", __name__, url_prefix="/v1")


def init_app(app: Flask) -> None:
    """Add the route that places an order."""
    app.register_blueprint(blueprint)


# [start:handler]
@blueprint.post("/orders")
def create_order() -> tuple[Response, int, dict[str, str]]:
    """Place an order for products in stock, at today's prices."""
    new = body(NewOrder)
    session = database.session()
    lines = [(_product(session, line, place), line.quantity) for place, line in enumerate(new.items)]
    for product, _ in lines:
        if product.withdrawn_at is not None:
            raise Conflict(f"{product.name} is no longer sold.")
    if len({product.currency for product, _ in lines}) > 1:
        raise Invalid([{"field": "items", "detail": "The products are sold in different currencies."}])
    most = settings_of(current_app).order_total_max
    if most is not None and sum(product.price_amount * quantity for product, quantity in lines) > most:
        raise Invalid([{"field": "items", "detail": f"An order may cost {most} at most, in minor units."}])
    order = place_order(new)
    location = url_for("resources.order", public_id=order.public_id)
    return jsonify(order_json(order)), 201, {"Location": location}


# [end:handler]


# [start:place]
def place_order(new: NewOrder) -> Order:
    """Place an order: reserve its stock, write it down, and tell the warehouse.

    Raises:
        Invalid: the customer or a product does not exist.
        werkzeug.exceptions.Conflict: a product is out of stock.
    """
    session = database.session()
    customer = session.scalar(select(Customer).where(Customer.public_id == new.customer_id))
    if customer is None:
        raise Invalid([{"field": "customer_id", "detail": "There is no such customer."}])
    items = [_reserve(session, line, place) for place, line in enumerate(new.items)]
    order = Order(
        customer=customer,
        status="pending",
        items=items,
        total_amount=sum(item.quantity * item.unit_price for item in items),
        currency=items[0].product.currency,
    )
    session.add(order)
    session.flush()
    current_app.logger.info("order placed", extra={"order": order_json(order), "email": customer.email})
    warehouse.tell(order_json(order))
    session.commit()
    return order


def _reserve(session: Session, line: NewOrderItem, place: int) -> OrderItem:
    product = _product(session, line, place)
    available = product.stock.on_hand - product.stock.reserved
    if line.quantity > available:
        raise Conflict(f"Of {product.name} {max(available, 0)} are available, {line.quantity} were ordered.")
    product.stock.reserved += line.quantity
    session.commit()  # now nobody else can have them
    return OrderItem(product=product, quantity=line.quantity, unit_price=product.price_amount)


# [end:place]


def _product(session: Session, line: NewOrderItem, place: int) -> Product:
    product = session.scalar(select(Product).where(Product.public_id == line.product_id))
    if product is None:
        raise Invalid([{"field": f"items.{place}.product_id", "detail": "There is no such product."}])
    return product
