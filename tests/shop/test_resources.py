"""Single things, the probes, and errors, over HTTP."""

import socket

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, text

from shopfloor.databases import Database
from tests.shop.helpers import make_app

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def test_an_order_is_what_the_list_shows_of_it(client: FlaskClient, either: str) -> None:
    (listed,) = client.get("/v1/orders?limit=1&offset=5").json["data"]
    assert client.get(f"/v1/orders/{listed['id']}").json == listed


def test_a_product_shows_what_can_be_had(client: FlaskClient, connection: Connection) -> None:
    row = connection.execute(
        text("""
            SELECT p.*, c.name AS category, on_hand - reserved AS available
            FROM products p JOIN stock ON product_id = id JOIN categories c ON c.id = category_id
            WHERE withdrawn_at IS NULL AND reserved > 0 LIMIT 1
        """)
    ).one()
    assert client.get(f"/v1/products/{row.public_id}").json == {
        "id": str(row.public_id),
        "sku": row.sku,
        "name": row.name,
        "category": row.category,
        "price": {"amount": row.price_amount, "currency": "EUR"},
        "attributes": row.attributes,
        "available": row.available,
        "withdrawn": False,
        "version": 1,
    }


def test_a_withdrawn_product_is_still_shown_and_cannot_be_had(client: FlaskClient, connection: Connection) -> None:
    key = connection.scalar(text("SELECT public_id FROM products WHERE withdrawn_at IS NOT NULL LIMIT 1"))
    product = client.get(f"/v1/products/{key}").json
    assert (product["withdrawn"], product["available"]) == (True, 0)


@pytest.mark.parametrize("address", [f"/v1/orders/{UNKNOWN}", f"/v1/products/{UNKNOWN}", "/v1/orders/7", "/v1/nothing"])
def test_what_is_not_there_is_not_found(client: FlaskClient, address: str, either: str) -> None:
    answer = client.get(address)
    assert (answer.status_code, answer.is_json) == (404, True)


def test_a_method_that_is_not_allowed_names_those_that_are(client: FlaskClient) -> None:
    answer = client.delete("/v1/orders")
    assert (answer.status_code, answer.is_json) == (405, True)
    assert {"GET", "POST"} <= set(answer.headers["Allow"].replace(" ", "").split(","))


def test_an_unexpected_error_is_logged(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    app.add_url_rule("/fault", view_func=lambda: 1 / 0)
    answer = app.test_client().get("/fault")
    assert (answer.status_code, answer.is_json) == (500, True)
    assert "ZeroDivisionError" in caplog.text


def test_a_live_process_says_so_without_the_database(client: FlaskClient, statements: list[str]) -> None:
    assert client.get("/livez").json == {"status": "ok"}
    assert statements == []


def test_ready_with_the_database_and_not_without_it(database: Database) -> None:
    app = make_app(database.url)
    assert app.test_client().get("/readyz").status_code == 200
    app.extensions["engine"].dispose()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    away = make_app(f"postgresql://nobody:secret@127.0.0.1:{port}/away").test_client()
    answer = away.get("/readyz")
    assert (answer.status_code, answer.json["database"]) == (503, "unreachable")
    assert "secret" not in answer.text
    assert away.get("/livez").status_code == 200


LAMP = {
    "sku": "LAMP-1",
    "name": "Desk lamp",
    "category": "Lighting",
    "price": {"amount": 4900, "currency": "EUR"},
    "attributes": {"colour": "green"},
}


def test_a_product_is_created_replaced_and_removed(client: FlaskClient, connection: Connection) -> None:
    created = client.post("/v1/products", json=LAMP)
    address = f"/v1/products/{created.json['id']}"
    shown = client.get(address).json
    assert {name: shown[name] for name in LAMP} == LAMP
    assert (shown["available"], shown["withdrawn"], shown["version"]) == (0, False, 1)
    assert client.put(address, json=LAMP | {"name": "Lamp", "attributes": {}}).status_code == 200
    assert client.patch(address, json={"price_amount": 1}).status_code == 200
    changed = client.get(address).json
    assert (changed["name"], changed["attributes"], changed["price"]["amount"], changed["version"]) == (
        "Lamp",
        {},
        1,
        3,
    )
    assert client.delete(address).status_code == 200
    assert client.get(address).status_code == 404


def test_a_second_product_of_a_sku_is_not_created(client: FlaskClient, connection: Connection) -> None:
    client.post("/v1/products", json=LAMP)
    client.post("/v1/products", json=LAMP | {"name": "Another"})
    assert connection.scalars(text("SELECT name FROM products WHERE sku = 'LAMP-1'")).all() == ["Desk lamp"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("category", "There is no such shelf"),
        ("sku", "lower case"),
        ("price", {"amount": -1, "currency": "EUR"}),
        ("price", {"amount": 1, "currency": "euros"}),
        ("attributes", {"colour": "a\x00b"}),
        ("attributes", {"colour": "\ud800"}),
        ("attributes", {"weight": float("nan")}),
        ("id", 7),
    ],
)
def test_what_is_no_product_is_refused(client: FlaskClient, name: str, value: object) -> None:
    refused = client.post("/v1/products", json=LAMP | {name: value})
    assert refused.status_code == 422
    assert refused.json["errors"][0]["field"].split(".")[0] == name
