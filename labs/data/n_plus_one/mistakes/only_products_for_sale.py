"""The items are joined with the products for sale, so those of a withdrawn product are missing from their orders.

The condition is right for the catalogue and wrong here. An order is a record of what was bought: it keeps its items
when the shop no longer sells them. With the condition in the query of items, old orders lose lines one by one as
products are withdrawn, and the lines no longer add up to the total beside them. In production it is found by the
bookkeeper, months later, in a document that has been sent.

Fetch each item's product by its key, whatever its state.

Read: "Where a join fails" in the chapter N+1 queries: what a join does not find, it drops without an error.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, joinedload, selectinload

from shop.models import Order, OrderItem, Product

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())

FOR_SALE = Product.withdrawn_at.is_(None)
WITH_ALL_IT_SHOWS = (
    joinedload(Order.customer),
    selectinload(Order.items.and_(OrderItem.product.has(FOR_SALE))).joinedload(OrderItem.product),
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
    return list(session.scalars(query.options(*WITH_ALL_IT_SHOWS)))


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    return session.scalar(select(Order).where(Order.public_id == public_id).options(*WITH_ALL_IT_SHOWS))
