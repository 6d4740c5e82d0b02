"""What is read often and changes seldom: a product's page, and what sells best. Each request computes it anew.

Valkey is at `redis_url` of `shop.settings`; the settings that begin with `cache_` say how long things may
take, and be kept.
"""

from datetime import timedelta
from typing import Any
from uuid import UUID

from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shop.models import Order, OrderItem, Product


def init_app(app: Flask) -> None:
    """The place to make the application's client of Valkey."""


def save_product(session: Session, product: Product) -> None:  # noqa: ARG001 - for whoever keeps it elsewhere, too
    """Commit what was changed about a product. Whoever reads it from then on reads it as it is."""
    session.commit()


def product_detail(session: Session, public_id: UUID) -> dict[str, Any] | None:
    """A product as its page shows it, ready for JSON; none if no product has this public id."""
    product = session.scalar(select(Product).where(Product.public_id == public_id))
    if product is None:
        return None
    return {
        "id": str(product.public_id),
        "sku": product.sku,
        "name": product.name,
        "category": product.category.name,
        "price": {"amount": product.price_amount, "currency": product.currency},
        "attributes": product.attributes,
        "available": 0 if product.withdrawn_at else max(product.stock.on_hand - product.stock.reserved, 0),
        "withdrawn": product.withdrawn_at is not None,
        "version": product.version,
    }


def bestsellers(session: Session, days: int, limit: int) -> list[dict[str, Any]]:
    """The products of which most were sold, best first, ready for JSON.

    Args:
        session: to read with.
        days: how far to look back from the latest order.
        limit: most products to give.
    """
    latest = select(func.max(Order.placed_at)).scalar_subquery()
    sold = func.sum(OrderItem.quantity).label("sold")
    query = (
        select(Product.public_id, Product.sku, Product.name, sold)
        .join(OrderItem, OrderItem.product_id == Product.id)
        .join(Order, OrderItem.order_id == Order.id)
        .where(Order.placed_at > latest - timedelta(days=days), Order.status != "cancelled")
        .where(Product.withdrawn_at.is_(None))
        .group_by(Product.id)
        .order_by(sold.desc(), Product.id)
        .limit(limit)
    )
    return [
        {"id": str(row.public_id), "sku": row.sku, "name": row.name, "sold": row.sold} for row in session.execute(query)
    ]
