"""The back office, over HTTP: who may come in, and what can be done there."""

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Connection, Row, text

from shopfloor.databases import Database
from shopfloor.services.payments import start_payments
from shopfloor.services.providers import Plan, ProviderProcess
from tests.shop.helpers import make_app

CLERK, MANAGER = {"Authorization": "Bearer clerk's"}, {"Authorization": "Bearer manager's"}
WRONG = {"Authorization": "Bearer wrong"}
TOKENS = {"back_office_clerk_token": "clerk's", "back_office_manager_token": "manager's"}
UNKNOWN = "00000000-0000-4000-8000-000000000000"
CATEGORIES = "/v1/back-office/categories"


@pytest.fixture(scope="module")
def payments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderProcess]:
    with start_payments(log=tmp_path_factory.mktemp("payments") / "log") as provider:
        yield provider


@pytest.fixture
def office(database: Database, connection: Connection, payments: ProviderProcess) -> FlaskClient:
    settings = {"payments_url": payments.url, "read_timeout_seconds": 0.2, "back_office_wrong_tokens": 3}
    return make_app(database.url, connection, **TOKENS, **settings).test_client()


@pytest.fixture
def promised(connection: Connection) -> Row[tuple[object, ...]]:
    """A product of which some are promised to orders."""
    return connection.execute(
        text("SELECT public_id, reserved FROM products JOIN stock ON product_id = id WHERE reserved > 0 LIMIT 1")
    ).one()


def test_without_a_token_one_is_told_that_one_is_needed(office: FlaskClient) -> None:
    for headers in ({}, {"Authorization": "Basic Y2xlcms6eA=="}, WRONG):
        answer = office.get(f"{CATEGORIES}/lamps", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")


def test_tokens_that_nobody_set_open_nothing(client: FlaskClient) -> None:
    for token in ("", "None", "clerk's"):
        assert client.get(f"{CATEGORIES}/x", headers={"Authorization": f"Bearer {token}"}).status_code == 401


def test_whoever_guesses_tokens_has_to_wait(office: FlaskClient) -> None:
    for _ in range(3):
        assert office.get(f"{CATEGORIES}/x", headers=WRONG).status_code == 401
    answer = office.get(f"{CATEGORIES}/x", headers=CLERK)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    assert office.get(f"{CATEGORIES}/x", headers=CLERK, environ_base=elsewhere).status_code == 404


def test_to_show_no_token_is_no_guess(office: FlaskClient) -> None:
    for _ in range(5):
        assert office.get(f"{CATEGORIES}/x").status_code == 401


def test_a_category_comes_and_goes(office: FlaskClient) -> None:
    made = office.post(CATEGORIES, json={"name": "Garden & more"}, headers=MANAGER)
    assert (made.status_code, made.json) == (201, {"name": "Garden & more", "products": 0})
    address = made.headers["Location"]
    assert office.get(address, headers=CLERK).json == made.json
    assert office.post(CATEGORIES, json={"name": "Garden & more"}, headers=MANAGER).status_code == 409
    gone = office.delete(address, headers=MANAGER)
    assert (gone.status_code, gone.data) == (204, b"")
    assert office.delete(address, headers=MANAGER).status_code == 404


def test_categories_are_for_the_manager(office: FlaskClient) -> None:
    assert office.post(CATEGORIES, json={"name": "x"}, headers=CLERK).status_code == 403
    assert office.delete(f"{CATEGORIES}/x", headers=CLERK).status_code == 403


def test_a_category_with_products_stays(office: FlaskClient, connection: Connection) -> None:
    name, products = connection.execute(
        text("SELECT c.name, count(*) FROM categories c JOIN products p ON category_id = c.id GROUP BY c.name LIMIT 1")
    ).one()
    assert office.delete(f"{CATEGORIES}/{name}", headers=MANAGER).status_code == 409
    assert office.get(f"{CATEGORIES}/{name}", headers=CLERK).json == {"name": name, "products": products}


@pytest.mark.parametrize("name", ["", "a/b", "\x00", "x" * 101])
def test_a_name_that_cannot_be_is_refused(office: FlaskClient, name: str) -> None:
    assert office.post(CATEGORIES, json={"name": name}, headers=MANAGER).status_code == 422


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_name_that_cannot_be_is_not_found(office: FlaskClient, method: str) -> None:
    assert office.open(f"{CATEGORIES}/%00", method=method, headers=MANAGER).status_code == 404


def test_a_stock_level_is_replaced(office: FlaskClient, promised: Row[tuple[object, ...]]) -> None:
    address = f"/v1/back-office/products/{promised.public_id}/stock"
    for _ in range(2):
        answer = office.put(address, json={"on_hand": promised.reserved + 4}, headers=CLERK)
        assert (answer.status_code, answer.json["on_hand"]) == (200, promised.reserved + 4)
    assert office.put(address, json={"on_hand": promised.reserved - 1}, headers=CLERK).status_code == 409
    assert office.put(address, json={"on_hand": -1}, headers=CLERK).status_code == 422
    unknown = f"/v1/back-office/products/{UNKNOWN}/stock"
    assert office.put(unknown, json={"on_hand": 1}, headers=CLERK).status_code == 404
    assert office.get(f"/v1/products/{promised.public_id}").json["available"] in (0, 4)  # 0: it is withdrawn


def test_of_a_stocktake_each_count_stands_for_itself(
    office: FlaskClient, connection: Connection, promised: Row[tuple[object, ...]]
) -> None:
    counted = [(UNKNOWN, 1), (promised.public_id, 0), (promised.public_id, promised.reserved + 9)]
    counts = [{"product_id": str(product), "on_hand": on_hand} for product, on_hand in counted]
    answer = office.post("/v1/back-office/stocktakes", json={"counts": counts}, headers=CLERK)
    assert answer.status_code == 207
    assert [result["status"] for result in answer.json["data"]] == [404, 409, 200]
    assert [result["product_id"] for result in answer.json["data"]] == [count["product_id"] for count in counts]
    on_hand = "SELECT on_hand FROM stock JOIN products ON product_id = id WHERE public_id = :id"
    assert connection.scalar(text(on_hand), {"id": promised.public_id}) == promised.reserved + 9


@pytest.mark.parametrize(
    ("happens", "status"), [("ok", 200), ("error 500", 502), ("reset", 502), ("malformed", 502), ("hang", 504)]
)
def test_what_the_provider_tells_of_an_order_is_passed_on(
    office: FlaskClient, connection: Connection, payments: ProviderProcess, happens: str, status: int
) -> None:
    order = connection.scalar(text("SELECT public_id FROM orders LIMIT 1"))
    payments.plan = Plan(script=(happens,))
    answer = office.get(f"/v1/back-office/orders/{order}/charges", headers=CLERK)
    assert answer.status_code == status
    if status == 200:
        assert answer.json == {"data": []}


def test_charges_of_no_order_and_of_no_provider(
    office: FlaskClient, database: Database, connection: Connection
) -> None:
    order = connection.scalar(text("SELECT public_id FROM orders LIMIT 1"))
    assert office.get(f"/v1/back-office/orders/{UNKNOWN}/charges", headers=CLERK).status_code == 404
    alone = make_app(database.url, connection, **TOKENS).test_client()
    assert alone.get(f"/v1/back-office/orders/{order}/charges", headers=CLERK).status_code == 503


def test_the_tokens_are_not_printed(office: FlaskClient) -> None:
    assert "clerk's" not in repr(office.application.config["SETTINGS"])


def test_a_voucher_is_issued_once(office: FlaskClient) -> None:
    voucher = {
        "code": "SPRING-99",
        "amount": {"amount": 500, "currency": "EUR"},
        "starts_at": "2099-03-01T09:00:00+01:00",
        "ends_at": "2099-03-31T09:00:00+02:00",
    }
    issued = office.post("/v1/back-office/vouchers", json=voucher, headers=CLERK)
    assert issued.status_code == 201
    assert issued.json["amount"] == voucher["amount"]
    assert issued.json["starts_at"] == "2099-03-01T08:00:00Z"
    assert (issued.json["issued_by"], issued.json["percent"], issued.json["redeemed_at"]) == ("clerk", None, None)
    assert office.post("/v1/back-office/vouchers", json=voucher, headers=CLERK).status_code == 409
    assert office.post("/v1/back-office/vouchers", json=voucher).status_code == 401


def test_a_percentage_is_a_voucher_too(office: FlaskClient) -> None:
    times = {"starts_at": "2099-03-01T09:00:00Z", "ends_at": "2099-03-31T09:00:00Z"}
    voucher = {"code": "SPRING-98", "percent": 10, **times}
    issued = office.post("/v1/back-office/vouchers", json=voucher, headers=MANAGER)
    assert (issued.status_code, issued.json["percent"], issued.json["amount"]) == (201, 10, None)
    refused = office.post("/v1/back-office/vouchers", json={**voucher, "code": "?"}, headers=MANAGER)
    assert refused.status_code == 422
