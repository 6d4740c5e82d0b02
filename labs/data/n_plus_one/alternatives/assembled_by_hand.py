"""Two queries, and the items put into their orders by hand."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, joinedload
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
    query = select(Order).where(*where).order_by(*order_by).limit(limit).offset(offset)
    return _with_items(session, session.scalars(query.options(joinedload(Order.customer, innerjoin=True))))


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    query = select(Order).where(Order.public_id == public_id).options(joinedload(Order.customer, innerjoin=True))
    return next(iter(_with_items(session, session.scalars(query))), None)


def _with_items(session: Session, found: Iterable[Order]) -> list[Order]:
    orders = list(found)
    items = defaultdict(list)
    query = select(OrderItem).where(OrderItem.order_id.in_([order.id for order in orders])).order_by(OrderItem.id)
    for item in session.scalars(query.options(joinedload(OrderItem.product, innerjoin=True))):
        items[item.order_id].append(item)
    for order in orders:
        set_committed_value(order, "items", items[order.id])  # complete as it is: nothing to load, nothing to save
    return orders
