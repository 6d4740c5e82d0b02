"""`data/n_plus_one`, naive and solved: the same answers from a different number of statements."""

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Connection, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session

from shop.foundations.serialization import order_json
from tests.shop.helpers import load_solution, solve_n_plus_one


def test_the_naive_page_of_fifty_costs_more_than_a_hundred_statements(
    client: FlaskClient, statements: list[str]
) -> None:
    client.get("/v1/orders?limit=50")
    assert len([statement for statement in statements if "FROM order_items" in statement]) == 50
    assert len(statements) > 100


@pytest.mark.parametrize("limit", [1, 10, 50, 100])
def test_a_solved_page_costs_two_statements_whatever_its_size(
    client: FlaskClient, statements: list[str], monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    solve_n_plus_one(monkeypatch)
    assert len(client.get(f"/v1/orders?limit={limit}").json["data"]) == limit
    selects = [statement for statement in statements if statement.startswith("SELECT")]
    assert len(selects) == 2


@pytest.mark.slow
def test_both_give_the_same_bytes_on_every_page(
    client: FlaskClient, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = connection.scalar(text("SELECT count(*) FROM orders"))
    history = connection.scalar(
        text(
            "SELECT c.public_id FROM customers c JOIN orders ON customer_id = c.id"
            " GROUP BY c.id HAVING count(*) > 9 LIMIT 1"
        )
    )
    withdrawn = connection.scalar(
        text("SELECT o.public_id FROM orders o JOIN order_items ON order_id = o.id JOIN products p ON p.id = product_id"
             " WHERE withdrawn_at IS NOT NULL LIMIT 1")
    )  # fmt: skip
    empty = connection.scalar(
        text("SELECT public_id FROM orders o WHERE NOT EXISTS (SELECT FROM order_items WHERE order_id = o.id) LIMIT 1")
    )
    assert None not in (history, withdrawn, empty)
    addresses = [f"/v1/orders?limit=100&offset={offset}" for offset in range(0, total, 100)]
    addresses += ["/v1/orders?sort=status,-total_amount", f"/v1/customers/{history}/orders?limit=5&offset=2"]
    addresses += [f"/v1/orders/{withdrawn}", f"/v1/orders/{empty}"]
    naive = [client.get(address).data for address in addresses]
    solve_n_plus_one(monkeypatch)
    assert [client.get(address).data for address in addresses] == naive
    assert any(b'"items":[]' in page for page in naive)


def test_the_guard_refuses_what_the_page_did_not_ask_for(session: Session) -> None:
    solution = load_solution("data/n_plus_one")
    order = solution.orders_page(session, limit=1)[0]
    order_json(order)
    with pytest.raises(InvalidRequestError, match="lazy='raise'"):
        _ = order.payments
    with pytest.raises(InvalidRequestError, match="lazy='raise'"):
        _ = order.customer.orders
    with pytest.raises(InvalidRequestError, match="raiseload"):
        _ = order.customer.email


def test_the_limit_counts_orders_not_items(session: Session) -> None:
    solution = load_solution("data/n_plus_one")
    page = solution.orders_page(session, limit=30, offset=3)
    assert len(page) == 30
    assert len({order.public_id for order in page}) == 30
