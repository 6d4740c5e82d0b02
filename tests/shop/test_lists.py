"""The lists of the shop, over HTTP."""

import itertools
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Connection, text

from tests.shop.helpers import solve_n_plus_one


def pages(client: FlaskClient, address: str, limit: int) -> list[dict[str, Any]]:
    """All entries, a page at a time."""
    entries: list[dict[str, Any]] = []
    for offset in itertools.count(0, limit):
        page = client.get(f"{address}{'&' if '?' in address else '?'}limit={limit}&offset={offset}").json
        assert page["meta"] == {"limit": limit, "offset": offset, "count": len(page["data"])}
        entries += page["data"]
        if len(page["data"]) < limit:
            return entries
    raise AssertionError("unreachable")


def test_all_orders_are_on_exactly_one_page_newest_first(
    client: FlaskClient, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve_n_plus_one(monkeypatch)  # for speed
    orders = pages(client, "/v1/orders", 100)
    expected = connection.scalars(text("SELECT public_id FROM orders ORDER BY placed_at DESC, id DESC")).all()
    assert [order["id"] for order in orders] == [str(key) for key in expected]


def test_an_order_shows_its_customer_and_items(client: FlaskClient, connection: Connection, either: str) -> None:
    order = client.get("/v1/orders?limit=1").json["data"][0]
    row = connection.execute(
        text("SELECT o.*, c.public_id AS buyer, c.name FROM orders o JOIN customers c ON c.id = customer_id"
             " ORDER BY placed_at DESC, o.id DESC LIMIT 1")
    ).one()  # fmt: skip
    items = connection.execute(
        text("SELECT p.public_id, p.sku, p.name, quantity, unit_price FROM order_items i"
             " JOIN products p ON p.id = product_id WHERE order_id = :key ORDER BY i.id"), {"key": row.id}
    )  # fmt: skip
    assert order == {
        "id": str(row.public_id),
        "status": row.status,
        "placed_at": f"{row.placed_at:%Y-%m-%dT%H:%M:%SZ}",
        "total": {"amount": row.total_amount, "currency": "EUR"},
        "customer": {"id": str(row.buyer), "name": row.name},
        "items": [
            {
                "product": {"id": str(item.public_id), "sku": item.sku, "name": item.name},
                "quantity": item.quantity,
                "unit_price": {"amount": item.unit_price, "currency": "EUR"},
            }
            for item in items
        ],
    }


def test_no_internal_key_leaves_the_shop(client: FlaskClient) -> None:
    def values(part: Any) -> list[Any]:
        if isinstance(part, dict):
            return [value for key, inner in part.items() for value in ([inner] if key == "id" else values(inner))]
        return [value for inner in part for value in values(inner)] if isinstance(part, list) else []

    found = [
        value for path in ("orders", "products", "bestsellers") for value in values(client.get(f"/v1/{path}").json)
    ]
    assert len(found) > 50
    assert all(isinstance(value, str) and len(value) == 36 for value in found)


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("status=pending", "status = 'pending'"),
        ("placed_after=2026-10-01T00:00:00Z", "placed_at >= '2026-10-01'"),
        ("placed_before=2024-01-01T00:00:00Z", "placed_at < '2024-01-01'"),
        (
            "placed_after=2026-03-01T01:00:00%2B01:00&placed_before=2026-04-01T00:00:00Z&status=delivered",
            "placed_at >= '2026-03-01' AND placed_at < '2026-04-01' AND status = 'delivered'",
        ),
    ],
)
def test_orders_are_filtered(client: FlaskClient, connection: Connection, query: str, condition: str) -> None:
    found = {order["id"] for order in pages(client, f"/v1/orders?{query}", 100)}
    expected = connection.scalars(text(f"SELECT public_id FROM orders WHERE {condition}")).all()
    assert found == {str(key) for key in expected}
    assert found


@pytest.mark.parametrize(
    ("sort", "order_by"),
    [
        ("placed_at", "placed_at, id"),
        ("-total_amount", "total_amount DESC, id DESC"),
        ("status,-total_amount", "status, total_amount DESC, id DESC"),
    ],
)
def test_orders_are_sorted(client: FlaskClient, connection: Connection, sort: str, order_by: str) -> None:
    found = [order["id"] for order in client.get(f"/v1/orders?limit=100&sort={sort}").json["data"]]
    expected = connection.scalars(text(f"SELECT public_id FROM orders ORDER BY {order_by} LIMIT 100")).all()
    assert found == [str(key) for key in expected]


def test_a_customers_history_is_theirs_alone(client: FlaskClient, connection: Connection, either: str) -> None:
    customer = connection.execute(
        text("SELECT c.id, c.public_id FROM customers c JOIN orders o ON c.id = customer_id GROUP BY c.id LIMIT 1")
    ).one()
    expected = connection.scalars(
        text("SELECT public_id FROM orders WHERE customer_id = :key ORDER BY placed_at DESC, id DESC"),
        {"key": customer.id},
    ).all()
    history = pages(client, f"/v1/customers/{customer.public_id}/orders", 7)
    assert [order["id"] for order in history] == [str(key) for key in expected]
    assert pages(client, f"/v1/orders?customer={customer.public_id}", 7) == history
    paid = pages(client, f"/v1/customers/{customer.public_id}/orders?status=delivered", 50)
    assert paid == [order for order in history if order["status"] == "delivered"]


def test_an_unknown_customer_has_no_history(client: FlaskClient) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    assert client.get(f"/v1/customers/{unknown}/orders").status_code == 404
    assert client.get(f"/v1/orders?customer={unknown}").json["data"] == []


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("", "true"),
        ("category=Lighting", "category_id = (SELECT id FROM categories WHERE name = 'Lighting')"),
        ("colour=blue&material=oak", """attributes @> '{"colour": "blue", "material": "oak"}'"""),
        ("tag=gift", """attributes -> 'tags' ? 'gift'"""),
        ("size=XL", "attributes ->> 'size' = 'XL'"),
        ("category=Nothing", "false"),
    ],
)
def test_products_are_filtered(client: FlaskClient, connection: Connection, query: str, condition: str) -> None:
    found = [product["id"] for product in pages(client, f"/v1/products?{query}", 100)]
    expected = connection.scalars(
        text(f"SELECT public_id FROM products WHERE withdrawn_at IS NULL AND {condition} ORDER BY name, id")
    ).all()
    assert found == [str(key) for key in expected]


def test_products_are_sorted_by_price(client: FlaskClient) -> None:
    prices = [product["price"]["amount"] for product in client.get("/v1/products?sort=-price&limit=50").json["data"]]
    assert prices == sorted(prices, reverse=True)


def test_the_page_size_follows_the_settings(client: FlaskClient) -> None:
    assert len(client.get("/v1/products").json["data"]) == 20
    assert client.get("/v1/products?limit=100").status_code == 200
    refused = client.get("/v1/products?limit=101")
    assert refused.status_code == 422
    assert refused.json["errors"] == [{"field": "limit", "detail": "A page has at most 100 entries."}]


@pytest.mark.parametrize(
    ("address", "field"),
    [
        ("/v1/orders?limit=0", "limit"),
        ("/v1/orders?limit=ten", "limit"),
        ("/v1/orders?offset=-1", "offset"),
        ("/v1/orders?offset=99999999999999999999", "offset"),
        ("/v1/orders?status=lost", "status"),
        ("/v1/orders?staus=paid", "staus"),
        ("/v1/orders?customer=7", "customer"),
        ("/v1/orders?placed_after=yesterday", "placed_after"),
        ("/v1/orders?placed_after=2026-10-01T00:00:00", "placed_after"),
        ("/v1/orders?sort=password", "sort"),
        ("/v1/orders?sort=", "sort"),
        ("/v1/orders?sort=--placed_at", "sort"),
        ("/v1/orders?limit=1&limit=2", "limit"),
        ("/v1/products?category=%00", "category"),
        ("/v1/products?colour=", "colour"),
        ("/v1/bestsellers?days=0", "days"),
    ],
)
def test_a_bad_parameter_is_named(client: FlaskClient, address: str, field: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == [field]


def test_all_bad_parameters_are_named_at_once(client: FlaskClient) -> None:
    errors = client.get("/v1/orders?limit=0&offset=-1&status=lost").json["errors"]
    assert {error["field"] for error in errors} == {"limit", "offset", "status"}


def test_bestsellers_are_those_of_which_most_were_sold(client: FlaskClient, connection: Connection) -> None:
    answer = client.get("/v1/bestsellers?days=90&limit=5").json
    assert answer["meta"] == {"days": 90, "limit": 5, "count": 5}
    expected = connection.execute(
        text("""
            SELECT p.public_id, p.sku, p.name, sum(quantity) AS sold
            FROM orders o JOIN order_items i ON order_id = o.id JOIN products p ON p.id = product_id
            WHERE placed_at > (SELECT max(placed_at) FROM orders) - interval '90 days'
              AND status <> 'cancelled' AND withdrawn_at IS NULL
            GROUP BY p.id ORDER BY sold DESC, p.id LIMIT 5
        """)
    )
    assert answer["data"] == [
        {"id": str(row.public_id), "sku": row.sku, "name": row.name, "sold": row.sold} for row in expected
    ]
