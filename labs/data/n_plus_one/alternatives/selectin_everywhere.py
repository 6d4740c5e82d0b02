"""Select-in loading for every relation: four statements, and no join at all."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, selectinload

from shop.models import Order, OrderItem

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())

WITH_ALL_IT_SHOWS = (selectinload(Order.customer), selectinload(Order.items).selectinload(OrderItem.product))


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
