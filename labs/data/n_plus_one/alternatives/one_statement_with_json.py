"""One statement: PostgreSQL puts each order's items together, and objects are made of the rows by hand.

The items are one column of their order's row, so nothing is repeated. The objects belong to no session, and can load
nothing later.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, UnaryExpression, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from shop.models import Customer, Order, OrderItem, Product

NEWEST_FIRST = (Order.placed_at.desc(), Order.id.desc())

ITEMS = (
    select(
        func.jsonb_agg(
            aggregate_order_by(
                func.jsonb_build_array(
                    Product.public_id, Product.sku, Product.name, OrderItem.quantity, OrderItem.unit_price
                ),
                OrderItem.id,
            )
        )
    )
    .select_from(OrderItem)
    .join(Product, Product.id == OrderItem.product_id)
    .where(OrderItem.order_id == Order.id)
    .correlate(Order)
    .scalar_subquery()
)
ORDERS = (
    select(
        Order.public_id,
        Order.status,
        Order.placed_at,
        Order.total_amount,
        Order.currency,
        Customer.public_id.label("customer_id"),
        Customer.name.label("customer_name"),
        ITEMS.label("lines"),
    )
    .select_from(Order)
    .join(Customer, Customer.id == Order.customer_id)
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
    page = select(Order.id).where(*where).order_by(*order_by).limit(limit).offset(offset).subquery()
    query = ORDERS.join(page, page.c.id == Order.id).order_by(*order_by)
    return [_order(row) for row in session.execute(query)]


def order_detail(session: Session, public_id: UUID) -> Order | None:
    """The order with this public id, for `shop.foundations.serialization.order_json`."""
    row = session.execute(ORDERS.where(Order.public_id == public_id)).one_or_none()
    return _order(row) if row else None


def _order(row: Row[Any]) -> Order:
    return Order(
        public_id=row.public_id,
        status=row.status,
        placed_at=row.placed_at,
        total_amount=row.total_amount,
        currency=row.currency,
        customer=Customer(public_id=row.customer_id, name=row.customer_name),
        items=[_item(*item) for item in row.lines or ()],
    )


def _item(product_id: str, sku: str, name: str, quantity: int, unit_price: int) -> OrderItem:
    product = Product(public_id=UUID(product_id), sku=sku, name=name)
    return OrderItem(product=product, quantity=quantity, unit_price=unit_price)
