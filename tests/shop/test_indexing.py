"""`data/indexing`, naive and solved: which queries the indexes serve, and what they may cost."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text

from shop import database as shop_database
from shop.data import indexing
from shopfloor.databases import Database, clone
from shopfloor.services import Services
from tests.shop.helpers import load_solution


@pytest.fixture(scope="module")
def medium(services: Services) -> Iterator[Database]:
    """With the solved indexes: on the small data the planner rightly reads whole tables."""
    with clone(services, "medium") as database:
        with pytest.MonkeyPatch.context() as patch, database.engine.begin() as connection:
            patch.setattr(indexing, "INDEXES", load_solution("data/indexing").INDEXES)
            shop_database.create_indexes(connection)
        yield database


def plan(connection: Connection, statement: str, **parameters: Any) -> tuple[set[str], set[str], int]:
    """The kinds of nodes, the indexes, and the blocks of a plan that has run."""
    result = connection.scalar(text(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}"), parameters)
    root = result[0]["Plan"]
    nodes = [root]
    for node in nodes:
        nodes += node.get("Plans", [])
    indexes = {node["Index Name"] for node in nodes if "Index Name" in node}
    return {node["Node Type"] for node in nodes}, indexes, root["Shared Hit Blocks"] + root["Shared Read Blocks"]


def test_the_naive_schema_has_no_index_but_those_of_its_constraints(connection: Connection) -> None:
    assert indexing.INDEXES == ()
    without_constraint = connection.scalar(
        text("SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
             " WHERE relnamespace = 'public'::regnamespace"
             " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)")
    )  # fmt: skip
    assert without_constraint == 0


def test_indexes_are_created_once(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shop_database.create_indexes(connection) == []
    monkeypatch.setattr(indexing, "INDEXES", load_solution("data/indexing").INDEXES)
    created = shop_database.create_indexes(connection)
    assert created == [
        "orders_customer_history_idx",
        "order_items_order_id_idx",
        "orders_pending_idx",
        "orders_placed_at_idx",
        "products_attributes_idx",
    ]
    assert shop_database.create_indexes(connection) == []
    monkeypatch.setattr(
        indexing,
        "INDEXES",
        (*indexing.INDEXES, "-- why\ncreate unique index if not exists extra on stock (product_id)"),
    )
    assert shop_database.create_indexes(connection) == ["extra"]


def test_what_is_no_index_is_refused(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "INDEXES", ("CREATE INDEX ON orders (status)",))
    with pytest.raises(ValueError, match="CREATE INDEX name ON"):
        shop_database.create_indexes(connection)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_customers_history_reads_no_more_than_its_page(medium: Database, place: str) -> None:
    with medium.engine.connect() as connection:
        customers = connection.scalars(text("SELECT customer_id FROM orders GROUP BY 1 ORDER BY count(*)")).all()
        customer = customers[{"first": 0, "middle": len(customers) // 2, "last": -1}[place]]
        _, indexes, blocks = plan(
            connection,
            "SELECT * FROM orders WHERE customer_id = :customer ORDER BY placed_at DESC, id DESC LIMIT 20",
            customer=customer,
        )
        assert indexes == {"orders_customer_history_idx"}
        assert blocks <= 30
        kinds, indexes, _ = plan(
            connection,
            "SELECT sum(total_amount) FROM orders WHERE customer_id = :customer AND status <> 'cancelled'",
            customer=customer,
        )
        assert indexes == {"orders_customer_history_idx"}
        assert "Index Only Scan" in kinds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("SELECT * FROM order_items WHERE order_id = 4711", "order_items_order_id_idx"),
        ("SELECT * FROM orders WHERE status = 'pending' ORDER BY placed_at, id LIMIT 50", "orders_pending_idx"),
        ("SELECT * FROM orders ORDER BY placed_at DESC, id DESC LIMIT 50", "orders_placed_at_idx"),
        (
            "SELECT sum(total_amount) FROM orders WHERE placed_at >= '2026-03-01' AND placed_at < '2026-04-01'",
            "orders_placed_at_idx",
        ),
        (
            """SELECT * FROM products WHERE attributes @> '{"colour": "pink", "tags": ["gift"]}'""",
            "products_attributes_idx",
        ),
    ],
)
def test_each_query_is_served_by_its_index(medium: Database, statement: str, index: str) -> None:
    with medium.engine.connect() as connection:
        kinds, indexes, _ = plan(connection, statement)
    assert indexes == {index}
    assert "Seq Scan" not in kinds


@pytest.mark.slow
def test_the_indexes_keep_within_their_budget(medium: Database) -> None:
    names = [statement.split()[2] for statement in load_solution("data/indexing").INDEXES]
    assert len(names) <= 5
    with medium.engine.connect() as connection:
        share = connection.scalar(
            text("SELECT sum(pg_relation_size(indexrelid)) FILTER (WHERE indexrelid::regclass::text = ANY(:names))"
                 " / (SELECT sum(pg_relation_size(relid)) FROM pg_stat_user_tables) FROM pg_stat_user_indexes"),
            {"names": names},
        )  # fmt: skip
    assert share < 0.5


@pytest.mark.slow
def test_no_index_is_the_beginning_of_another(medium: Database) -> None:
    with medium.engine.connect() as connection:
        rows = connection.execute(
            text("""
                SELECT indrelid, indexrelid::regclass::text AS name, indkey::text AS key,
                       pg_get_expr(indpred, indrelid) AS predicate
                FROM pg_index WHERE indrelid IN (SELECT relid FROM pg_stat_user_tables)
            """)
        ).all()
    redundant = [
        (one.name, other.name)
        for one in rows
        for other in rows
        if one is not other
        and one.indrelid == other.indrelid
        and one.predicate == other.predicate
        and f"{other.key} ".startswith(f"{one.key} ")
    ]
    assert redundant == []
