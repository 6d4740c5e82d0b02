"""Working folders, and processes that own services, for the tests of the services."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from shopfloor.services.place import find_place
from shopfloor.services.postgres import Cluster, start_postgres
from shopfloor.services.sharing import release_lock, take_lock
from tests.helpers import memory, wait_until

ROOM = 2 * 1024**3
OWNER = Path(__file__).with_name("owner.py")


@pytest.fixture(autouse=True)
def _nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest.fixture(scope="session")
def folders() -> Iterator[Callable[[], Path]]:
    """Makes folders that any user may enter, which pytest's own are not; in memory where there is room."""
    parent = memory(ROOM)
    with ExitStack() as stack:

        def make() -> Path:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopfloor-test-", dir=parent)))
            folder.chmod(0o755)
            return folder

        yield make


@pytest.fixture
def state(folders: Callable[[], Path]) -> Iterator[Path]:
    """The state folder of a working copy of this test's own."""
    state = folders() / "state"
    state.mkdir()
    yield state
    shutil.rmtree(state)


@pytest.fixture(scope="session")
def made_state(folders: Callable[[], Path]) -> Path:
    """A state folder whose database folder is made; copied, never used."""
    state = folders() / "state"
    state.mkdir()
    with Database(state):
        pass
    return state


@pytest.fixture
def ready_state(made_state: Path, state: Path) -> Path:
    """The state folder of a working copy that has been used before."""
    state.rmdir()
    subprocess.run(["cp", "-a", made_state, state], check=True)
    return state


class Database:
    """PostgreSQL alone, started and stopped as a context; `.warnings` is what it found to mend."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.warnings: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Database":
        with ExitStack() as stack:
            lock = take_lock(self.state / "services.lock")
            assert lock is not None
            stack.callback(release_lock, lock)
            self.place = find_place(self.state, lock)
            self.child, self.url = start_postgres(self.place, progress=lambda _: None, warn=self.warnings.append)
            stack.callback(self.child.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def dsn(self) -> str:
        return self.url.replace("+psycopg", "")

    @property
    def processes(self) -> list[psutil.Process]:
        server = psutil.Process(self.child.pid)
        return [server, *server.children(recursive=True)]


def cluster_of(state: Path) -> Cluster:
    """The one database folder in a state folder."""
    (folder,) = (path for path in state.glob("postgres-*") if path.suffix == "")
    return Cluster(folder)


@dataclass
class Owner:
    """A process that uses the services of a state folder."""

    process: subprocess.Popen[str]
    services: dict[str, Any] | None = None

    def ready(self) -> dict[str, Any]:
        """Wait for its services; its error message is under "error"."""
        while self.services is None:
            said = self.hear()
            if "progress" not in said:
                self.services = said
        return self.services

    def hear(self) -> dict[str, Any]:
        """The next thing that it says."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "it ended without a word"
        said = json.loads(line)
        assert isinstance(said, dict)
        return said

    @property
    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def finish(self) -> None:
        """Let it end in its own time."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=30)


@pytest.fixture
def start_owner() -> Iterator[Callable[..., Owner]]:
    """Starts processes that use services, and ends those that the test did not."""
    owners: list[Owner] = []

    def start(state: Path, *arguments: str, env: dict[str, str] | None = None) -> Owner:
        process = subprocess.Popen(
            [sys.executable, str(OWNER), str(state), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        owners.append(Owner(process))
        return owners[-1]

    yield start
    for owner in owners:
        with owner.process as process:
            left = owner.descendants if process.poll() is None else []
            process.kill()
        wait_until(lambda: gone(left))  # noqa: B023 - called at once


def listeners(processes: Sequence[psutil.Process]) -> set[str]:
    """The addresses and the sockets' paths that they listen at."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # a connection's process that has just ended
            for connection in process.net_connections("all"):
                if connection.family == socket.AF_UNIX:
                    found.add(connection.laddr)
                elif connection.status == psutil.CONN_LISTEN:
                    found.add(connection.laddr.ip)
    return found


def gone(processes: Sequence[psutil.Process]) -> bool:
    """Whether none of them runs; one that nobody has waited for yet does not run."""
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            continue
    return True


def assert_gone(processes: Sequence[psutil.Process], within: float = 1.0) -> None:
    """Fail unless all of them have ended within so many seconds."""
    assert processes, "there was nothing to end"
    wait_until(lambda: gone(processes), timeout=within, message=f"still there after {within} s: {processes}")


@pytest.fixture
def outside_homes() -> Iterator[Callable[[Path], Path]]:
    """Names the folder under /var/tmp of a state folder, and removes it in the end."""
    from shopfloor.services.place import outside_home

    homes: list[Path] = []

    def name(state: Path) -> Path:
        homes.append(outside_home(state))
        return homes[-1]

    yield name
    for home in homes:
        shutil.rmtree(home, ignore_errors=True)
