"""No parser converts anything: numbers stay the digits that were sent until it is known what they are for.

YAML is read with the loader that makes text of every scalar, so that none of its guesses (octal numbers, times of day,
the Norwegian `no`) can happen; JSON's numbers are kept as their digits.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any

import msgpack
import orjson
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


class Digits(str):
    """A number as it was written."""

    __slots__ = ()


def _pairs(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError("a name is given twice")
    return dict(pairs)


def _json(data: bytes) -> Any:
    return json.loads(data, parse_int=Digits, parse_float=Digits, parse_constant=Digits, object_pairs_hook=_pairs)


def _messagepack(data: bytes) -> Any:
    return msgpack.unpackb(data, timestamp=3, object_pairs_hook=_pairs)


class _Text(yaml.BaseLoader):
    """Every scalar is text, and could be a number."""


def _yaml_map(loader: yaml.BaseLoader, node: yaml.Node) -> dict[Any, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, "a tag that its value does not fit", node.start_mark)
    return _pairs([(loader.construct_object(key), loader.construct_object(value)) for key, value in node.value])


def _yaml_sequence(loader: yaml.BaseLoader, node: yaml.SequenceNode) -> list[Any]:
    return [loader.construct_object(entry) for entry in node.value]


_Text.add_constructor("tag:yaml.org,2002:map", _yaml_map)
_Text.add_constructor("tag:yaml.org,2002:seq", _yaml_sequence)
_Text.add_constructor("tag:yaml.org,2002:str", lambda _loader, node: Digits(node.value))


def _yaml(data: bytes) -> Any:
    return yaml.load(data, Loader=_Text)  # noqa: S506 - it makes nothing but text, lists and dictionaries


PARSERS: dict[str, Callable[[bytes], Any]] = {JSON: _json, MESSAGEPACK: _messagepack, YAML: _yaml}


def read_price_list(data: bytes, media_type: str) -> PriceList:
    """A partner's price list."""
    parse = PARSERS.get(media_type)
    if parse is None:
        raise UnsupportedMediaType
    try:
        document = parse(data)
    except Exception as error:
        raise BadRequest(f"That is not {media_type}.") from error
    try:
        return _price_list(document)
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
        raise UnprocessableEntity("That is not a price list.") from error


def _price_list(document: Json) -> PriceList:
    version = _whole(document.get("version", 1))
    if version == 1:
        currency = _text(document.get("currency", "EUR"))
        prices = [Price(_text(each["sku"]), _minor(each["price"], currency), currency) for each in document["prices"]]
    elif version == 2:
        prices = [
            Price(_text(each["sku"]), _whole(each["price"]["amount"]), _text(each["price"]["currency"]))
            for each in document["prices"]
        ]
    else:
        raise UnprocessableEntity("Price lists are read up to version 2.")
    reference = document.get("reference")
    return PriceList(
        partner=_text(document["partner"]),
        reference=reference if reference is None else str(reference),
        issued_at=_time(document["issued_at"]),
        prices=tuple(prices),
    )


def _text(value: Any) -> str:
    """Text, or what is text as long as nothing says otherwise: in YAML. A number of JSON's is none."""
    if not isinstance(value, str) or (isinstance(value, Digits) and value.isdigit() and value[0] != "0"):
        raise TypeError("not text")
    if not 0 < len(value) <= 200 or not value.isprintable():
        raise ValueError("not a word")
    return str(value)


def _digits(value: Any) -> str:
    if type(value) in {int, float, Digits}:
        return str(value)
    raise TypeError("not a number")


def _whole(value: Any) -> int:
    digits = _digits(value)
    if not re.fullmatch(r"[0-9]{1,10}", digits) or int(digits) > HIGHEST_AMOUNT:
        raise ValueError("not a whole number in range")
    return int(digits)


def _minor(value: Any, currency: str) -> int:
    with localcontext() as context:
        context.prec = 60
        exact = Decimal(_digits(value))
        if not 0 <= exact <= HIGHEST_AMOUNT:
            raise ValueError("out of range")
        minor = exact * 10 ** DECIMAL_PLACES[currency]
        if minor % 1:
            raise ValueError("more decimal places than the currency has")
        return int(minor)


def _time(value: Any) -> datetime:
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not found.tzinfo:
        raise ValueError("no offset")
    try:
        return datetime.fromtimestamp(0, UTC) + (found - datetime.fromtimestamp(0, UTC))
    except OverflowError as error:
        raise ValueError("out of range") from error
