"""The document, naive and solved; what Schemathesis has found in the solved shop; and the naive shop, in use."""

import io
import re
from pathlib import Path

import pytest
from flask import Flask, request
from openapi_spec_validator import OpenAPIV31SpecValidator
from sqlalchemy import Connection, text

import shop
from shop import shapes
from shop.api import idempotency
from shopfloor.databases import Database, clone
from shopfloor.services import Services
from shopfloor.services.delivery import start_delivery
from shopfloor.services.payments import start_payments
from tests.shop.helpers import load_solution, make_app

PENDING = "SELECT public_id FROM orders WHERE status = 'pending' AND total_amount > 0 ORDER BY id LIMIT 1"


@pytest.mark.parametrize(
    ("body", "status"), [("[]", 422), ("{", 400), ('{"amout": {"amount": 1, "currency": "EUR"}}', 422), ("3", 422)]
)
def test_a_body_that_is_not_understood_takes_no_money(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch, body: str, status: int
) -> None:
    solution = load_solution("api/idempotency")
    monkeypatch.setattr(shop, "TOPICS", tuple(solution if topic is idempotency else topic for topic in shop.TOPICS))
    client = make_app(database.url, connection).test_client()
    address = f"/v1/orders/{connection.scalar(text(PENDING))}/payments"
    assert client.post(address, data=body, content_type="application/json").status_code == status


def test_both_documents_are_valid(app: Flask) -> None:
    by_hand = app.test_client().get("/v1/openapi.json").json
    made = load_solution("api/openapi").document(app)
    for document in (by_hand, made):
        assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_each_route_has_a_line_in_the_table(database: Database, connection: Connection) -> None:
    """Whoever adds a route is told here, and not by a partner, that the contract does not know it."""
    app = make_app(database.url, connection, order_watchers=1)
    solution = load_solution("api/openapi")
    routes = {
        f"{method} {solution.PLACEHOLDER.sub('*', rule.rule)}"
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/v1/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    described = {re.sub(r"{.*}", "*", name) for name in solution.OPERATIONS}
    assert {route for route in routes if not route.startswith("GET /v1/pictures")} <= described


def test_a_document_is_made_of_the_naive_shop_as_well(app: Flask) -> None:
    """No lab needs another one's answer, though the document is then ahead of its shop."""
    solution = load_solution("api/openapi")
    assert len(solution.document(app)["paths"]) == len(
        {rule.rule for rule in app.url_map.iter_rules() if "/v1/" in rule.rule}
    )


def test_what_leaves_is_of_the_shapes_that_are_given(app: Flask, connection: Connection) -> None:
    client = app.test_client()
    order, product = (
        connection.scalar(text(f"SELECT public_id FROM {table} ORDER BY id LIMIT 1"))
        for table in ("orders", "products")
    )
    shapes.Order.model_validate(client.get(f"/v1/orders/{order}").json)
    shapes.ProductDetail.model_validate(client.get(f"/v1/products/{product}").json)
    shapes.Bestsellers.model_validate(client.get("/v1/bestsellers").json)


MANAGER = {"Authorization": "Bearer manager"}
OFFICE = "/v1/back-office"


def test_the_naive_shop_is_fully_usable(services: Services, tmp_path: Path) -> None:
    """Each of its routes does what it is for."""
    with (
        clone(services, "small") as database,
        start_payments(log=tmp_path / "payments") as payments,
        start_delivery(log=tmp_path / "delivery") as delivery,
    ):
        app = make_app(
            database.url,
            payments_url=payments.url,
            delivery_url=delivery.url,
            uploads_folder=tmp_path / "uploads",
            back_office_manager_token="manager",
            marketplace_token="marketplace",
        )
        with database.engine.connect() as connection:
            customer = connection.scalar(text("SELECT public_id::text FROM customers LIMIT 1"))
        try:
            assert _use(app, customer) == _routes(app)
        finally:
            app.extensions["engine"].dispose()


def _routes(app: Flask) -> set[tuple[str, str]]:
    return {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        if rule.endpoint != "static"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def _use(app: Flask, customer: str) -> set[tuple[str, str]]:
    """Ask each route for what it does; returns those that did it."""
    client, used = app.test_client(), set()

    @app.after_request
    def note(response: object) -> object:
        if request.url_rule:
            used.add((request.method, request.url_rule.rule))
        return response

    def ask(method: str, address: str, status: int = 200, **more: object) -> dict[str, object]:
        answer = client.open(address, method=method, **more)
        assert answer.status_code == status, f"{method} {address}: {answer.status_code} {answer.text[:200]}"
        content = answer.get_json(silent=True) or {}
        answer.close()
        return content

    for address in ("/livez", "/readyz", "/metrics", "/slo/rules", "/v1/openapi.json", "/v1/products", "/v1/orders"):
        ask("GET", address)
    ask("POST", "/slo", json={"now": 2, "readings": [{"at": 1, "text": None}]})

    ask("POST", f"{OFFICE}/categories", 201, json={"name": "Lamps"}, headers=MANAGER)
    ask("GET", f"{OFFICE}/categories/Lamps", headers=MANAGER)
    new = {"sku": "LAMP-1", "name": "A lamp", "category": "Lamps", "price": {"amount": 1999, "currency": "EUR"}}
    lamp = ask("POST", "/v1/products", json=new)["id"]
    ask("PUT", f"/v1/products/{lamp}", json=new | {"name": "A light"})
    ask("PATCH", f"/v1/products/{lamp}", json={"price_amount": 2999})
    ask("PUT", f"{OFFICE}/products/{lamp}/stock", json={"on_hand": 9}, headers=MANAGER)
    counts = [{"product_id": lamp, "on_hand": 10}]
    ask("POST", f"{OFFICE}/stocktakes", 207, json={"counts": counts}, headers=MANAGER)
    picture = {"picture": (io.BytesIO(b"\x89PNG\r\n\x1a\n"), "lamp.png")}
    kept = ask("POST", f"/v1/products/{lamp}/pictures", 201, data=picture)
    for address in (f"/v1/products/{lamp}", str(kept["url"]), "/v1/bestsellers", "/v1/catalogue", "/v1/exports/orders"):
        ask("GET", address)
    ask("POST", "/v1/catalogue", json={"data": [{"sku": "LAMP-1", "name": "The light"}]})
    prices = {"partner": "P", "issued_at": "2026-11-01T00:00:00Z", "prices": [{"sku": "LAMP-1", "price": 24.99}]}
    ask("POST", "/v1/price-lists", json=prices)

    basket = {"customer_id": customer, "items": [{"product_id": lamp, "quantity": 2}]}
    order = ask("POST", "/v1/orders", 201, json=basket)["id"]
    ask("POST", f"/v1/orders/{order}/payments", 201)
    ask("POST", f"/v1/orders/{order}/pickup", 201)
    for address in (f"/v1/orders/{order}", f"/v1/orders/{order}/delivery-quotes", f"/v1/customers/{customer}/orders"):
        ask("GET", address)
    ask("GET", f"{OFFICE}/orders/{order}/charges", headers=MANAGER)
    again = ask("POST", "/v2/orders", 201, json={"customer_id": customer, "lines": basket["items"]})["id"]
    for address in ("/v2/orders", f"/v2/orders/{again}"):
        ask("GET", address)
    token = {"Authorization": "Bearer marketplace"}
    assert ask("POST", "/marketplace/orders", json={"orders": [basket]}, headers=token)["data"][0]["status"] == 201  # type: ignore[index]  # it is a list
    voucher = {"code": "SORRY-5", "percent": 5, "starts_at": "2027-01-01T00:00:00Z", "ends_at": "2027-02-01T00:00:00Z"}
    ask("POST", f"{OFFICE}/vouchers", 201, json=voucher, headers=MANAGER)

    ask("DELETE", f"/v1/products/{lamp}")
    ask("DELETE", f"{OFFICE}/categories/Lamps", 204, headers=MANAGER)
    return used
