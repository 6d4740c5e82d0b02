"""The seed data: the same each time, whole, and skewed as a real shop's."""

import os
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, inspect, text

from shop.models import Base
from shop.seed import SIZES, SizeName
from shopfloor.databases import clone
from shopfloor.paths import material
from shopfloor.services import Services

TABLES = ("categories", "customers", "products", "stock", "orders", "order_items", "payments")
LOAD = "import sys; from shop import database, seed; seed.load(database.make_engine(sys.argv[1]), 'small')"


def one(connection: Connection, statement: str) -> Any:
    return connection.scalar(text(statement))


def counts(connection: Connection) -> dict[str, int]:
    return {table: one(connection, f"SELECT count(*) FROM {table}") for table in TABLES}


def load_elsewhere(services: Services, name: str, hash_seed: str) -> dict[str, str]:
    """Load the small size in another process, and give a digest of each table."""
    maintenance = create_engine(services.database_url, isolation_level="AUTOCOMMIT")
    url = maintenance.url.set(database=name).render_as_string(hide_password=False)
    with maintenance.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            subprocess.run(
                [sys.executable, "-c", LOAD, url],
                env=os.environ | {"PYTHONPATH": str(material().labs), "PYTHONHASHSEED": hash_seed},
                check=True,
            )
            engine = create_engine(url)
            with engine.connect() as other:
                digests = {
                    table: one(other, f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t")
                    for table in TABLES
                }
            engine.dispose()
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    maintenance.dispose()
    return digests


@pytest.mark.slow
def test_two_processes_load_the_same(services: Services) -> None:
    name = f"seed_test_{os.getpid()}"
    first = load_elsewhere(services, name, "1")
    assert load_elsewhere(services, name, "2") == first
    assert len(set(first.values())) == len(TABLES)


@pytest.mark.parametrize(
    ("size", "exact"),
    [
        ("small", (10, 100, 500, 500, 2_000, 5_919, 1_892)),
        pytest.param("medium", (10, 10_000, 5_000, 5_000, 200_000, 600_843, 189_978), marks=pytest.mark.slow),
        pytest.param("large", (10, 50_000, 20_000, 20_000, 1_000_000, 3_010_210, 948_965), marks=pytest.mark.slow),
    ],
)
def test_each_size_has_its_rows(services: Services, size: SizeName, exact: tuple[int, ...]) -> None:
    with clone(services, size) as database, database.engine.connect() as connection:
        assert counts(connection) == dict(zip(TABLES, exact, strict=True))
    assert (exact[1], exact[2], exact[4]) == (SIZES[size].customers, SIZES[size].products, SIZES[size].orders)


def test_the_schema_is_that_of_the_models(connection: Connection) -> None:
    """Keys are dropped for the load and built again: what comes of it is what `create_all` makes."""
    loaded = describe(connection, "public")
    connection.execute(text("CREATE SCHEMA fresh"))
    connection.execute(text("SET LOCAL search_path = fresh"))
    Base.metadata.create_all(connection)
    assert describe(connection, "fresh") == loaded
    assert len(loaded) > 40


def describe(connection: Connection, schema: str) -> list[tuple[str, str, str]]:
    """Constraints and columns as PostgreSQL tells them."""
    connection.execute(text(f"SET LOCAL search_path = {schema}"))
    constraints = text(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = CAST(:schema AS regnamespace) ORDER BY 1, 2"
    )
    columns = text(
        "SELECT table_name, column_name, data_type || is_nullable || is_identity || coalesce(column_default, '')"
        " FROM information_schema.columns WHERE table_schema = :schema ORDER BY 1, ordinal_position"
    )
    return [
        (str(a), str(b), str(c))
        for query in (constraints, columns)
        for a, b, c in connection.execute(query, {"schema": schema})
        if str(a) in TABLES
    ]


def test_new_rows_are_numbered_after_the_old(services: Services) -> None:
    with clone(services, "small") as database, database.engine.connect() as connection:
        for table in TABLES:
            if "id" in {column["name"] for column in inspect(connection).get_columns(table)}:
                sequence = f"nextval(pg_get_serial_sequence('{table}', 'id'))"
                assert one(connection, f"SELECT {sequence} = max(id) + 1 FROM {table}"), table


def test_every_page_is_known_to_be_visible_to_all(connection: Connection) -> None:
    """So that an index-only scan reads no table, and autovacuum finds nothing to do in a clone."""
    pages = connection.execute(
        text("SELECT relname, relpages, relallvisible FROM pg_class WHERE relname = ANY(:tables)"),
        {"tables": list(TABLES)},
    ).all()
    assert len(pages) == len(TABLES)
    assert all(row.relpages == row.relallvisible > 0 for row in pages), pages


def test_money_adds_up(connection: Connection) -> None:
    assert one(
        connection,
        "SELECT bool_and(total_amount = (SELECT coalesce(sum(quantity * unit_price), 0) FROM order_items"
        " WHERE order_id = o.id)) FROM orders o",
    )
    assert one(
        connection,
        "SELECT bool_and(amount = total_amount AND created_at >= placed_at AND created_at < '2026-10-31')"
        " FROM payments JOIN orders o ON o.id = order_id",
    )
    assert one(
        connection,
        "SELECT bool_and((status IN ('paid', 'shipped', 'delivered')) ="
        " EXISTS (SELECT FROM payments WHERE order_id = o.id)) FROM orders o",
    )


def test_what_is_reserved_is_what_waits_to_be_shipped(connection: Connection) -> None:
    assert one(
        connection,
        "SELECT bool_and(on_hand >= reserved AND reserved = (SELECT coalesce(sum(quantity), 0) FROM order_items i"
        " JOIN orders o ON o.id = order_id WHERE i.product_id = s.product_id AND status IN ('pending', 'paid')))"
        " FROM stock s",
    )
    assert one(connection, "SELECT sum(reserved) FROM stock") > 0
    assert one(connection, "SELECT count(*) FROM stock WHERE on_hand = reserved") > 10


def test_history_is_possible(connection: Connection) -> None:
    """Nobody orders before they register; nothing is sold after it is withdrawn, but something was before."""
    assert one(connection, "SELECT bool_and(created_at < placed_at) FROM orders JOIN customers c ON c.id = customer_id")
    sold = "FROM order_items JOIN orders o ON o.id = order_id JOIN products p ON p.id = product_id WHERE withdrawn_at"
    assert one(connection, f"SELECT count(*) {sold} <= placed_at") == 0
    assert one(connection, f"SELECT count(*) {sold} > placed_at") > 0
    assert one(connection, "SELECT min(placed_at) >= '2023-11-01' AND max(placed_at) < '2026-10-31' FROM orders")
    assert one(connection, "SELECT max(placed_at) > '2026-10-29' FROM orders")


def test_orders_lie_on_disk_by_date(connection: Connection) -> None:
    assert one(connection, "SELECT bool_and(later) FROM (SELECT placed_at >= lag(placed_at, 1, placed_at)"
                           " OVER (ORDER BY ctid) AS later FROM orders) x")  # fmt: skip


@pytest.mark.slow
def test_the_data_is_skewed_as_a_real_shops(services: Services) -> None:
    def share_of_top(connection: Connection, table: str, column: str, top: int) -> float:
        ranked = f"SELECT count(*) AS n FROM {table} GROUP BY {column} ORDER BY n DESC LIMIT {top}"
        return float(one(connection, f"SELECT sum(n) / (SELECT count(*) FROM {table}) FROM ({ranked}) x"))

    with clone(services, "medium") as database, database.engine.connect() as connection:
        assert share_of_top(connection, "orders", "customer_id", 100) > 0.25  # 1 % of the customers
        assert share_of_top(connection, "order_items", "product_id", 50) > 0.15  # 1 % of the products
        shares = {
            row.status: float(row.share)
            for row in connection.execute(
                text("SELECT status, count(*) / sum(count(*)) OVER () AS share FROM orders GROUP BY 1")
            )
        }
        assert 0.005 < shares["pending"] < 0.015
        assert 0.03 < shares["cancelled"] < 0.06
        assert shares["delivered"] > 0.9
        sizes = dict(
            connection.execute(
                text("SELECT items, count(*) FROM (SELECT count(i.id) AS items FROM orders o"
                     " LEFT JOIN order_items i ON order_id = o.id GROUP BY o.id) x GROUP BY 1")
            ).all()  # type: ignore[arg-type]  # rows of two
        )  # fmt: skip
        assert 0.001 < sizes[0] / 200_000 < 0.003
        assert sum(sizes[items] for items in range(1, 6)) / 200_000 > 0.9
        assert 2.9 < sum(items * orders for items, orders in sizes.items()) / 200_000 < 3.1
        last_month, first_month = (
            one(connection, f"SELECT count(*) FROM orders WHERE placed_at BETWEEN '{start}' AND '{end}'")
            for start, end in (("2026-10-01", "2026-10-31"), ("2023-11-01", "2023-12-01"))
        )
        assert last_month > 3 * first_month
        by_weekday = connection.scalars(
            text("SELECT count(*) FROM orders GROUP BY extract(isodow FROM placed_at)"
                 " ORDER BY extract(isodow FROM placed_at)")
        ).all()  # fmt: skip
        assert max(by_weekday) == by_weekday[0]
        assert min(by_weekday) == by_weekday[4]
