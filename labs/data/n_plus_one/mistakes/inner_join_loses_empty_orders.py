"""An inner join with the items drops every order that has none.

An inner join keeps an order only where it finds something on the other side. An order whose items were all cancelled
has nothing there, and disappears from the list without an error; asked for by its id, it is "not found". In production
that is the order about which the customer is on the telephone. Totals and counts taken from such a list are wrong by
as much.

`innerjoin=True` belongs in the direction of a foreign key that is NOT NULL: from an order to its customer, from an item
to its product. From an order to its items use a statement of its own (select-in), or at least an outer join.

Read: "Where a join fails" in the chapter N+1 queries.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, joinedload

from shop.models import Order, OrderItem

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())

WITH_ALL_IT_SHOWS = (
    joinedload(Order.customer, innerjoin=True),
    joinedload(Order.items, innerjoin=True).joinedload(OrderItem.product, innerjoin=True),
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
    return list(session.scalars(query.options(*WITH_ALL_IT_SHOWS)).unique())


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    query = select(Order).where(Order.public_id == public_id).options(*WITH_ALL_IT_SHOWS)
    return session.scalars(query).unique().one_or_none()
