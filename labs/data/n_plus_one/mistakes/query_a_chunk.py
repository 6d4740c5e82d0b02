"""The page is fetched in chunks, with statements for each chunk: fewer than before, and still more for a longer page.

N+1 has become N divided by the size of the chunk. The statements still wait for one another, so twice the page is
twice the wait, and each chunk looks up the same popular products again. Chunks are right where a list of keys
has no end, and then they are large: SQLAlchemy's own hold 500 keys. A page has an end, `limit`, and its keys fit into
one statement.

Ask once for all orders of the page.

Read: "Many items for each order: select-in" in the chapter N+1 queries, and "Where select-in fails".
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, joinedload, selectinload

from shop.models import Order, OrderItem

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())

CHUNK = 10  # long lists of parameters are slow
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
    query = select(Order).where(*where).order_by(*order_by).limit(limit).offset(offset)
    keys = list(session.scalars(query.with_only_columns(Order.id)))
    orders: list[Order] = []
    for start in range(0, len(keys), CHUNK):
        chunk = select(Order).where(Order.id.in_(keys[start : start + CHUNK])).order_by(*order_by)
        orders += session.scalars(chunk.options(*WITH_ALL_IT_SHOWS))
    return orders


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    return session.scalar(select(Order).where(Order.public_id == public_id).options(*WITH_ALL_IT_SHOWS))
