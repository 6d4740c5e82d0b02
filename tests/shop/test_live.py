"""Watching an order: what is told, to how many, and that a place that was taken is given back."""

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Connection, text

from shop import create_app
from shop.settings import Settings
from shopfloor.databases import Database

UNKNOWN = "/v1/orders/00000000-0000-4000-8000-000000000000/events"


@pytest.fixture
def watching(database: Database) -> Iterator[FlaskClient]:
    """A shop with one place, that looks as often as it can."""
    app = create_app(Settings(database_url=database.url, order_watchers=1, order_watch_seconds=0.001))
    yield app.test_client()
    app.extensions["engine"].dispose()


def events(connection: Connection, status: str) -> str:
    query = text("SELECT public_id FROM orders WHERE status = :status ORDER BY id LIMIT 1")
    return f"/v1/orders/{connection.scalar(query, {'status': status})}/events"


def test_nobody_watches_unless_there_is_a_setting(client: FlaskClient, connection: Connection) -> None:
    assert client.get(events(connection, "cancelled")).status_code == 404


def test_an_order_that_has_come_to_its_end_has_one_thing_to_tell(watching: FlaskClient, connection: Connection) -> None:
    for _ in range(2):  # the place is given back
        with watching.get(events(connection, "cancelled")) as answer:
            assert answer.content_type.startswith("text/event-stream")
            assert answer.text == 'event: status\ndata: {"status": "cancelled"}\n\n'


def test_each_status_is_told_once_and_a_place_is_kept_until_the_end(
    watching: FlaskClient, connection: Connection
) -> None:
    address = events(connection, "pending")
    answer = watching.get(address, buffered=False)
    pieces = answer.iter_encoded()
    assert next(pieces) == b'event: status\ndata: {"status": "pending"}\n\n'
    assert next(pieces) == next(pieces) == b": nothing new\n\n"
    refused = watching.get(address)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    answer.close()
    watching.get(address, buffered=False).close()


def test_what_is_not_there_takes_no_place(watching: FlaskClient, connection: Connection) -> None:
    assert [watching.get(UNKNOWN).status_code for _ in range(3)] == [404] * 3
    assert watching.get(events(connection, "cancelled")).status_code == 200
