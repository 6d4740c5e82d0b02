"""The shape is looked at by hand, without a library: a value knows where it stands, and says so when it is wrong.

Each version has a reader of its own, which makes the price list directly.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NoReturn

import msgpack
import yaml
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
    """Orders for a partner, each as its own page shows it."""
    entries = [order_json(order) for order in orders]
    if media_type == JSON_LINES:
        return "".join(_compact(entry) + "\n" for entry in entries).encode()
    document = {"data": entries, "meta": {"count": len(entries)}}
    if media_type == MESSAGEPACK:
        for entry, order in zip(entries, orders, strict=True):
            entry["placed_at"] = msgpack.Timestamp.from_datetime(order.placed_at)
        packed: bytes = msgpack.packb(document)
        return packed
    return _compact(document).encode()


def _compact(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


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


@dataclass(frozen=True)
class Value:
    """Something in a document, and where."""

    found: Any
    place: str = "the list"

    def refuse(self, why: str) -> NoReturn:
        """Say what is wrong with it."""
        raise UnprocessableEntity(f"{self.place} {why}.")

    def __getitem__(self, name: str) -> "Value":
        if not isinstance(self.found, dict):
            self.refuse("is not an object")
        return Value(self.found.get(name), f"{self.place}, {name}")

    def each(self) -> Iterator["Value"]:
        """Its entries."""
        if not isinstance(self.found, list):
            self.refuse("is not a list")
        for number, entry in enumerate(self.found, start=1):
            yield Value(entry, f"{self.place}, entry {number}")

    def word(self) -> str:
        """It as a word that could be stored."""
        if not isinstance(self.found, str) or not 0 < len(self.found) <= 200 or not self.found.isprintable():
            self.refuse("is not a word")
        return self.found

    def amount(self) -> int:
        """It as an amount of minor units."""
        if type(self.found) is not int or not 0 <= self.found <= HIGHEST_AMOUNT:
            self.refuse("is not an amount of minor units")
        return self.found

    def price(self, currency: str) -> int:
        """It as a decimal number of whole units, in minor units."""
        words = str(self.found) if type(self.found) in {int, float, Decimal} else ""
        places = DECIMAL_PLACES.get(currency, 0)
        match = re.fullmatch(r"(\d{1,9})(?:\.(\d*?)0*)?", words)
        if match is None or len(match[2] or "") > places:
            self.refuse(f"is not a price in {currency}")
        return int(match[1] + (match[2] or "").ljust(places, "0"))

    def moment(self) -> datetime:
        """It as a moment."""
        try:
            found = datetime.fromisoformat(self.found) if isinstance(self.found, str) else self.found
            if not isinstance(found, datetime) or found.tzinfo is None:
                self.refuse("is not a moment with an offset")
            return found.astimezone(UTC)
        except (ValueError, OverflowError):
            self.refuse("is not a moment")


def _version_1(document: Value) -> Iterator[Price]:
    currency = "EUR" if document["currency"].found is None else document["currency"].word()
    for entry in document["prices"].each():
        yield Price(entry["sku"].word(), entry["price"].price(currency), currency)


def _version_2(document: Value) -> Iterator[Price]:
    for entry in document["prices"].each():
        yield Price(entry["sku"].word(), entry["price"]["amount"].amount(), entry["price"]["currency"].word())


VERSIONS = {1: _version_1, 2: _version_2}


def read_price_list(data: bytes, media_type: str) -> PriceList:
    """A partner's price list."""
    document = Value(_parsed(data, media_type))
    version = document["version"]
    number = 1 if version.found is None else version.found
    if type(number) is not int or number not in VERSIONS:
        version.refuse(f"is none of {', '.join(map(str, VERSIONS))}")
    reference = document["reference"]
    if type(reference.found) is int:
        reference = Value(str(reference.found), reference.place)
    return PriceList(
        partner=document["partner"].word(),
        reference=None if reference.found is None else reference.word(),
        issued_at=document["issued_at"].moment(),
        prices=tuple(VERSIONS[number](document)),
    )
