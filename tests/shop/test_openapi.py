"""What Schemathesis has found in the solved shop, and the contract of it."""

import pytest
from sqlalchemy import Connection, text

import shop
from shop.api import idempotency
from shopfloor.databases import Database
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
