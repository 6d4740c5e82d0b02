"""The items are joined to their orders, so every order comes once for each of its items.

SQLAlchemy keeps LIMIT right by putting it into a subquery, and throws the copies away: the page is correct, and takes
one statement. But the database sends the whole order and its customer again with each item, and Python decodes them
again each time. An order with forty lines costs forty times its own columns; an order that has a second collection
joined to it one day costs the product of the two.

Join what an order has one of, its customer. Fetch what it has many of with a second statement for all orders of the
page (select-in).

Read: "Where a join fails" in the chapter N+1 queries, and "Many items for each order: select-in".
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, joinedload

from shop.models import Order, OrderItem

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())

EVERYTHING_IN_ONE_STATEMENT = (
    joinedload(Order.customer),
    joinedload(Order.items).joinedload(OrderItem.product),
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
    return list(session.scalars(query.options(*EVERYTHING_IN_ONE_STATEMENT)).unique())


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    query = select(Order).where(Order.public_id == public_id).options(*EVERYTHING_IN_ONE_STATEMENT)
    return session.scalars(query).unique().one_or_none()
