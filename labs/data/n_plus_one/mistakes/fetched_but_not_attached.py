"""The items were fetched for the whole page at once, and then again for each order.

A session finds a row again by its primary key, as long as somebody holds it. A collection is different: that some items
of an order are in memory does not tell the session that they are all of them, so `order.items` asks the database.
Assigning to `order.items` asks as well, because the session first loads the list that it is to replace. In production
the page costs what it did before, with one large statement on top. And an assignment is a change: should the list be
incomplete, the next flush tries to take the missing items away from their order.

Let the query fill the collection (`selectinload`), or say of a list that you put together that it is what the database
holds: `set_committed_value(order, "items", items)`.

Read: "Many items for each order: select-in" in the chapter N+1 queries, and "Why".
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, joinedload

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
    query = select(Order).where(*where).order_by(*order_by).limit(limit).offset(offset)
    return _with_items(session, session.scalars(query.options(joinedload(Order.customer))))


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    query = select(Order).where(Order.public_id == public_id).options(joinedload(Order.customer))
    return next(iter(_with_items(session, session.scalars(query))), None)


def _with_items(session: Session, found: Iterable[Order]) -> list[Order]:
    orders = list(found)
    query = select(OrderItem).where(OrderItem.order_id.in_([order.id for order in orders])).order_by(OrderItem.id)
    items = defaultdict(list)
    for item in session.scalars(query.options(joinedload(OrderItem.product))):
        items[item.order_id].append(item)
    for order in orders:
        order.items = items[order.id]
    return orders
