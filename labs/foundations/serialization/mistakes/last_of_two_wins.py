"""When a name is given twice, the last one counts, and nobody hears of it.

`json.loads` keeps the last, some parsers keep the first, some keep both, and RFC 8259 (section 4) calls the behaviour
unpredictable. A document that is checked by one and used by another is checked for one price and sold at the other.
That is a known way past gateways and signatures. And where nobody attacks, it is a program that has written a field
twice, with two values, of which one is wrong.

`object_pairs_hook` sees the pairs before they become a dictionary. MessagePack's unpacker has the same hook; PyYAML
keeps the last against its own specification, so that its constructor for maps has to look.

Read: "One meaning" in the chapter Serialization.
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import msgpack
import orjson
import yaml
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
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


# --- Writing ----------------------------------------------------------------------------------------------------------


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


# --- Reading: bytes become data ---------------------------------------------------------------------------------------


def _no_name_twice(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """An object, unless a name is in it twice: which of the two is meant, parsers do not agree on (RFC 8259, 4)."""
    return dict(pairs)


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


# --- Reading: data become a price list --------------------------------------------------------------------------------


def _moment(value: Any) -> Any:
    """Formats with a type for moments bring one, the others bring words; in UTC, where every moment has a place."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
        return found.astimezone(UTC) if isinstance(found, datetime) and found.tzinfo else found
    except (ValueError, OverflowError) as error:  # the year 1 has no hour before its first
        raise ValueError("it is no moment of RFC 3339") from error


def _as_text(value: Any) -> Any:
    """A partner's number is a name: no digit of it may change, and nobody counts with it."""
    return str(value) if type(value) is int else value


Word = Annotated[str, Field(min_length=1, max_length=200)]


class _Understood(BaseModel):
    """Data that are what they should be.

    Types are not converted: a guess is an error that nobody sees. Unknown fields are let pass: a partner who is ahead
    of the shop sends some.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class _Money(_Understood):
    amount: Annotated[int, Field(ge=0, le=HIGHEST_AMOUNT)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class _Price(_Understood):
    sku: Annotated[Word, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]
    price: _Money


class _PriceList(_Understood):
    partner: Word
    reference: Annotated[Word | None, BeforeValidator(_as_text)] = None
    issued_at: Annotated[AwareDatetime, BeforeValidator(_moment)]
    prices: Annotated[list[_Price], Field(max_length=1000)]


def _from_version_1(document: Json) -> Json:
    """Version 1 has decimal prices, and one currency for the whole list, which may be left out."""
    currency = document.get("currency", "EUR")
    prices = document["prices"]
    return {**document, "prices": [{**entry, "price": _in_minor_units(entry["price"], currency)} for entry in prices]}


def _in_minor_units(price: Any, currency: str) -> Json:
    if type(price) not in (int, float, Decimal):
        raise TypeError("a price is not a number")
    exact = Decimal(str(price))  # of a float what was written, not the binary fraction that it became
    if not 0 <= exact <= HIGHEST_AMOUNT:  # before it is multiplied: 1e999999999 is a number, too
        raise ValueError("a price is out of range")
    amount = exact.scaleb(DECIMAL_PLACES[currency])
    if amount != amount.to_integral_value():
        raise ValueError("a price has more decimal places than its currency")
    return {"amount": int(amount), "currency": currency}


STEPS: dict[int, Callable[[Json], Json]] = {1: _from_version_1}
"""From each version that partners still write to the next one."""

CURRENT = 2


def read_price_list(data: bytes, media_type: str) -> PriceList:
    """A partner's price list.

    Args:
        data: the body of the request.
        media_type: what the request says it is.

    Raises:
        werkzeug.exceptions.UnsupportedMediaType: the shop does not read that.
        werkzeug.exceptions.BadRequest: the body is not what it is said to be.
        werkzeug.exceptions.UnprocessableEntity: it is, and is no price list, or one of a version that is not known.
    """
    document = _parsed(data, media_type)
    if not isinstance(document, dict):
        raise UnprocessableEntity("A price list is an object.")
    version = document.get("version", 1)  # the first partners wrote when there was only one
    if type(version) is not int or not 1 <= version <= CURRENT:
        raise UnprocessableEntity(f"Price lists are read up to version {CURRENT}.")
    try:
        for old in range(version, CURRENT):
            document = STEPS[old](document)
        understood = _PriceList.model_validate(document)
    except ValidationError as error:
        raise UnprocessableEntity("; ".join(_problem(detail) for detail in error.errors()[:10])) from error
    except (ValueError, ArithmeticError, LookupError, TypeError) as error:
        raise UnprocessableEntity(f"It is no price list of version {version}.") from error
    return PriceList(
        partner=understood.partner,
        reference=understood.reference,
        issued_at=understood.issued_at,
        prices=tuple(Price(each.sku, each.price.amount, each.price.currency) for each in understood.prices),
    )


def _problem(detail: Any) -> str:
    """Where and what, without the value: it may be long, and it is not ours to repeat."""
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
