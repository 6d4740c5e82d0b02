"""What partners send and fetch by machine, over HTTP: as the learner meets it, and solved."""

import json
from typing import Any

import msgpack
import pytest
from flask.testing import FlaskClient
from sqlalchemy import Connection, text

from shop.foundations import serialization
from tests.shop.helpers import load_solution


@pytest.fixture(params=["naive", "solved"], autouse=True)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The tests run twice: with the naive file, and with the solution's."""
    if request.param == "solved":
        solution = load_solution("foundations/serialization")
        for name in ("WRITTEN", "write_orders", "read_price_list"):
            monkeypatch.setattr(serialization, name, getattr(solution, name))
    return request.param


@pytest.fixture
def skus(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT sku FROM products ORDER BY id LIMIT 2")))


def list_of(*prices: tuple[str, int], currency: str = "EUR") -> dict[str, Any]:
    entries = [{"sku": sku, "price": {"amount": amount, "currency": currency}} for sku, amount in prices]
    return {"version": 2, "partner": "Hill", "issued_at": "2026-03-01T09:00:00Z", "prices": entries}


def amounts(connection: Connection, skus: list[str]) -> list[int]:
    query = text("SELECT price_amount FROM products WHERE sku = ANY(:skus) ORDER BY id")
    return list(connection.scalars(query, {"skus": skus}))


def test_a_price_list_sets_prices_and_raises_versions(
    client: FlaskClient, connection: Connection, skus: list[str]
) -> None:
    answer = client.post("/v1/price-lists", json=list_of((skus[0], 5), (skus[1], 7)))
    assert answer.status_code == 200
    assert [entry["price"]["amount"] for entry in answer.json["prices"]] == [5, 7]
    assert answer.json["issued_at"] == "2026-03-01T09:00:00Z"
    assert amounts(connection, skus) == [5, 7]
    versions = connection.scalars(text("SELECT version FROM products WHERE sku = ANY(:skus)"), {"skus": skus})
    assert set(versions) == {2}


@pytest.mark.parametrize("wrong", ["unknown", "twice", "currency"])
def test_a_price_list_is_taken_whole_or_not_at_all(
    client: FlaskClient, connection: Connection, skus: list[str], wrong: str
) -> None:
    before = amounts(connection, skus)
    document = {
        "unknown": list_of((skus[0], 5), ("NO-SUCH", 7)),
        "twice": list_of((skus[0], 5), (skus[0], 7)),
        "currency": list_of((skus[0], 5), (skus[1], 7), currency="USD"),
    }[wrong]
    assert client.post("/v1/price-lists", json=document).status_code == 422
    assert amounts(connection, skus) == before


def test_a_format_that_nobody_reads_is_refused(client: FlaskClient) -> None:
    assert client.post("/v1/price-lists", data=b"<prices/>", content_type="application/xml").status_code == 415


def test_the_newest_orders_are_exported_in_two_statements(client: FlaskClient, statements: list[str]) -> None:
    exported = client.get("/v1/exports/orders?limit=50")
    assert exported.content_type == "application/json"
    assert exported.headers["Vary"] == "Accept"
    assert len([sent for sent in statements if sent.startswith("SELECT")]) == 2
    listed = client.get("/v1/orders?limit=50").json["data"]
    assert [order["id"] for order in exported.json["data"]] == [order["id"] for order in listed]
    assert exported.json["meta"] == {"count": 50}


@pytest.mark.parametrize("reader", ["solved"], indirect=True)
def test_solved_each_order_is_as_its_own_page_shows_it(client: FlaskClient) -> None:
    exported = client.get("/v1/exports/orders?limit=5").json["data"]
    assert exported == client.get("/v1/orders?limit=5").json["data"]


def test_orders_are_exported_in_the_format_that_is_preferred(client: FlaskClient) -> None:
    lines = client.get("/v1/exports/orders?limit=3", headers={"Accept": "application/x-ndjson, application/json;q=0.5"})
    assert lines.content_type.startswith("application/x-ndjson")
    assert len([json.loads(line) for line in lines.data.splitlines()]) == 3
    anything = client.get("/v1/exports/orders?limit=3", headers={"Accept": "*/*"})
    assert anything.content_type == "application/json"
    packed = client.get("/v1/exports/orders?limit=3", headers={"Accept": "application/vnd.msgpack"})
    assert len(msgpack.unpackb(packed.data)["data"]) == 3
    assert client.get("/v1/exports/orders", headers={"Accept": "text/csv"}).status_code == 406


@pytest.mark.parametrize("limit", ["0", "1001", "many"])
def test_an_export_has_a_limit(client: FlaskClient, limit: str) -> None:
    assert client.get(f"/v1/exports/orders?limit={limit}").status_code == 422
