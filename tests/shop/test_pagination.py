"""`api/pagination`, solved: what those who count see as before, and what cursors add."""

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Connection

import shop
from shop.api import pagination
from shopfloor.databases import Database
from tests.shop.helpers import load_solution, make_app, solve_n_plus_one


@pytest.fixture
def solved(database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    solution = load_solution("api/pagination")
    monkeypatch.setattr(shop, "TOPICS", tuple(solution if topic is pagination else topic for topic in shop.TOPICS))
    solve_n_plus_one(monkeypatch)
    with make_app(database.url, connection, cursor_key="k" * 32).test_client() as client:
        yield client


@pytest.mark.parametrize(
    "address",
    [
        "/v1/orders?limit=7&offset=13",
        "/v1/orders?limit=3&offset=0&sort=status,-total_amount",
        "/v1/orders?limit=3&offset=1000000",
        "/v1/products?limit=5&offset=5&sort=-price&tag=gift",
        "/v1/products",
    ],
)
def test_who_counts_sees_what_the_naive_shop_shows(client: FlaskClient, solved: FlaskClient, address: str) -> None:
    naive, answer = client.get(address).json, solved.get(address).json
    assert answer["data"] == naive["data"]
    assert {name: answer["meta"][name] for name in naive["meta"]} == naive["meta"]
    assert answer["meta"].keys() - naive["meta"].keys() == {"prev", "next"}


def test_an_empty_page_leads_nowhere(solved: FlaskClient) -> None:
    meta = solved.get("/v1/orders?placed_before=2000-01-01T00:00:00Z").json["meta"]
    assert (meta["count"], meta["prev"], meta["next"]) == (0, None, None)


def test_without_a_key_cursors_hold_in_one_process_alone(
    database: Database, connection: Connection, solved: FlaskClient
) -> None:
    one, other = (make_app(database.url, connection).test_client() for _ in range(2))
    cursor = one.get("/v1/products?limit=2").json["meta"]["next"]
    address = f"/v1/products?limit=2&cursor={cursor}"
    assert [client.get(address).status_code for client in (one, other, solved)] == [200, 422, 422]


@pytest.mark.parametrize("place", ["cursor=x&offset=0", "cursor=", "fields=", "fields=id,,total", "sort=%2B"])
def test_a_page_that_makes_no_sense_is_refused(solved: FlaskClient, place: str) -> None:
    assert solved.get(f"/v1/orders?{place}").status_code == 422


@pytest.mark.parametrize("moment", ["2026", "0.5", "-1"])
def test_a_number_is_no_moment(solved: FlaskClient, moment: str) -> None:
    """To pydantic it is so many seconds after 1970: whoever means the year 2026 would be shown everything."""
    assert solved.get(f"/v1/orders?placed_after={moment}").status_code == 422
