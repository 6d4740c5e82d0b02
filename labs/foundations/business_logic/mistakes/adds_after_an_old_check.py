"""The database adds the quantity itself (SET reserved = reserved + n), but what was compared was read before.

This cures the half that shows: no reservation is lost, and the sum is right. The question was whether there is enough,
and the answer is still from before the wait. Django's F() expressions and an increment in SQL invite to this. More is
promised than there is, and the stock says so: reserved is larger than on_hand.

Put the comparison into the same statement (UPDATE ... WHERE on_hand - reserved >= n, and look at how many rows it
changed), or lock before reading. Read "Two buyers, one chair" in the chapter foundations/business_logic.
"""

import itertools
import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

from flask import Blueprint, Flask, Response, current_app, jsonify, url_for
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, contains_eager
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
    products = _locked(session, [line.product_id for line in new.items])
    items = [_reserve(products.get(line.product_id), line, place) for place, line in enumerate(new.items)]
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


def _reserve(product: Product | None, line: NewOrderItem, place: int) -> OrderItem:
    """Take a line's quantity out of what can be had, at the price that the product has now."""
    if product is None:
        raise Invalid([{"field": f"items.{place}.product_id", "detail": "There is no such product."}])
    if product.withdrawn_at is not None:
        raise Conflict(f"{product.name} is no longer sold.")
    available = product.stock.on_hand - product.stock.reserved
    if line.quantity > available:
        raise Conflict(f"Of {product.name} {max(available, 0)} are available, {line.quantity} were ordered.")
    product.stock.reserved = Stock.reserved + line.quantity  # the database adds, so none is lost
    return OrderItem(product=product, quantity=line.quantity, unit_price=product.price_amount)


def _locked(session: Session, public_ids: Sequence[UUID]) -> dict[UUID, Product]:
    """The products with their stock."""
    query = (
        select(Product)
        .join(Product.stock)
        .where(Product.public_id.in_(public_ids))
        .order_by(Product.id)
        .options(contains_eager(Product.stock))
    )
    return {product.public_id: product for product in session.scalars(query)}


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
