"""What leaves the shop and what enters it: as JSON to everyone, and in other formats to and from partners.

What leaves as JSON has public ids only, snake_case, money in minor units, and times in UTC as of RFC 3339.
"""

import json
import pickle
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgpack
import yaml
from werkzeug.exceptions import UnsupportedMediaType

from shop.models import Order, OrderItem, Payment, Product
from shop.price_list import Price, PriceList
from shop.reliability.timeouts_retries import Quote

Json = dict[str, Any]

JSON = "application/json"
JSON_LINES = "application/x-ndjson"
MESSAGEPACK = "application/vnd.msgpack"
YAML = "application/yaml"
PICKLE = "application/x-python-pickle"  # what the warehouse's own job sends at night

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
    """Orders for a partner.

    Args:
        orders: with their customers, items and products.
        media_type: one of `WRITTEN`.
    """
    entries = [_order_for_partners(order) for order in orders]
    if media_type == JSON_LINES:
        return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
    document = {"data": entries, "meta": {"count": len(entries)}}
    if media_type == MESSAGEPACK:
        packed: bytes = msgpack.packb(document)
        return packed
    return json.dumps(document, indent=2).encode()


def _order_for_partners(order: Order) -> Json:
    entry = order_json(order)
    entry["placed_at"] = order.placed_at.strftime("%Y-%m-%d %H:%M:%S")
    entry["total"] = _in_full(entry["total"])
    for item in entry["items"]:
        item["unit_price"] = _in_full(item["unit_price"])
    return entry


def _in_full(amount: Json) -> Json:
    """Money as people write it: 19.99, where the shop has 1999."""
    return {"amount": amount["amount"] / 100, "currency": amount["currency"]}


def read_price_list(data: bytes, media_type: str) -> PriceList:
    """A partner's price list.

    Args:
        data: the body of the request.
        media_type: what the request says it is.

    Raises:
        werkzeug.exceptions.UnsupportedMediaType: the shop does not read that.
    """
    document = _document(data, media_type)
    return PriceList(
        partner=document["partner"],
        reference=document.get("reference"),
        issued_at=_time(document["issued_at"]),
        prices=tuple(_price(entry, document) for entry in document["prices"]),
    )


def _document(data: bytes, media_type: str) -> Any:
    if media_type == JSON:
        return json.loads(data)
    if media_type == YAML:
        return yaml.load(data, Loader=yaml.Loader)  # noqa: S506 - naive
    if media_type == MESSAGEPACK:
        return msgpack.unpackb(data)
    if media_type == PICKLE:
        return pickle.loads(data)  # noqa: S301 - naive
    raise UnsupportedMediaType(f"A price list is not read as {media_type or 'nothing in particular'}.")


def _time(value: str) -> datetime:
    return datetime.fromisoformat(str(value)).replace(tzinfo=UTC)


def _price(entry: Json, document: Json) -> Price:
    price = entry["price"]
    if "version" not in document:  # the first partners write 19.99, and the currency once for the whole list
        return Price(entry["sku"], int(price * 100), document.get("currency", "EUR"))
    return Price(entry["sku"], int(price["amount"]), price["currency"])
