"""The marketplace's orders, the limit on what an order may cost, and what the warehouse is told."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Connection
from werkzeug import Response
from werkzeug.test import TestResponse

from shopfloor.databases import Database
from tests.shop.helpers import make_app
from tests.shop.test_ordering import UNKNOWN, customer, in_stock, order_of, provider

__all__ = ["customer"]  # a fixture
TOKEN = "the marketplace's"


@pytest.fixture
def partner(database: Database, connection: Connection) -> FlaskClient:
    return make_app(database.url, connection, marketplace_token=TOKEN, order_total_max=10**6).test_client()


def send(client: FlaskClient, *orders: dict[str, Any], token: str = TOKEN) -> TestResponse:
    headers = {"Authorization": f"Bearer {token}"}
    return client.post("/marketplace/orders", json={"orders": orders}, headers=headers)


def test_there_is_no_marketplace_unless_it_has_a_token(client: FlaskClient, customer: str) -> None:
    assert send(client, order_of(customer, (UNKNOWN, 1))).status_code == 404


@pytest.mark.parametrize("token", ["", "another"])
def test_it_shows_its_token(partner: FlaskClient, connection: Connection, customer: str, token: str) -> None:
    answer = send(partner, order_of(customer, (in_stock(connection).public_id, 1)), token=token)
    assert answer.status_code == 401


def test_each_order_is_placed_or_refused_by_itself(partner: FlaskClient, connection: Connection, customer: str) -> None:
    product = in_stock(connection).public_id
    refused, placed = send(partner, order_of(customer, (UNKNOWN, 1)), order_of(customer, (product, 1))).json["data"]
    assert (refused["status"], refused["detail"][0]["field"]) == (422, "items.0.product_id")
    assert placed["status"] == 201
    assert partner.get(f"/v1/orders/{placed['id']}").json["items"][0]["product"]["id"] == str(product)


def test_an_order_may_cost_so_much(database: Database, connection: Connection, customer: str) -> None:
    product = in_stock(connection)
    for most, status in ((product.price_amount, 201), (product.price_amount - 1, 422)):
        client = make_app(database.url, connection, order_total_max=most).test_client()
        assert client.post("/v1/orders", json=order_of(customer, (product.public_id, 1))).status_code == status


@pytest.mark.parametrize("status", [204, 500])
def test_the_warehouse_is_told_and_need_not_hear(
    database: Database, connection: Connection, customer: str, status: int
) -> None:
    product = in_stock(connection)
    with provider(Response(status=status)) as (url, sent):
        client = make_app(database.url, connection, warehouse_url=url).test_client()
        placed = client.post("/v1/orders", json=order_of(customer, (product.public_id, 1)))
    assert placed.status_code == 201
    assert [(request.path, request.json) for request in sent] == [("/orders", placed.json)]
