"""The UPDATE compares: it changes the row only if there is enough, and tells whether it did.

No lock is asked for: the statement takes it, and PostgreSQL compares again with what it finds after the wait.
"""

import itertools
import random
import time
from collections.abc import Callable
from typing import TypeVar

from flask import Blueprint, Flask, Response, current_app, jsonify, url_for
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from werkzeug.exceptions import Conflict, ServiceUnavailable

from shop import database, warehouse
from shop.foundations.serialization import order_json
from shop.foundations.validation import Invalid, NewOrder, NewOrderItem, body
from shop.models import Customer, Order, OrderItem, Product, Stock
from shop.settings import settings_of

T = TypeVar("T")

blueprint = Blueprint("business_logic", __name__, url_prefix="/v1")


def init_app(app: Flask) -> None:
    """Add the route that places an order."""
    app.register_blueprint(blueprint)


@blueprint.post("/orders")
def create_order() -> tuple[Response, int, dict[str, str]]:
    """Place an order for products in stock, at today's prices."""
    order = place_order(body(NewOrder))
    location = url_for("resources.order", public_id=order.public_id)
    return jsonify(order_json(order)), 201, {"Location": location}


def place_order(new: NewOrder) -> Order:
    """Place an order: reserve its stock, write it down, and tell the warehouse.

    When it returns, all of that has been committed, and the order needs no session. When it raises, nothing of it is
    there.

    Raises:
        Invalid: the customer or a product does not exist, the products' currencies differ, or it costs too much.
        werkzeug.exceptions.Conflict: a product is withdrawn or out of stock.
        werkzeug.exceptions.ServiceUnavailable: others got in its way, again and again.
    """
    order = _in_a_transaction(lambda session: _placed(session, new))
    # from here on it is so: it may be said, and nothing is locked while it is
    facts = order_json(order)
    current_app.logger.info("order placed", extra={"order": facts, "email": order.customer.email})
    warehouse.tell(facts)
    return order


def _placed(session: Session, new: NewOrder) -> Order:
    """Write an order down, if every rule holds."""
    customer = session.scalar(select(Customer).where(Customer.public_id == new.customer_id))
    if customer is None:
        raise Invalid([{"field": "customer_id", "detail": "There is no such customer."}])
    query = select(Product).where(Product.public_id.in_([line.product_id for line in new.items]))
    products = {product.public_id: product for product in session.scalars(query)}
    items = [_item(products.get(line.product_id), line, place) for place, line in enumerate(new.items)]
    for item in sorted(items, key=lambda item: item.product.id):  # the same order for all baskets
        _reserve(session, item)
    if len({item.product.currency for item in items}) > 1:
        raise Invalid([{"field": "items", "detail": "The products are sold in different currencies."}])
    total, most = sum(item.quantity * item.unit_price for item in items), settings_of(current_app).order_total_max
    if most is not None and total > most:
        raise Invalid([{"field": "items", "detail": f"An order may cost {most} at most, in minor units."}])
    order = Order(
        customer=customer, status="pending", items=items, total_amount=total, currency=items[0].product.currency
    )
    session.add(order)
    return order


def _item(product: Product | None, line: NewOrderItem, place: int) -> OrderItem:
    """A line, at the price that the product has now."""
    if product is None:
        raise Invalid([{"field": f"items.{place}.product_id", "detail": "There is no such product."}])
    if product.withdrawn_at is not None:
        raise Conflict(f"{product.name} is no longer sold.")
    return OrderItem(product=product, quantity=line.quantity, unit_price=product.price_amount)


def _reserve(session: Session, item: OrderItem) -> None:
    """Take a line's quantity out of what can be had, if it can."""
    statement = (
        update(Stock)
        .where(Stock.product_id == item.product.id, Stock.on_hand - Stock.reserved >= item.quantity)
        .values(reserved=Stock.reserved + item.quantity)
        .returning(Stock.reserved)
        .execution_options(synchronize_session=False)
    )
    if session.scalar(statement) is None:
        raise Conflict(f"Of {item.product.name} fewer are available than the {item.quantity} that were ordered.")


GOT_IN_THE_WAY = {"40001", "40P01"}  # serialization_failure, deadlock_detected: nothing was done; again may do


def _in_a_transaction(work: Callable[[Session], T]) -> T:
    """Do something in a transaction of its own: all of it, again and from the start if others got in its way.

    Raises:
        werkzeug.exceptions.ServiceUnavailable: they did so each time.
    """
    settings = settings_of(current_app)
    for attempt in itertools.count(1):
        try:
            with Session(database.engine(), expire_on_commit=False) as session, session.begin():
                return work(session)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in GOT_IN_THE_WAY:
                raise
            if attempt >= settings.order_attempts:
                raise ServiceUnavailable("The shop is busy. Nothing was ordered.", retry_after=1) from error
        # the transaction has ended: nobody waits for one that sleeps
        time.sleep(random.uniform(0, settings.order_wait_seconds * 2 ** (attempt - 1)))  # noqa: S311 - not a secret
    raise AssertionError("counting does not end")
