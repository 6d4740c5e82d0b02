"""Placing orders and paying for them, over HTTP."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, Row, text
from werkzeug import Request, Response
from werkzeug.serving import make_server

from shopfloor.databases import Database
from shopfloor.services.payments import start_payments
from tests.shop.helpers import make_app

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def customer(connection: Connection) -> str:
    return str(connection.scalar(text("SELECT public_id FROM customers WHERE id = 1")))


def in_stock(connection: Connection) -> Row[Any]:
    return connection.execute(
        text("SELECT p.*, on_hand, reserved FROM products p JOIN stock ON product_id = id"
             " WHERE withdrawn_at IS NULL AND on_hand > reserved + 5 ORDER BY id LIMIT 1")
    ).one()  # fmt: skip


def order_of(customer: str, *lines: tuple[object, int]) -> dict[str, Any]:
    return {
        "customer_id": customer,
        "items": [{"product_id": str(product), "quantity": quantity} for product, quantity in lines],
    }


def counts(connection: Connection) -> tuple[Any, ...]:
    return tuple(
        connection.execute(
            text("SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_items),"
                 " (SELECT count(*) FROM payments), (SELECT sum(reserved) FROM stock)")
        ).one()
    )  # fmt: skip


def test_an_order_is_placed_at_todays_price_and_its_stock_is_reserved(
    client: FlaskClient, connection: Connection, customer: str, either: str
) -> None:
    product = in_stock(connection)
    answer = client.post("/v1/orders", json=order_of(customer, (product.public_id, 3)))
    assert answer.status_code == 201
    assert answer.json["total"] == {"amount": 3 * product.price_amount, "currency": "EUR"}
    assert answer.json["status"] == "pending"
    assert answer.json["customer"]["id"] == customer
    assert [item["quantity"] for item in answer.json["items"]] == [3]
    assert answer.headers["Location"] == f"/v1/orders/{answer.json['id']}"
    assert client.get(answer.headers["Location"]).json == answer.json
    reserved = connection.scalar(text("SELECT reserved FROM stock WHERE product_id = :key"), {"key": product.id})
    assert reserved == product.reserved + 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"customer_id": UNKNOWN}, "customer_id"),
        ({"customer_id": 7}, "customer_id"),
        ({"items": []}, "items"),
        ({"items": [{"product_id": UNKNOWN, "quantity": 1}]}, "items.0.product_id"),
        ({"items": [{"product_id": UNKNOWN, "quantity": 0}]}, "items.0.quantity"),
        ({"items": [{"product_id": UNKNOWN}]}, "items.0.quantity"),
        ({"items": [{"product_id": UNKNOWN, "quantity": 1, "price": 1}]}, "items.0.price"),
        ({"items": [{"product_id": UNKNOWN, "quantity": 1}] * 2}, ""),
        ({"total": 1}, "total"),
    ],
)
def test_what_is_wrong_with_an_order_is_named(
    client: FlaskClient, connection: Connection, customer: str, change: dict[str, Any], field: str
) -> None:
    before = counts(connection)
    answer = client.post("/v1/orders", json=order_of(customer, (in_stock(connection).public_id, 1)) | change)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == [field]
    assert counts(connection) == before


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [("{", "application/json", 400), ("[1]", "application/json", 422), ("customer=1", "text/plain", 415)],
)
def test_a_body_that_is_no_order(client: FlaskClient, data: str, content_type: str, status: int) -> None:
    answer = client.post("/v1/orders", data=data, content_type=content_type)
    assert (answer.status_code, answer.is_json) == (status, True)


def test_more_than_there_is_cannot_be_ordered(client: FlaskClient, connection: Connection, customer: str) -> None:
    plenty = in_stock(connection)
    scarce = connection.execute(
        text("SELECT public_id, on_hand - reserved AS available FROM products JOIN stock ON product_id = id"
             " WHERE withdrawn_at IS NULL AND on_hand - reserved < 50 AND id <> :other LIMIT 1"), {"other": plenty.id}
    ).one()  # fmt: skip
    lines = (plenty.public_id, 1), (scarce.public_id, scarce.available + 1)
    answer = client.post("/v1/orders", json=order_of(customer, *lines))
    assert answer.status_code == 409
    assert f"{scarce.available} are available" in answer.text


def test_a_withdrawn_product_cannot_be_ordered(client: FlaskClient, connection: Connection, customer: str) -> None:
    withdrawn = connection.scalar(text("SELECT public_id FROM products WHERE withdrawn_at IS NOT NULL LIMIT 1"))
    assert client.post("/v1/orders", json=order_of(customer, (withdrawn, 1))).status_code == 409


def test_products_of_two_currencies_are_not_one_order(
    client: FlaskClient, connection: Connection, customer: str
) -> None:
    euros = in_stock(connection)
    connection.execute(text("UPDATE products SET currency = 'CHF' WHERE id = :key"), {"key": euros.id})
    lines = (euros.public_id, 1), (in_stock_besides(connection, euros.id), 1)
    answer = client.post("/v1/orders", json=order_of(customer, *lines))
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json["errors"]] == ["items"]


def in_stock_besides(connection: Connection, key: int) -> object:
    return connection.scalar(
        text("SELECT public_id FROM products JOIN stock ON product_id = id"
             " WHERE withdrawn_at IS NULL AND on_hand > reserved AND id <> :key ORDER BY id LIMIT 1"), {"key": key}
    )  # fmt: skip


@contextmanager
def provider(*answers: Response) -> Iterator[tuple[str, list[Request]]]:
    """An HTTP server that gives these answers one after another."""
    received: list[Request] = []
    waiting = iter(answers)

    @Request.application
    def answer(request: Request) -> Response:
        request.get_data()
        received.append(request)
        return next(waiting)

    server = make_server("127.0.0.1", 0, answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def pending_order(connection: Connection) -> str:
    return str(
        connection.scalar(text("SELECT public_id FROM orders WHERE status = 'pending' AND total_amount > 0 LIMIT 1"))
    )


def state_of(connection: Connection, order: str) -> tuple[Any, ...]:
    return tuple(
        connection.execute(
            text("SELECT status, (SELECT count(*) FROM payments WHERE order_id = orders.id)"
                 " FROM orders WHERE public_id = :key"), {"key": order}
        ).one()
    )  # fmt: skip


def test_an_order_is_placed_and_then_paid_once(
    database: Database, connection: Connection, customer: str, tmp_path: Path
) -> None:
    with start_payments(log=tmp_path / "payments.log") as payments:
        client = make_app(database.url, connection, payments_url=payments.url).test_client()
        placed = client.post("/v1/orders", json=order_of(customer, (in_stock(connection).public_id, 2))).json
        paid = client.post(f"/v1/orders/{placed['id']}/payments")
        again = client.post(f"/v1/orders/{placed['id']}/payments")
        stats = httpx2.get(f"{payments.url}/stats").json()
    assert paid.status_code == 201
    assert paid.json["created_at"].endswith("Z")
    assert paid.json["reference"].startswith("ch_")
    assert (paid.json["status"], paid.json["amount"]) == ("succeeded", placed["total"])
    assert again.status_code == 409
    assert stats == {"requests": 1, "charges": 1}
    assert state_of(connection, placed["id"]) == ("paid", 1)


def test_the_provider_is_told_what_for(database: Database, connection: Connection) -> None:
    order = pending_order(connection)
    with provider(Response('{"id": "ch_1", "status": "succeeded"}', 201, mimetype="application/json")) as (url, sent):
        client = make_app(database.url, connection, payments_url=url).test_client()
        total = client.get(f"/v1/orders/{order}").json["total"]
        assert client.post(f"/v1/orders/{order}/payments").json["reference"] == "ch_1"
    assert [(request.method, request.path) for request in sent] == [("POST", "/charges")]
    assert sent[0].json == total | {"reference": order}


def test_a_payment_says_what_was_agreed(database: Database, connection: Connection) -> None:
    order = pending_order(connection)
    with provider(Response('{"id": "ch_1", "status": "succeeded"}', 201, mimetype="application/json")) as (url, sent):
        client = make_app(database.url, connection, payments_url=url).test_client()
        total = client.get(f"/v1/orders/{order}").json["total"]
        other = client.post(f"/v1/orders/{order}/payments", json={"amount": total | {"amount": total["amount"] - 1}})
        assert (other.status_code, sent) == (422, [])
        assert client.post(f"/v1/orders/{order}/payments", json={"amount": total}).status_code == 201


def test_an_order_that_costs_nothing_cannot_be_paid(client: FlaskClient, connection: Connection) -> None:
    order = pending_order(connection)
    connection.execute(text("UPDATE orders SET total_amount = 0 WHERE public_id = :key"), {"key": order})
    assert client.post(f"/v1/orders/{order}/payments").status_code == 409


@pytest.mark.parametrize(
    "failure",
    [Response("", 500), Response("rubbish", 201), Response("{}", 201, mimetype="application/json")],
    ids=["error", "not JSON", "no reference"],
)
def test_a_provider_that_fails_leaves_the_order_to_be_paid(
    database: Database, connection: Connection, failure: Response
) -> None:
    order = pending_order(connection)
    with provider(failure) as (url, _):
        answer = make_app(database.url, connection, payments_url=url).test_client().post(f"/v1/orders/{order}/payments")
    assert (answer.status_code, answer.is_json) == (502, True)
    assert state_of(connection, order) == ("pending", 0)


def test_a_provider_that_is_away_or_not_set_up_is_a_bad_gateway(
    app: Flask, database: Database, connection: Connection
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    away = make_app(database.url, connection, payments_url=f"http://127.0.0.1:{port}")
    order = pending_order(connection)
    for shop in (away, app):
        assert shop.test_client().post(f"/v1/orders/{order}/payments").status_code == 502
    assert state_of(connection, order) == ("pending", 0)


@pytest.mark.parametrize("status", ["paid", "shipped", "delivered", "cancelled"])
def test_only_a_pending_order_can_be_paid(client: FlaskClient, connection: Connection, status: str) -> None:
    order = connection.scalar(text("SELECT public_id FROM orders WHERE status = :status LIMIT 1"), {"status": status})
    answer = client.post(f"/v1/orders/{order}/payments")
    assert answer.status_code == 409
    assert status in answer.text


def test_an_unknown_order_cannot_be_paid(client: FlaskClient) -> None:
    assert client.post(f"/v1/orders/{UNKNOWN}/payments").status_code == 404
