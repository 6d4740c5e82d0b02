"""One process owns the services, others use them, and nothing is left of them when it ends."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shopfloor.errors import UserError
from shopfloor.services import Services, running_services, sharing
from shopfloor.services.sharing import release_lock, take_lock
from tests.helpers import wait_until
from tests.services.conftest import Database, Owner, assert_gone, gone

Start = Callable[..., Owner]


def connect(database_url: str) -> psycopg.Connection:
    return psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True)


def cache(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url, retry=Retry(NoBackoff(), 0), socket_timeout=30, decode_responses=True)


# --- one process ----------------------------------------------------------------------------------------------------


def test_services_answer_and_end(ready_state: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    with running_services(ready_state) as services:
        assert services.owned
        assert services.versions.keys() == {"postgresql", "valkey"}
        with connect(services.database_url) as connection:
            (version,) = connection.execute("SHOW server_version").fetchone() or ()
        assert str(version).split()[0] == services.versions["postgresql"]
        with cache(services.redis_url) as client:
            assert client.info("server")["valkey_version"] == services.versions["valkey"]
        children = [process for process in psutil.Process().children(recursive=True) if process not in before]
    assert gone(children)
    assert children
    assert not (ready_state / "services.json").exists()


def test_note_is_private(ready_state: Path) -> None:
    with running_services(ready_state):
        assert (ready_state / "services.json").stat().st_mode & 0o777 == 0o600


def test_nested_and_concurrent_uses_share_them_to_the_last(ready_state: Path) -> None:
    together = threading.Barrier(8)

    def use(_: int) -> Services:
        together.wait()
        with running_services(ready_state) as services, running_services(ready_state) as inner:
            assert services == inner
            connect(services.database_url).close()
            together.wait()
            return services

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(use, range(8)))
    assert all(services.owned for services in seen)
    assert len({services.database_url for services in seen}) == 1
    with pytest.raises(psycopg.OperationalError):
        connect(seen[0].database_url)


def test_they_can_be_started_again(ready_state: Path) -> None:
    for _ in range(2):
        with running_services(ready_state) as services:
            connect(services.database_url).close()


def test_two_working_copies_at_once(made_state: Path, ready_state: Path, folders: Callable[[], Path]) -> None:
    other = folders() / "state"
    with running_services(ready_state) as here, running_services(other) as there:
        with connect(here.database_url) as connection:
            connection.execute("CREATE TABLE here ()")
        with connect(there.database_url) as connection:
            assert connection.execute("SELECT to_regclass('here')").fetchone() == (None,)
        with cache(here.redis_url) as one, cache(there.redis_url) as two:
            one.set("where", "here")
            assert two.get("where") is None


def test_failure_of_one_service_leaves_none(ready_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise UserError("no Valkey today")

    monkeypatch.setattr(sharing, "start_valkey", fail)
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(UserError, match="no Valkey today"), running_services(ready_state):
        pass
    assert set(psutil.Process().children(recursive=True)) == before
    lock = take_lock(ready_state / "services.lock")
    assert lock is not None
    release_lock(lock)


def test_service_that_ended_by_itself_is_reported(ready_state: Path) -> None:
    with running_services(ready_state) as services:
        with cache(services.redis_url) as client:
            server = psutil.Process(client.info("server")["process_id"])
        server.kill()

        def reported() -> bool:
            try:
                with running_services(ready_state):
                    return False
            except UserError as error:
                return "ended by itself" in str(error)

        wait_until(reported)


def test_progress_tells_what_takes_long_and_what_was_mended(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    with running_services(state, progress=told.append):
        pass
    assert told == ["Making the database folder"]
    next(state.glob("postgres-*/data/PG_VERSION")).unlink()
    with running_services(state):
        pass
    assert "made anew" in capsys.readouterr().err


# --- several processes ----------------------------------------------------------------------------------------------


def test_second_process_attaches_and_outlives_nothing(ready_state: Path, start_owner: Start) -> None:
    owner = start_owner(ready_state)
    first = owner.ready()
    with running_services(ready_state) as services:
        assert not services.owned
        assert services.database_url == first["database_url"]
        assert services.versions == first["versions"]
        with connect(services.database_url) as connection:
            connection.execute("CREATE TABLE seen ()")
    with connect(first["database_url"]) as connection:
        assert connection.execute("SELECT to_regclass('seen')").fetchone() == ("seen",)
    servers = owner.descendants
    attached = start_owner(ready_state)
    assert attached.ready()["owned"] is False
    owner.finish()
    assert_gone(servers)
    assert attached.process.poll() is None


def test_owner_killed_ends_everything(ready_state: Path, start_owner: Start) -> None:
    owner = start_owner(ready_state)
    url = owner.ready()["database_url"]
    with connect(url) as connection:
        busy = threading.Thread(target=count_for_ever, args=(connection,))
        busy.start()
        try:
            with connect(url) as observer:
                wait_until(lambda: is_counting(observer))
                servers = owner.descendants  # while nobody hangs up, who would end a process of PostgreSQL's
                assert {"postgres", "valkey-server"} <= {server.name() for server in servers}
        finally:
            owner.process.kill()  # else it would count on, and nothing of this test would end
        assert_gone(servers)
        busy.join(timeout=30)


def count_for_ever(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT count(*) FROM generate_series(1, 10_000_000) a, generate_series(1, 10_000_000) b")


def is_counting(observer: psycopg.Connection) -> bool:
    found = observer.execute("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT count%'")
    return found.fetchone() is not None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child whose parent was killed")
def test_watchdogs_killed_end_the_servers(ready_state: Path, start_owner: Start) -> None:
    owner = start_owner(ready_state)
    owner.ready()
    servers = owner.descendants
    for watchdog in psutil.Process(owner.process.pid).children():
        watchdog.kill()
    assert_gone(servers)


def test_interrupt_ends_them_in_an_orderly_way(ready_state: Path, start_owner: Start) -> None:
    owner = start_owner(ready_state)
    owner.ready()
    servers = owner.descendants
    owner.process.send_signal(signal.SIGINT)
    owner.process.wait(timeout=30)
    assert_gone(servers)
    assert "database system is shut down" in (ready_state / "logs" / "postgresql.log").read_text()


def test_next_owner_has_what_was_committed(ready_state: Path, start_owner: Start) -> None:
    owner = start_owner(ready_state)
    with connect(owner.ready()["database_url"]) as connection:
        connection.execute("CREATE TABLE kept ()")
    owner.process.kill()
    owner.process.wait()
    successor = start_owner(ready_state)
    assert successor.ready()["owned"] is True
    with connect(successor.ready()["database_url"]) as connection:
        assert connection.execute("SELECT to_regclass('kept')").fetchone() == ("kept",)


@pytest.mark.slow
def test_first_starts_at_once_have_one_owner(state: Path, start_owner: Start) -> None:
    owners = [start_owner(state) for _ in range(4)]
    said = [owner.ready() for owner in owners]
    assert sorted(services["owned"] for services in said) == [False, False, False, True]
    assert len({services["database_url"] for services in said}) == 1
    assert len(list(state.glob("postgres-*"))) == 1


def test_one_that_waits_becomes_the_owner(ready_state: Path, start_owner: Start) -> None:
    lock = take_lock(ready_state / "services.lock")  # an owner that is still starting, and never gets there
    assert lock is not None
    waiting = start_owner(ready_state)
    assert "Waiting" in waiting.hear()["progress"]
    release_lock(lock)
    assert waiting.ready()["owned"] is True


def test_waiting_has_a_limit(ready_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "ATTACH_SECONDS", 0.1)
    lock = take_lock(ready_state / "services.lock")
    assert lock is not None
    with pytest.raises(UserError, match=r"holds .*services\.lock"), running_services(ready_state):
        pass
    release_lock(lock)


FORKING_OWNER = """
import os, sys, time
from pathlib import Path
from shopfloor.services import running_services
with running_services(Path(sys.argv[1])):
    if os.fork():
        time.sleep(300)
os.write(1, b"the copy has left the block\\n")
time.sleep(300)
"""


def test_forked_copy_ends_nothing_and_stands_in_nobody_s_way(ready_state: Path, start_owner: Start) -> None:
    command = [sys.executable, "-c", FORKING_OWNER, str(ready_state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as owner:
        try:
            wait_until(lambda: select.select([owner.stdout], [], [], 0)[0])
            assert (ready_state / "services.json").exists()
            with running_services(ready_state) as services:
                assert not services.owned
            owner.kill()
            assert start_owner(ready_state).ready()["owned"] is True
        finally:
            os.killpg(owner.pid, signal.SIGKILL)


# --- services that are given ----------------------------------------------------------------------------------------


def test_given_database_takes_precedence(
    ready_state: Path, folders: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database(ready_state) as database:
        monkeypatch.setenv("DATABASE_URL", database.dsn.replace("postgresql:", "postgres:"))
        other = folders() / "state"
        with running_services(other) as services:
            assert services.database_url == database.url
            assert services.owned
            with cache(services.redis_url) as client:
                assert client.ping()
            assert "shopfloor" not in (other / "services.json").read_text()
        assert not list(other.glob("postgres-*"))


def test_both_given_start_nothing(
    ready_state: Path, folders: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_services(ready_state) as elsewhere:
        monkeypatch.setenv("DATABASE_URL", elsewhere.database_url)
        monkeypatch.setenv("REDIS_URL", elsewhere.redis_url)
        other = folders() / "state"
        with running_services(other) as services:
            assert not services.owned
            assert (services.database_url, services.redis_url) == (elsewhere.database_url, elsewhere.redis_url)
        assert not other.exists()


def test_owner_lacks_what_it_was_given(ready_state: Path, start_owner: Start, folders: Callable[[], Path]) -> None:
    with Database(ready_state) as database:
        other = folders() / "state"
        owner = start_owner(other, env={"DATABASE_URL": database.dsn})
        assert owner.ready()["database_url"] == database.url
        expected = pytest.raises(UserError, match=f"process {owner.process.pid}, which had DATABASE_URL set")
        with expected, running_services(other):
            pass
