"""The second version as the naive shop has it, and the solution's on the naive shop."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection

import shop
from shop.api import versioning
from shop.foundations import middleware
from shopfloor.databases import Database
from tests.shop.helpers import load_solution, make_app
from tests.shop.test_ordering import customer, in_stock

__all__ = ["customer"]  # a fixture
STATUS = {"pending": "awaiting_payment"}


@pytest.fixture(params=["naive", "solved"])
def second(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, database: Database, connection: Connection
) -> FlaskClient:
    if request.param == "solved":
        solution = load_solution("api/versioning")
        topics = [solution if topic is versioning else topic for topic in shop.TOPICS]
        monkeypatch.setattr(shop, "TOPICS", topics)
    return make_app(database.url, connection).test_client()


def test_a_list_and_a_page_show_the_same(second: FlaskClient) -> None:
    for order in second.get("/v2/orders?limit=3").json["data"]:
        assert second.get(f"/v2/orders/{order['id']}").json == order
        before = second.get(f"/v1/orders/{order['id']}").json
        assert order["customer_id"] == before["customer"]["id"]
        assert order["status"] == STATUS.get(before["status"], before["status"])
        assert [line["sku"] for line in order["lines"]] == [item["product"]["sku"] for item in before["items"]]
        assert order["total"] == before["total"]


def test_an_order_is_placed(second: FlaskClient, connection: Connection, customer: str) -> None:
    line = {"product_id": in_stock(connection).public_id, "quantity": 2}
    answer = second.post("/v2/orders", json={"customer_id": customer, "lines": [line]})
    assert answer.status_code == 201
    assert answer.json["status"] == "awaiting_payment"
    assert [each["quantity"] for each in second.get(f"/v1/orders/{answer.json['id']}").json["items"]] == [2]


def test_the_first_says_nothing_of_an_end(app: Flask) -> None:
    assert "Deprecation" not in app.test_client().get("/v1/orders?limit=1").headers


def test_what_describes_the_first_stays_there_and_has_no_successor(
    monkeypatch: pytest.MonkeyPatch, database: Database, connection: Connection
) -> None:
    solution = load_solution("api/versioning")
    monkeypatch.setattr(shop, "TOPICS", [solution if topic is versioning else topic for topic in shop.TOPICS])
    client = make_app(database.url, connection, v1_deprecated_at="2026-03-01T00:00:00Z").test_client()
    described = client.get("/v1/openapi.json")
    assert (described.status_code, described.headers["Deprecation"]) == (200, "@1772323200")
    assert "Link" not in described.headers
    assert client.get("/v2/openapi.json").status_code == 404


def test_what_is_not_to_be_packed_is_not_in_the_second_either(
    monkeypatch: pytest.MonkeyPatch, database: Database, connection: Connection
) -> None:
    solved = {versioning: load_solution("api/versioning"), middleware: load_solution("foundations/middleware")}
    monkeypatch.setattr(shop, "TOPICS", [solved.get(topic, topic) for topic in shop.TOPICS])
    client = make_app(database.url, connection, compress_from_bytes=0, back_office_clerk_token="clerks").test_client()
    shown = {"Authorization": "Bearer clerks", "Accept-Encoding": "gzip"}
    assert client.get("/v2/products?limit=1", headers=shown).headers["Content-Encoding"] == "gzip"
    for version in ("v1", "v2"):
        answer = client.get(f"/{version}/back-office/categories/Lighting", headers=shown)
        assert answer.status_code in {200, 404}
        assert "Content-Encoding" not in answer.headers
