"""Statements read off the wire, explained as they were sent."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, create_engine, select, text

from shop.models import Order
from shopfloor.checks.replay import plan_again
from shopfloor.checks.wire import Parameter, Recorder, Statement, recording
from shopfloor.databases import Database, clone
from shopfloor.services import Services


@pytest.fixture(scope="module")
def small(services: Services) -> Iterator[Database]:
    with clone(services, "small") as database:
        yield database


@pytest.fixture
def recorder(small: Database) -> Iterator[Recorder]:
    with recording(small.url) as running:
        yield running


@pytest.fixture
def database(small: Database) -> Iterator[Connection]:
    engine = create_engine(small.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def sent(recorder: Recorder, statement: object, times: int = 1, **values: object) -> Statement:
    """What went over the wire the last time that the statement was sent."""
    engine = create_engine(recorder.url)
    with engine.connect() as connection:
        for _ in range(times):
            connection.execute(statement, values)  # type: ignore[call-overload]  # text or a select
    engine.dispose()
    return recorder.statements[-1]


@pytest.mark.parametrize("times", [1, 12])  # psycopg prepares what it has sent five times
def test_a_statement_is_explained_with_its_own_values(recorder: Recorder, database: Connection, times: int) -> None:
    query = select(Order.id).where(Order.placed_at > datetime(2026, 10, 1, tzinfo=UTC), Order.status.in_(["paid", "é"]))
    statement = sent(recorder, query, times)
    plan = plan_again(database, statement)
    assert statement.rows > 0
    assert plan is not None
    assert plan.rows == statement.rows
    assert plan.uses("Seq Scan")


def test_null_and_no_parameters(recorder: Recorder, database: Connection) -> None:
    nothing = plan_again(database, sent(recorder, text("SELECT 1 WHERE CAST(:value AS text) IS NULL"), value=None))
    assert nothing is not None
    assert nothing.rows == 1
    plain = plan_again(database, sent(recorder, text("SELECT generate_series(1, 3)")))
    assert plain is not None
    assert plain.rows == 3


def test_what_it_writes_is_undone(recorder: Recorder, database: Connection) -> None:
    statement = sent(recorder, text("UPDATE orders SET total_amount = total_amount + :more"), more=10**6)  # rolled back
    plan = plan_again(database, statement)
    assert plan is not None
    assert plan.wal_records > 0
    assert database.scalar(text("SELECT max(total_amount) < 1000000 FROM orders"))


def test_what_cannot_be_explained_has_no_plan(database: Connection) -> None:
    assert plan_again(database, Statement("LISTEN here")) is None
    assert plan_again(database, Statement("SELECT $1", parameters=None)) is None
    assert plan_again(database, Statement("SELECT $1::int", parameters=(Parameter(0, b"x", binary=False),))) is None
    assert database.scalar(text("SELECT 1")) == 1
