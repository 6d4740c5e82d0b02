"""Relations are fetched that the page does not show.

The statements no longer grow, but some of them bring rows that no one will look at: payments, stock, categories. They
are searched, sent, decoded and made into objects, on every request, and thrown away. On a small database that costs a
millisecond. In production it is the table with the most rows or the widest columns that was included to be safe, and
when it gets an audit log or a document of some kilobytes, the orders page gets slower and nobody knows why.

Read `order_json`, and name what it touches: customer, items, products. A guard, `raiseload("*")`, tells when that
list has grown.

Read: "Limits" in the chapter N+1 queries: eager loading fetches what it was told, wanted or not.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, joinedload, selectinload

from shop.models import Order, OrderItem, Product

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())

TO_BE_SAFE = (
    joinedload(Order.customer),
    selectinload(Order.items)
    .joinedload(OrderItem.product)
    .options(
        joinedload(Product.category),
        joinedload(Product.stock),
    ),
    selectinload(Order.payments),
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
    return list(session.scalars(query.options(*TO_BE_SAFE)))


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    return session.scalar(select(Order).where(Order.public_id == public_id).options(*TO_BE_SAFE))
