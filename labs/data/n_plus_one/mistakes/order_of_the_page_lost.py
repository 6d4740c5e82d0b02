"""The keys of the page are in order, but the orders fetched by those keys are not.

`WHERE id IN (...)` says which rows, and nothing about their order. The database returns them as it finds them: today by
their place on disk, tomorrow, with another plan or after an update, in some other order. In production the page that
should begin with the newest order does not, customers see their history shuffled, and a test on a small table has
passed by luck.

Give the second statement the same ORDER BY, or put its rows in the order of the keys. A single statement with
LIMIT and options needs neither.

Read: "Many items for each order: select-in" in the chapter N+1 queries, and "The shop's solution".
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
    page = select(Order.id).where(*where).order_by(*order_by).limit(limit).offset(offset)
    query = select(Order).where(Order.id.in_(session.scalars(page).all()))
    return list(session.scalars(query.options(*WITH_ALL_IT_SHOWS)))


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    return session.scalar(select(Order).where(Order.public_id == public_id).options(*WITH_ALL_IT_SHOWS))
