"""The second version as the naive shop has it, and the solution's on the naive shop."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection

import shop
from shop.api import versioning
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
