"""More orders are read than the page shows, and Python cuts the page out of them.

The few statements are right, but the first has no LIMIT (or one that counts from the beginning of the list). Every
request then reads, sends and makes objects of orders that nobody will see, with their items. It is quick on a laptop
with two thousand orders. In production the page slows down with every order that the shop takes, and with some hundred
thousand of them a single request may need more memory than the process has, and takes the others down with it.

Give LIMIT and OFFSET to the database, on the query of orders, as the naive page did.

Read: "Limits" in the chapter N+1 queries: at ten times the page, memory is the limit.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, joinedload, selectinload

from shop.models import Order, OrderItem

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())

WITH_ALL_IT_SHOWS = (joinedload(Order.customer), selectinload(Order.items).joinedload(OrderItem.product))


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
    query = select(Order).where(*where).order_by(*order_by).options(*WITH_ALL_IT_SHOWS)
    return list(session.scalars(query))[offset : offset + limit]


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    return session.scalar(select(Order).where(Order.public_id == public_id).options(*WITH_ALL_IT_SHOWS))
