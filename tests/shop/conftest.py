"""The shop for its tests: on a clone of the small seed data, each test in a transaction that is rolled back."""

from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Connection, event
from sqlalchemy.orm import Session

from shopfloor.databases import Database, clone
from shopfloor.services import Services
from tests.shop.helpers import make_app, solve_n_plus_one


@pytest.fixture(scope="session")
def database(services: Services) -> Iterator[Database]:
    """One for all tests of a worker; they leave it as it was."""
    with clone(services, "small") as database:
        yield database


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """In a transaction that is rolled back, however often a session on it commits."""
    with database.engine.connect() as connection, connection.begin() as transaction:
        connection.begin_nested()  # which makes a session on this connection keep to a savepoint of its own
        yield connection
        transaction.rollback()


@pytest.fixture
def session(connection: Connection) -> Iterator[Session]:
    with Session(connection) as session:
        yield session


@pytest.fixture
def app(database: Database, connection: Connection) -> Flask:
    return make_app(database.url, connection)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(params=["naive", "solved"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test runs twice: as the learner meets the shop, and with data/n_plus_one solved."""
    if request.param == "solved":
        solve_n_plus_one(monkeypatch)
    return request.param


@pytest.fixture
def statements(database: Database) -> Iterator[list[str]]:
    """Every statement that is sent to the worker's database while the test runs."""
    sent: list[str] = []

    def note(_connection: Connection, _cursor: object, statement: str, *_rest: object) -> None:
        sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(database.engine, "before_cursor_execute", note)
