"""The shop's tables, complete: given code, no lab changes it.

Money is an integer of minor units (cents) beside its currency. An internal key (`id`, bigint) never leaves the
service; what a URL names is the `public_id`. There are primary keys, unique constraints, foreign keys and checks, and
no other index: PostgreSQL makes none for a foreign key.
"""

from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID, uuid4

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

OrderStatus = Literal["pending", "paid", "shipped", "delivered", "cancelled"]
PaymentStatus = Literal["succeeded", "failed", "refunded", "pending"]
ProductAction = Literal["created", "replaced", "changed", "withdrawn", "restored"]


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class Base(DeclarativeBase):
    """What all tables share: how constraints are named and how Python's types are stored."""

    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "ck": "%(table_name)s_%(constraint_name)s_check",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        int: BigInteger,
        str: Text,
        datetime: DateTime(timezone=True),
        UUID: Uuid,
        dict[str, Any]: JSONB,
    }


class Customer(Base):
    """Someone who buys."""

    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    public_id: Mapped[UUID] = mapped_column(unique=True, default=uuid4)
    email: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    city: Mapped[str]
    marketing_consent: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    orders: Mapped[list["Order"]] = relationship(back_populates="customer")


class Category(Base):
    """A shelf of the shop."""

    __tablename__ = "categories"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)

    products: Mapped[list["Product"]] = relationship(back_populates="category")


class Product(Base):
    """Something for sale, or once for sale: a withdrawn product stays, because old orders name it."""

    __tablename__ = "products"
    __table_args__ = (
        CheckConstraint("price_amount >= 0", name="price_amount"),
        CheckConstraint("length(currency) = 3", name="currency"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    public_id: Mapped[UUID] = mapped_column(unique=True, default=uuid4)
    sku: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    category_id: Mapped[int] = mapped_column(ForeignKey("categories.id"))
    price_amount: Mapped[int]
    currency: Mapped[str]
    attributes: Mapped[dict[str, Any]]
    withdrawn_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(Integer, server_default="1")

    category: Mapped[Category] = relationship(back_populates="products")
    stock: Mapped["Stock"] = relationship(back_populates="product")


class Stock(Base):
    """How many of a product are in the warehouse, and how many of those are promised to orders not yet shipped."""

    __tablename__ = "stock"
    __table_args__ = (
        CheckConstraint("on_hand >= 0", name="on_hand"),
        CheckConstraint("reserved >= 0", name="reserved"),
    )

    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"), primary_key=True)
    on_hand: Mapped[int] = mapped_column(Integer)
    reserved: Mapped[int] = mapped_column(Integer, server_default="0")

    product: Mapped[Product] = relationship(back_populates="stock")


class Order(Base):
    """What a customer ordered at one moment. `total_amount` is the sum of its items, in minor units."""

    __tablename__ = "orders"
    __table_args__ = (
        CheckConstraint(_one_of("status", get_args(OrderStatus)), name="status"),
        CheckConstraint("total_amount >= 0", name="total_amount"),
        CheckConstraint("length(currency) = 3", name="currency"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    public_id: Mapped[UUID] = mapped_column(unique=True, default=uuid4)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    status: Mapped[OrderStatus] = mapped_column(Text, server_default="pending")
    placed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    total_amount: Mapped[int]
    currency: Mapped[str]

    customer: Mapped[Customer] = relationship(back_populates="orders")
    items: Mapped[list["OrderItem"]] = relationship(back_populates="order", order_by="OrderItem.id")
    payments: Mapped[list["Payment"]] = relationship(back_populates="order", order_by="Payment.id")


class OrderItem(Base):
    """A line of an order. `unit_price` is what the product cost when it was ordered, in minor units."""

    __tablename__ = "order_items"
    __table_args__ = (
        CheckConstraint("quantity > 0", name="quantity"),
        CheckConstraint("unit_price >= 0", name="unit_price"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))
    quantity: Mapped[int] = mapped_column(Integer)
    unit_price: Mapped[int]

    order: Mapped[Order] = relationship(back_populates="items")
    product: Mapped[Product] = relationship()


class Payment(Base):
    """Money that the outside provider took for an order, under the provider's own reference.

    One that is pending has no reference yet: whether the money was taken is not known, or the provider was not asked.
    It is asked again under the same `idempotency_key`, so that it takes the money once.
    """

    __tablename__ = "payments"
    __table_args__ = (
        CheckConstraint(_one_of("status", get_args(PaymentStatus)), name="status"),
        CheckConstraint("amount >= 0", name="amount"),
        CheckConstraint("length(currency) = 3", name="currency"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    provider_reference: Mapped[str | None]
    idempotency_key: Mapped[UUID | None]
    amount: Mapped[int]
    currency: Mapped[str]
    status: Mapped[PaymentStatus] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    order: Mapped[Order] = relationship(back_populates="payments")


class IdempotencyKey(Base):
    """A request that its client may send again, under the key that the client gave it.

    What was answered stands beside it once it is known: `status`, `content_type` and `body`, all three or none.
    `claimed_at` says since when somebody has been working on a request that is not answered yet; none: nobody is.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        CheckConstraint("num_nulls(status, content_type, body) IN (0, 3)", name="answer"),
        CheckConstraint("length(key) BETWEEN 1 AND 255", name="key"),
    )

    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    claimed_at: Mapped[datetime | None]
    status: Mapped[int | None] = mapped_column(Integer)
    content_type: Mapped[str | None]
    body: Mapped[str | None]


class ProductEvent(Base):
    """What was done to a product: one row for each of its versions, never changed. It begins empty."""

    __tablename__ = "product_events"
    __table_args__ = (
        UniqueConstraint("product_id", "version"),
        CheckConstraint(_one_of("action", get_args(ProductAction)), name="action"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))
    version: Mapped[int] = mapped_column(Integer)
    action: Mapped[ProductAction] = mapped_column(Text)
    sent: Mapped[dict[str, Any]]
    happened_at: Mapped[datetime] = mapped_column(server_default=func.now())

    product: Mapped[Product] = relationship()


class Voucher(Base):
    """Money off for whoever knows the code: either a share of the total, or an amount.

    Attributes:
        email: the one customer it is for; none: anyone.
        issued_by: the role that promised it, `clerk` or `manager`.
        redeemed_at: when it was used; none: it was not.
    """

    __tablename__ = "vouchers"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    public_id: Mapped[UUID] = mapped_column(unique=True, default=uuid4)
    code: Mapped[str] = mapped_column(unique=True)
    email: Mapped[str | None]
    percent: Mapped[int | None]
    amount: Mapped[int | None]
    currency: Mapped[str | None]
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    note: Mapped[str]
    issued_by: Mapped[str]
    issued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    redeemed_at: Mapped[datetime | None]
