"""Templates and clones, on a PostgreSQL of these tests' own: they drop what others would be using."""

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import IntegrityError

from shopfloor import databases
from shopfloor.databases import clone, ensure_template
from shopfloor.errors import UserError
from shopfloor.services import Services, running_services
from tests.helpers import wait_until

CHILD = """
import os, signal, sys
from types import SimpleNamespace
from shopfloor import databases
services = SimpleNamespace(database_url=sys.argv[1])
database = databases.clone(services, "small", progress=lambda words: print(words, file=sys.stderr))
print(database.name, flush=True)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL", raising=False)
        patch.delenv("REDIS_URL", raising=False)
        with running_services(tmp_path_factory.mktemp("state")) as services:
            yield services


@pytest.fixture
def maintenance(own: Services) -> Iterator[Engine]:
    engine = create_engine(own.database_url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def names(engine: Engine, prefix: str = "shopfloor_") -> list[str]:
    with engine.connect() as connection:
        return list(
            connection.scalars(
                text("SELECT datname FROM pg_database WHERE starts_with(datname, :prefix) ORDER BY 1"),
                {"prefix": prefix},
            )
        )


def child(services: Services, more: str = "", **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + more, services.database_url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_clone_is_ones_own(own: Services) -> None:
    with clone(own, "small") as one, clone(own, "small") as other:
        with one.session() as session:
            session.execute(text("UPDATE customers SET city = 'Nowhere'"))
            session.commit()
        with other.engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM customers WHERE city = 'Nowhere'")) == 0


def test_a_session_keeps_only_what_is_committed(own: Services) -> None:
    with clone(own, "small") as database:
        with database.session() as session:
            session.execute(text("DELETE FROM payments"))
        with database.session() as session:
            assert session.scalar(text("SELECT count(*) FROM payments")) > 0


def test_a_clone_has_constraints_statistics_and_what_looks_inside_an_index(own: Services) -> None:
    with clone(own, "small") as database:
        with database.engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM pg_stats WHERE tablename = 'orders'")) == 7
            extensions = connection.scalars(text("SELECT extname FROM pg_extension")).all()
            assert set(databases.EXTENSIONS) <= set(extensions)
            assert connection.scalar(text("SHOW timezone")) == "UTC"
        with pytest.raises(IntegrityError), database.engine.begin() as connection:
            connection.execute(text("UPDATE order_items SET quantity = 0"))


def test_closing_drops_it_and_may_be_done_twice(own: Services, maintenance: Engine) -> None:
    database = clone(own, "small")
    assert database.name in names(maintenance)
    with create_engine(database.url, poolclass=NullPool).connect() as connection:
        connection.execute(text("SELECT 1"))
        database.close()  # although someone is connected
        assert database.name not in names(maintenance)
        connection.invalidate()
    database.close()


@pytest.mark.slow
def test_a_clone_ends_with_its_interpreter(own: Services, maintenance: Engine) -> None:
    process = child(own)
    name, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert name.startswith("shopfloor_clone_")
    assert name.strip() not in names(maintenance)


@pytest.mark.slow
def test_a_forked_child_does_not_drop_its_parents_clone(own: Services, maintenance: Engine) -> None:
    process = child(own, "pid = os.fork()\nif pid: os.waitpid(pid, 0); sys.stdin.read()\n", stdin=subprocess.PIPE)
    try:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        wait_until(lambda: not has_children(process.pid), message="the forked child does not end")
        assert name in names(maintenance)
    finally:
        _, errors = process.communicate("", timeout=30)
    assert process.returncode == 0, errors
    assert name not in names(maintenance)


def has_children(pid: int) -> bool:
    import psutil

    return bool(psutil.Process(pid).children())


def test_what_a_killed_process_left_is_dropped_by_the_next(own: Services, maintenance: Engine) -> None:
    process = child(own, "os.kill(os.getpid(), signal.SIGKILL)")
    left = process.communicate(timeout=30)[0].strip()
    assert process.returncode == -signal.SIGKILL
    assert left in names(maintenance)
    with clone(own, "small") as database:
        assert names(maintenance, "shopfloor_clone_") == [database.name]


def test_a_database_whose_dropping_was_cut_short_is_dropped_by_the_next(own: Services, maintenance: Engine) -> None:
    name = child(own, "os.kill(os.getpid(), signal.SIGKILL)").communicate(timeout=30)[0].strip()
    with maintenance.connect() as connection:  # what PostgreSQL leaves behind; it refuses to ALTER such a database
        connection.execute(text("UPDATE pg_database SET datconnlimit = -2 WHERE datname = :name"), {"name": name})
    clone(own, "small").close()
    assert name not in names(maintenance)


def test_the_clones_of_living_processes_and_other_machines_stay(own: Services, maintenance: Engine) -> None:
    elsewhere = "shopfloor_clone_00000000_1_1_00000000"
    with maintenance.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {elsewhere}"))
    with clone(own, "small") as first, clone(own, "small") as second:
        assert {elsewhere, first.name, second.name} == set(names(maintenance, "shopfloor_clone_"))
    with maintenance.connect() as connection:
        connection.execute(text(f"DROP DATABASE {elsewhere}"))


def test_a_number_of_a_process_that_is_used_again_protects_nothing(own: Services, maintenance: Engine) -> None:
    reused = f"{databases._clone_prefix()}{os.getpid()}_1000000000_00000000"
    with maintenance.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {reused}"))
    with clone(own, "small"):
        assert reused not in names(maintenance)


@pytest.mark.slow
def test_processes_that_ask_at_once_make_the_template_once(own: Services, maintenance: Engine) -> None:
    with maintenance.connect() as connection:
        for template in names(maintenance, "shopfloor_template_small"):
            databases._drop(connection, template)
    processes = [child(own) for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(lambda process: process.communicate(timeout=60), processes))
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert len({name for name, _ in outputs}) == 3
    assert sum("making the database" in told for _, told in outputs) == 1
    assert len(names(maintenance, "shopfloor_template_small")) == 1


def test_the_template_follows_the_code_and_the_outdated_go(
    own: Services, maintenance: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ensure_template(own, "small")
    monkeypatch.setattr(databases, "FORMAT", databases.FORMAT + 1)
    new = ensure_template(own, "small")
    assert new != old
    assert names(maintenance, "shopfloor_template_small") == [new]
    assert databases.fingerprint(17) != databases.fingerprint(18)


def test_a_template_that_was_not_finished_is_not_used(
    own: Services, maintenance: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "FORMAT", databases.FORMAT + 2)
    with maintenance.connect() as connection:
        connection.execute(text("CREATE DATABASE shopfloor_making_small_0"))  # left by a process that was killed

    def interrupt(words: str) -> None:
        if "building keys" in words:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clone(own, "small", progress=interrupt)
    assert names(maintenance, "shopfloor_making_") == names(maintenance, "shopfloor_template_small") == []
    with clone(own, "small") as database, database.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM orders")) == 2000


def test_nobody_writes_to_a_template(own: Services, maintenance: Engine) -> None:
    template = ensure_template(own, "small")
    with maintenance.connect() as connection:
        flags = connection.execute(
            text("SELECT datallowconn, datistemplate FROM pg_database WHERE datname = :name"), {"name": template}
        ).one()
    assert tuple(flags) == (False, True)


def test_a_user_who_may_not_create_databases_is_told_so(own: Services, maintenance: Engine) -> None:
    with maintenance.connect() as connection:
        connection.execute(text("CREATE ROLE modest LOGIN PASSWORD 'hunter2'"))
    url = make_url(own.database_url).set(username="modest", password="hunter2")
    modest = dataclasses.replace(own, database_url=url.render_as_string(hide_password=False))
    with pytest.raises(UserError, match="'modest' may not create databases") as raised:
        clone(modest, "small")
    assert "hunter2" not in str(raised.value)


def test_a_server_that_is_away_is_named_without_the_password(own: Services) -> None:
    url = make_url(own.database_url).set(host="127.0.0.1", port=1, password="hunter2")
    away = dataclasses.replace(own, database_url=url.render_as_string(hide_password=False))
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1.*cannot be reached") as raised:
        clone(away, "small")
    assert "hunter2" not in str(raised.value)


def test_a_clone_that_outlives_its_server_ends_in_silence(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL", raising=False)
        with running_services(tmp_path_factory.mktemp("brief")) as services:
            database = clone(services, "small")
    database.close()
