"""A model for each version: pydantic picks it by the version that the list names, and it makes the price list."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import msgpack
import orjson
import yaml
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictInt,
    StrictStr,
    Tag,
    TypeAdapter,
    ValidationError,
)
from werkzeug.exceptions import BadRequest, UnprocessableEntity, UnsupportedMediaType

from shop.models import Order, OrderItem, Payment, Product
from shop.price_list import DECIMAL_PLACES, HIGHEST_AMOUNT, Price, PriceList
from shop.reliability.timeouts_retries import Quote

Json = dict[str, Any]

JSON = "application/json"
JSON_LINES = "application/x-ndjson"
MESSAGEPACK = "application/vnd.msgpack"
YAML = "application/yaml"

WRITTEN = (JSON, JSON_LINES, MESSAGEPACK)
"""What orders can be had as; the first where the caller does not mind."""


def money(amount: int, currency: str) -> Json:
    """An amount of minor units, never without its currency."""
    return {"amount": amount, "currency": currency}


def moment(value: datetime) -> str:
    """A time as of RFC 3339, in UTC."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def product_json(product: Product) -> Json:
    """A product as a list shows it."""
    return {
        "id": str(product.public_id),
        "sku": product.sku,
        "name": product.name,
        "price": money(product.price_amount, product.currency),
        "attributes": product.attributes,
    }


def order_json(order: Order) -> Json:
    """An order with its customer and items."""
    return {
        "id": str(order.public_id),
        "status": order.status,
        "placed_at": moment(order.placed_at),
        "total": money(order.total_amount, order.currency),
        "customer": {"id": str(order.customer.public_id), "name": order.customer.name},
        "items": [_item_json(item, order.currency) for item in order.items],
    }


def _item_json(item: OrderItem, currency: str) -> Json:
    product = item.product
    return {
        "product": {"id": str(product.public_id), "sku": product.sku, "name": product.name},
        "quantity": item.quantity,
        "unit_price": money(item.unit_price, currency),
    }


def payment_json(payment: Payment) -> Json:
    """A payment, under the provider's reference."""
    return {
        "reference": payment.provider_reference,
        "status": payment.status,
        "amount": money(payment.amount, payment.currency),
        "created_at": moment(payment.created_at),
    }


def quote_json(quote: Quote) -> Json:
    """What a delivery costs, and how many days it takes."""
    return {"speed": quote.speed, "price": money(quote.amount, quote.currency), "days": quote.days}


def page_json(entries: list[Json], limit: int, offset: int) -> Json:
    """The envelope of a list."""
    return {"data": entries, "meta": {"limit": limit, "offset": offset, "count": len(entries)}}


def write_orders(orders: Sequence[Order], media_type: str) -> bytes:
    """Orders for a partner, each as its own page shows it.

    Args:
        orders: with their customers, items and products.
        media_type: one of `WRITTEN`.
    """
    entries = [order_json(order) for order in orders]
    if media_type == JSON_LINES:
        return b"".join(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE) for entry in entries)
    document = {"data": entries, "meta": {"count": len(entries)}}
    if media_type == MESSAGEPACK:
        for entry, order in zip(entries, orders, strict=True):
            entry["placed_at"] = order.placed_at  # MessagePack has a type for moments, where JSON needs words
        packed: bytes = msgpack.packb(document, datetime=True)
        return packed
    return orjson.dumps(document)


def _no_name_twice(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """An object, unless a name is in it twice: which of the two is meant, parsers do not agree on (RFC 8259, 4)."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _from_json(data: bytes) -> Any:
    return json.loads(data, parse_float=Decimal, parse_constant=_no_number, object_pairs_hook=_no_name_twice)


def _from_messagepack(data: bytes) -> Any:
    return msgpack.unpackb(data, timestamp=3, object_pairs_hook=_no_name_twice)


class _PlainYaml(yaml.SafeLoader):
    """YAML without tags that make objects, without names given twice, and with exact numbers."""

    def exact(self, node: yaml.ScalarNode) -> Decimal:
        return Decimal(self.construct_scalar(node))

    def mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        return _no_name_twice(
            [(self.construct_object(key), self.construct_object(value, deep=True)) for key, value in node.value]
        )


_PlainYaml.add_constructor("tag:yaml.org,2002:float", _PlainYaml.exact)
_PlainYaml.add_constructor("tag:yaml.org,2002:map", _PlainYaml.mapping)


def _from_yaml(data: bytes) -> Any:
    return yaml.load(data, Loader=_PlainYaml)  # noqa: S506 - it is a SafeLoader


PARSERS: dict[str, Callable[[bytes], Any]] = {JSON: _from_json, MESSAGEPACK: _from_messagepack, YAML: _from_yaml}

# What the parsers raise on bytes that are not what they should be: PyYAML also lets slip what its constructors stumble
# over, and nesting without end is no error of the value but of the stack.
UNREADABLE = (
    ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError,
    yaml.YAMLError, msgpack.UnpackException,
)  # fmt: skip


def _parsed(data: bytes, media_type: str) -> Any:
    """The document that bytes are, of dictionaries, lists, words, numbers, moments and nothing else.

    Raises:
        werkzeug.exceptions.UnsupportedMediaType: there is no parser for it.
        werkzeug.exceptions.BadRequest: they are not what they are said to be.
    """
    parse = PARSERS.get(media_type)
    if parse is None:
        raise UnsupportedMediaType(f"A price list is read as {', '.join(PARSERS)}.")
    try:
        return parse(data)
    except UNREADABLE as error:
        raise BadRequest(f"The body is not {media_type}, or it is ambiguous.") from error


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("it is out of range") from error


def _no_number_for_a_moment(value: Any) -> Any:
    if not isinstance(value, str | datetime):
        raise ValueError("it is neither words nor a moment")
    return value


def _text_of_digits(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _number(value: Any) -> Decimal:
    if type(value) not in {int, float, Decimal}:
        raise ValueError("it is not a number")
    return Decimal(str(value))


Word = Annotated[StrictStr, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Moment = Annotated[AwareDatetime, BeforeValidator(_no_number_for_a_moment), AfterValidator(_utc)]
Digits = Annotated[Word | None, BeforeValidator(_text_of_digits)]
Units = Annotated[Decimal, BeforeValidator(_number), Field(ge=0, le=HIGHEST_AMOUNT, allow_inf_nan=False)]


class OldPrice(BaseModel):
    """What one product costs in version 1."""

    sku: Word
    price: Units


class OldList(BaseModel):
    """Version 1: one currency for the whole list."""

    partner: Word
    reference: Digits = None
    issued_at: Moment
    currency: Word = "EUR"
    prices: list[OldPrice]

    def price_list(self) -> PriceList:
        """What it says."""
        places = DECIMAL_PLACES.get(self.currency)
        if places is None:
            raise UnprocessableEntity("The currency is not known.")
        prices = []
        for entry in self.prices:
            amount = int(entry.price.scaleb(places))
            if Decimal(amount) != entry.price.scaleb(places):
                raise UnprocessableEntity(f"{entry.sku}: {self.currency} has {places} decimal places.")
            prices.append(Price(entry.sku, amount, self.currency))
        return PriceList(self.partner, self.reference, self.issued_at, tuple(prices))


class NewMoney(BaseModel):
    """Minor units and their currency."""

    amount: Annotated[StrictInt, Field(ge=0, le=HIGHEST_AMOUNT)]
    currency: Word


class NewPrice(BaseModel):
    """What one product costs in version 2."""

    sku: Word
    price: NewMoney


class NewList(BaseModel):
    """Version 2."""

    partner: Word
    reference: Digits = None
    issued_at: Moment
    prices: list[NewPrice]

    def price_list(self) -> PriceList:
        """What it says."""
        prices = (Price(entry.sku, entry.price.amount, entry.price.currency) for entry in self.prices)
        return PriceList(self.partner, self.reference, self.issued_at, tuple(prices))


def _version(document: Any) -> str:
    return repr(document.get("version", 1)) if isinstance(document, dict) else "none"


AnyList = TypeAdapter[OldList | NewList](
    Annotated[Annotated[OldList, Tag("1")] | Annotated[NewList, Tag("2")], Discriminator(_version)],
    config=ConfigDict(hide_input_in_errors=True),
)


def read_price_list(data: bytes, media_type: str) -> PriceList:
    """A partner's price list."""
    document = _parsed(data, media_type)
    try:
        understood = AnyList.validate_python(document)
    except ValidationError as error:
        problems = ("/".join(map(str, each["loc"])) + f": {each['msg']}" for each in error.errors()[:10])
        raise UnprocessableEntity("; ".join(problems)) from error
    return understood.price_list()
