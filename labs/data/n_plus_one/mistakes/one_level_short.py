"""Customers and items come with the page, but each item's product is still asked for by itself.

Eager loading goes as far as it was told. `selectinload(Order.items)` ends at the items, and `item.product`, one level
further down, is as lazy as before: one statement for each product on the page. It is the part that is easy to miss,
because a page with one order looks cured. In production it is most of what the naive page cost, since there are more
products on a page than orders.

Follow the serialiser down to the last attribute that it touches, and chain the options as deep. A guard, `raiseload`,
would have named the relation that is missing.

Read: "Many items for each order: select-in" in the chapter N+1 queries, and "A guard: raise instead of a query".
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, joinedload, selectinload

from shop.models import Order

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())

WITH_CUSTOMER_AND_ITEMS = (joinedload(Order.customer), selectinload(Order.items))


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
    return list(session.scalars(query.options(*WITH_CUSTOMER_AND_ITEMS)))


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    return session.scalar(select(Order).where(Order.public_id == public_id).options(*WITH_CUSTOMER_AND_ITEMS))
