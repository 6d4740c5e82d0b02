"""A join with the items, cut by LIMIT: the page is short.

LIMIT counts rows, and after the join a row is one item, no longer one order. The page is full when it has fifty items,
so it shows fewer orders, and the last of them may lack some of its items. OFFSET counts the same rows: the next page
begins in the middle of an order. There is no error. In production an order stands on two pages, on each with a part of
its items, and looks complete on both; somebody packs what one of them shows.

Let LIMIT count orders: limit a query of orders alone, and fetch the items with a statement of their own.

Read: "Where a join fails" in the chapter N+1 queries.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, contains_eager, joinedload

from shop.models import Order, OrderItem

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())

ITEMS_AND_PRODUCTS = contains_eager(Order.items).contains_eager(OrderItem.product)


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
    query = (
        select(Order)
        .outerjoin(Order.items)
        .outerjoin(OrderItem.product)
        .options(joinedload(Order.customer), ITEMS_AND_PRODUCTS)
        .where(*where)
        .order_by(*order_by, OrderItem.id)
        .limit(limit)
        .offset(offset)
    )
    return list(session.scalars(query).unique())


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    query = select(Order).outerjoin(Order.items).outerjoin(OrderItem.product)
    query = query.options(joinedload(Order.customer), ITEMS_AND_PRODUCTS).where(Order.public_id == public_id)
    return session.scalars(query.order_by(OrderItem.id)).unique().one_or_none()
