"""Rows are kept in the memory of the process, and outlive the request that read them.

A dictionary at module level has no end: what is in it stays until the next deployment. Somebody corrects a name or a
price, and this process goes on showing the old one; another worker shows the new one, and a reload of the page flips
between the two. The dictionary also grows without bound, is shared by threads without a lock, and hides the N+1 rather
than curing it: after each restart the first pages ask for every row one by one, all at the same time.

A session's own memory ends with the request, and that is enough. Fetch the page in a few statements, and nothing needs
to be remembered.

Read: "Limits" in the chapter N+1 queries: caching is not the cure.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import Session, joinedload, selectinload
from sqlalchemy.orm.attributes import set_committed_value

from shop.models import Order, Product

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())

_products: dict[int, Product] = {}  # the catalogue hardly ever changes


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
    return _with_products(
        session, session.scalars(query.options(joinedload(Order.customer), selectinload(Order.items)))
    )


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    query = select(Order).where(Order.public_id == public_id)
    found = session.scalars(query.options(joinedload(Order.customer), selectinload(Order.items)))
    return next(iter(_with_products(session, found)), None)


def _with_products(session: Session, found: Iterable[Order]) -> list[Order]:
    orders = list(found)
    items = [item for order in orders for item in order.items]
    unknown = {item.product_id for item in items} - _products.keys()
    if unknown:
        found_products = session.scalars(select(Product).where(Product.id.in_(unknown)))
        _products.update((product.id, product) for product in found_products)
    for item in items:
        set_committed_value(item, "product", _products[item.product_id])
    return orders
