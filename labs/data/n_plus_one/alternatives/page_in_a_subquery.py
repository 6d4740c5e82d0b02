"""The page's keys in a subquery, with which everything else is joined.

The customer is joined by hand and told to the ORM (`contains_eager`). The items come with a query of their own that
joins the same subquery, so that no key travels back to the server.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, UnaryExpression, select
from sqlalchemy.orm import Session, contains_eager
from sqlalchemy.orm.attributes import set_committed_value

from shop.models import Order, OrderItem

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())


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
    return _read(session, page, order_by)


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    found = _read(session, select(Order.id).where(Order.public_id == public_id), NEWEST_FIRST)
    return found[0] if found else None


def _read(session: Session, keys: Select[tuple[int]], order_by: Sequence[UnaryExpression[Any]]) -> list[Order]:
    page = keys.subquery()
    query = select(Order).join(page, page.c.id == Order.id).join(Order.customer).order_by(*order_by)
    orders = list(session.scalars(query.options(contains_eager(Order.customer))))
    query_items = select(OrderItem).join(page, page.c.id == OrderItem.order_id).join(OrderItem.product)
    items = defaultdict(list)
    for item in session.scalars(query_items.order_by(OrderItem.id).options(contains_eager(OrderItem.product))):
        items[item.order_id].append(item)
    for order in orders:
        set_committed_value(order, "items", items[order.id])
    return orders
