"""What enters and leaves the shop, as models, where the code that reads and writes it has none: given code.

They say what the serialisers write and what the parsers take. Who describes the shop to others can use them:
`shop.api.openapi`.
"""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel

from shop.foundations.validation import Strict
from shop.models import OrderStatus, PaymentStatus

T = TypeVar("T")

Natural = Annotated[int, Field(ge=0)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Text = Annotated[str, Field(min_length=1)]
Word = Annotated[str, Field(min_length=1, max_length=200)]
MAY_BE_MISSING: Any = Field(default=None)  # and is never null


# --- What leaves ------------------------------------------------------------------------------------------------------


class MoneyAmount(BaseModel):
    """An amount of minor units, with its currency."""

    amount: Natural
    currency: Currency

    model_config = ConfigDict(json_schema_extra={"examples": [{"amount": 1999, "currency": "EUR"}]})


class SomeOfProduct(BaseModel):
    """A product as a list shows it: all of it, or what the parameter `fields` names."""

    id: UUID = MAY_BE_MISSING
    sku: Text = MAY_BE_MISSING
    name: Text = MAY_BE_MISSING
    price: MoneyAmount = MAY_BE_MISSING
    attributes: dict[str, JsonValue] = MAY_BE_MISSING


class ProductDetail(BaseModel):
    """A product as its own page shows it."""

    id: UUID
    sku: Text
    name: Text
    category: Text
    price: MoneyAmount
    attributes: dict[str, JsonValue]
    available: Natural
    withdrawn: bool
    version: Annotated[int, Field(ge=1)]


class Bestseller(BaseModel):
    """A product, and how many of it were sold."""

    id: UUID
    sku: Text
    name: Text
    sold: Natural


class OrderedProduct(BaseModel):
    """The product that a line of an order names."""

    id: UUID
    sku: Text
    name: Text


class Item(BaseModel):
    """A line of an order, at the price that it had then."""

    product: OrderedProduct
    quantity: Annotated[int, Field(ge=1)]
    unit_price: MoneyAmount


class Buyer(BaseModel):
    """Who ordered."""

    id: UUID
    name: Text


class Order(BaseModel):
    """An order with its customer and items."""

    id: UUID
    status: OrderStatus
    placed_at: datetime
    total: MoneyAmount
    customer: Buyer
    items: list[Item]


class SomeOfOrder(BaseModel):
    """An order as a list shows it: all of it, or what the parameter `fields` names."""

    id: UUID = MAY_BE_MISSING
    status: OrderStatus = MAY_BE_MISSING
    placed_at: datetime = MAY_BE_MISSING
    total: MoneyAmount = MAY_BE_MISSING
    customer: Buyer = MAY_BE_MISSING
    items: list[Item] = MAY_BE_MISSING


class Payment(BaseModel):
    """Money for an order. As long as it is pending the provider has given no reference."""

    reference: str | None
    status: PaymentStatus
    amount: MoneyAmount
    created_at: datetime


class Quote(BaseModel):
    """What a delivery costs, and how many days it takes."""

    speed: Literal["standard", "express"]
    price: MoneyAmount
    days: Natural


class Pickup(BaseModel):
    """The courier's number of a booking."""

    booking: Text


class Picture(BaseModel):
    """A picture that was kept, and where."""

    url: Text
    media_type: Text
    size: Natural


class CatalogueEntry(BaseModel):
    """A product as the catalogue has it."""

    sku: Text
    name: Text
    price: MoneyAmount


class Naming(BaseModel):
    """What a product is called."""

    sku: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]

    model_config = ConfigDict(extra="forbid")


class Category(BaseModel):
    """A shelf, and how many products are on it."""

    name: Text
    products: Natural


class Stock(BaseModel):
    """How many of a product are in the warehouse, and how many of those are promised."""

    on_hand: Natural
    reserved: Natural


class Counted(BaseModel):
    """What became of one count of a stocktake: its stock, or why not."""

    product_id: UUID
    status: Literal[200, 404, 409]
    stock: Stock = MAY_BE_MISSING
    detail: str = MAY_BE_MISSING


class Voucher(BaseModel):
    """Money off for whoever knows the code: a share of the total, or an amount."""

    id: UUID
    code: Text
    email: str | None
    percent: Annotated[int, Field(ge=1, le=100)] | None
    amount: MoneyAmount | None
    starts_at: datetime
    ends_at: datetime
    note: str
    issued_by: Literal["clerk", "manager"]
    redeemed_at: datetime | None


class UnderstoodPrice(BaseModel):
    """A price as the shop has set it."""

    sku: Text
    price: MoneyAmount


class UnderstoodPriceList(BaseModel):
    """How the shop has understood a partner's price list."""

    partner: Text
    reference: str | None
    issued_at: datetime
    prices: list[UnderstoodPrice]


class Charge(BaseModel):
    """What the payment provider holds, as it tells it."""

    id: str
    status: str
    amount: int
    currency: str
    reference: str


# --- Envelopes --------------------------------------------------------------------------------------------------------


class Many(BaseModel, Generic[T]):
    """Several, and nothing to say of them."""

    data: list[T]


class Total(BaseModel):
    """How many there are."""

    count: Natural


class Counts(BaseModel, Generic[T]):
    """All of them."""

    data: list[T]
    meta: Total


class PageMeta(BaseModel):
    """Which page of a list this is. `prev` and `next` are cursors; null: there is none."""

    limit: Annotated[int, Field(ge=1)]
    count: Natural
    offset: Natural = MAY_BE_MISSING
    prev: str | None
    next: str | None


class Page(BaseModel, Generic[T]):
    """A page of a list."""

    data: list[T]
    meta: PageMeta


class Period(BaseModel):
    """How far back was looked, and how many were wanted."""

    days: Annotated[int, Field(ge=1)]
    limit: Annotated[int, Field(ge=1)]
    count: Natural


class Bestsellers(BaseModel):
    """What sold best."""

    data: list[Bestseller]
    meta: Period


# --- Errors -----------------------------------------------------------------------------------------------------------


class FieldError(BaseModel):
    """A field of a request, and what is wrong with it."""

    field: str
    detail: str


class Problem(BaseModel):
    """Why not, as of RFC 9457."""

    type: Text
    title: Text
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    instance: Text
    request_id: Text
    errors: list[FieldError] = MAY_BE_MISSING


# --- What enters, where it has no model elsewhere ---------------------------------------------------------------


class ExportQuery(Strict):
    """How many of the newest orders a partner fetches."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class Agreed(Strict):
    """What a customer has agreed to pay; nothing is said of it: the order's total."""

    amount: MoneyAmount = MAY_BE_MISSING


class Form(BaseModel):
    """A form with a picture in it."""

    picture: bytes


class NamingList(BaseModel):
    """A supplier's list of names."""

    data: list[Naming]


class ListedPrice(BaseModel):
    """What a partner wants for a product."""

    sku: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
    price: MoneyAmount


class PriceListVersion2(BaseModel):
    """A partner's price list."""

    version: Literal[2]
    partner: Word
    reference: Word | int | None = None
    issued_at: datetime
    prices: Annotated[list[ListedPrice], Field(max_length=1000)]


class FirstPrice(BaseModel):
    """What a partner of the first days wants for a product: 19.99, where the shop has 1999."""

    sku: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
    price: Annotated[float, Field(ge=0, le=10**9)]


class PriceListVersion1(BaseModel):
    """A price list as the first partners write it: there was only one version, and one currency for the whole list."""

    version: Literal[1] = MAY_BE_MISSING
    partner: Word
    reference: Word | int | None = None
    issued_at: datetime
    currency: str = "EUR"
    prices: Annotated[list[FirstPrice], Field(max_length=1000)]


class PriceList(RootModel[PriceListVersion2 | PriceListVersion1]):
    """A partner's price list, of either version."""
