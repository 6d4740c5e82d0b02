"""Two collections are joined to the same order, so its rows are the product of the two.

Each item of an order is paired with each of its payments, and every pair is a row with all columns of the order, the
customer, the item, the product and the payment. Three items and one payment are three rows, and nobody notices. Forty
items and twenty attempts to pay are eight hundred, for one order. The result is right, because SQLAlchemy drops the
copies after they were sent and decoded. In production it is one customer's page, now and then, that takes seconds and
hundreds of megabytes.

Fetch each collection that is shown with a statement of its own (select-in), and none that is not shown: this page has
no payments on it.

Read: "Where a join fails" in the chapter N+1 queries.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, joinedload

from shop.models import Order, OrderItem

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())

WITH_ALL_RELATIONS = (
    joinedload(Order.customer),
    joinedload(Order.items).joinedload(OrderItem.product),
    joinedload(Order.payments),
)


def orders_page(
    session: Session,
    *,
    where: Sequence[ColumnElement[bool]] = (),
    order_by: Sequence[UnaryExpression[Any]] = NEWEST_FIRST,
    limit: int,
    offset: int = 0,
) -> list[Order]:
    """One page of orders, for `shop.foundations.serialization.order_json`.

    Args:
        session: to read with.
        where: conditions on `Order`, all of which hold.
        order_by: expressions that leave no two orders in the same place.
        limit: most orders on the page.
        offset: how many orders come before it.
    """
    query = select(Order).where(*where).order_by(*order_by).limit(limit).offset(offset)
    return list(session.scalars(query.options(*WITH_ALL_RELATIONS)).unique())


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    query = select(Order).where(Order.public_id == public_id).options(*WITH_ALL_RELATIONS)
    return session.scalars(query).unique().one_or_none()
