"""Reading orders together with their customer, items and products, in two statements whatever the page's size."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, joinedload, load_only, raiseload, selectinload

from shop.models import Customer, Order, OrderItem, Product

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())

# [start:options]
WITH_ALL_IT_SHOWS = (
    load_only(Order.public_id, Order.status, Order.placed_at, Order.total_amount, Order.currency, raiseload=True),
    # One customer for each order: a join adds columns to the order's row and no rows, so LIMIT still counts orders.
    joinedload(Order.customer, innerjoin=True).load_only(Customer.public_id, Customer.name, raiseload=True),
    # Several items for each order: a join would repeat the order for each of them. A second statement fetches the items
    # of all orders of the page at once, and each item's one product is joined to it.
    selectinload(Order.items)
    .load_only(OrderItem.quantity, OrderItem.unit_price, raiseload=True)
    .joinedload(OrderItem.product, innerjoin=True)
    .load_only(Product.public_id, Product.sku, Product.name, raiseload=True),
    # Whatever is not named above raises an error when it is touched, where it would have sent a statement unseen.
    raiseload("*"),
)
# [end:options]


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
    # [start:page]
    query = select(Order).where(*where).order_by(*order_by).limit(limit).offset(offset).options(*WITH_ALL_IT_SHOWS)
    return list(session.scalars(query))
    # [end:page]


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    return session.scalar(select(Order).where(Order.public_id == public_id).options(*WITH_ALL_IT_SHOWS))
