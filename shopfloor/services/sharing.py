"""One set of services for all processes and threads of a working copy.

Who owns them is who holds a lock on `services.lock` in the state folder. The servers' watchdogs hold it as well, so
that a next owner begins only when the servers of the last one are gone. Where the servers are is said in
`services.json`, which only this user can read; it is there from the moment that they all answer.
"""

import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from shopfloor.errors import UserError
from shopfloor.services.connections import given_database, given_redis, postgres_version, redis_version
from shopfloor.services.place import find_place
from shopfloor.services.postgres import start_postgres
from shopfloor.services.process import Child
from shopfloor.services.valkey import start_valkey

ATTACH_SECONDS = 60.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Services:
    """Where the backing services are.

    Attributes:
        database_url: SQLAlchemy's URL of the maintenance database.
        redis_url: URL of the Redis protocol.
        owned: whether this process started what runs, and ends it.
        versions: of each server, such as {"postgresql": "18.6", "valkey": "9.1.2"}.
        state: the state folder that they belong to.
    """

    database_url: str
    redis_url: str
    owned: bool
    versions: dict[str, str]
    state: Path


@dataclass(frozen=True)
class Given:
    """The servers that the environment names, checked."""

    database_url: str | None
    redis_url: str | None


def given_services() -> Given:
    """Read and check DATABASE_URL and REDIS_URL.

    Raises:
        UserError: one is set, but cannot be used.
    """
    database_url, redis_url = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
    return Given(
        database_url=given_database(database_url) if database_url else None,
        redis_url=given_redis(redis_url) if redis_url else None,
    )


class Share:
    """What this process has to do with the services of one working copy."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._note = state / "services.json"
        self._process = os.getpid()
        self._turn = threading.Lock()
        self._users = 0
        self._owned: Services | None = None
        self._children: list[Child] = []
        self._resources = ExitStack()

    def enter(self, progress: Callable[[str], None] | None) -> Services:
        """Attach to the services, or start them; `leave` must follow when they are then owned.

        Raises:
            UserError: neither is possible.
        """
        with self._turn:
            if self._owned is None:
                services = self._attach_or_start(progress)
                if not services.owned:
                    return services
                self._owned = services
            for child in self._children:
                if child.poll() is not None:
                    raise UserError(f"A service ended by itself; see {child.log}. End Shopfloor, and start it again.")
            self._users += 1
            return self._owned

    def leave(self) -> None:
        """End the services when this was their last use; a forked copy of the owner ends nothing."""
        if os.getpid() != self._process:
            return
        with self._turn:
            self._users -= 1
            if self._users == 0:
                self._owned = None
                self._children = []
                self._resources.close()

    def _attach_or_start(self, progress: Callable[[str], None] | None) -> Services:
        given = given_services()
        if given.database_url and given.redis_url:
            return services_at(given.database_url, given.redis_url, self._state, owned=False)
        try:
            self._state.mkdir(parents=True, exist_ok=True)
            return self._wait_for_turn(given, progress)
        except PermissionError as error:
            raise UserError(
                f"{error.filename} belongs to another user, perhaps from a run with sudo. "
                f"Remove {self._state} as that user; Shopfloor makes it again."
            ) from error

    def _wait_for_turn(self, given: Given, progress: Callable[[str], None] | None) -> Services:
        deadline = time.monotonic() + ATTACH_SECONDS
        waiting = False
        while True:
            lock = take_lock(self._state / "services.lock")
            if lock is not None:
                return self._start(lock, given, progress)
            services = self._attach(given)
            if services:
                return services
            if time.monotonic() > deadline:
                raise UserError(
                    f"Another Shopfloor process holds {self._state / 'services.lock'}, but its services have not "
                    f"answered for {ATTACH_SECONDS:.0f} s. End that process, and try again."
                )
            if progress and not waiting:
                progress("Waiting for another Shopfloor process, which is starting or ending the services")
            waiting = True
            time.sleep(POLL_SECONDS)

    def _attach(self, given: Given) -> Services | None:
        """The services of the process that holds the lock, or None while they do not all answer."""
        try:
            note = json.loads(self._note.read_text())
        except FileNotFoundError:
            return None
        database_url, redis_url = given.database_url or note["database_url"], given.redis_url or note["redis_url"]
        if not database_url or not redis_url:
            variable = "REDIS_URL" if database_url else "DATABASE_URL"
            raise UserError(
                f"The services of this working copy are run by process {note['owner']}, which had {variable} set. "
                f"Set it here as well, or end that process."
            )
        with suppress(psycopg.OperationalError, redis.RedisError):
            return services_at(database_url, redis_url, self._state, owned=False)
        return None

    def _start(self, lock: int, given: Given, progress: Callable[[str], None] | None) -> Services:
        """Start what is not given, both at once, and note for other processes where they are."""
        tell = progress or (lambda _: None)
        warn = progress or (lambda message: print(message, file=sys.stderr))
        children: list[Child] = []
        with ExitStack() as stack:
            stack.callback(release_lock, lock)
            self._note.unlink(missing_ok=True)
            place = find_place(self._state, lock)

            def url_of(given_url: str | None, start: Callable[[], tuple[Child, str]]) -> str:
                if given_url:
                    return given_url
                child, url = start()
                stack.callback(child.stop)
                children.append(child)
                return url

            with ThreadPoolExecutor() as pool:
                database = pool.submit(
                    url_of, given.database_url, lambda: start_postgres(place, progress=tell, warn=warn)
                )
                cache = pool.submit(url_of, given.redis_url, lambda: start_valkey(place))
            services = services_at(database.result(), cache.result(), self._state, owned=True)
            note = {  # what was given is not this file's to tell
                "owner": os.getpid(),
                "database_url": None if given.database_url else services.database_url,
                "redis_url": None if given.redis_url else services.redis_url,
            }
            stack.callback(self._note.unlink, missing_ok=True)
            write_private(self._note, json.dumps(note))
            self._children = children
            self._resources = stack.pop_all()
        return services


def services_at(database_url: str, redis_url: str, state: Path, *, owned: bool) -> Services:
    """Describe the servers at two URLs, both of which must answer, of a state folder.

    Raises:
        psycopg.Error: the database does not.
        redis.RedisError: the other does not.
    """
    kind, version = redis_version(redis_url)
    versions = {"postgresql": postgres_version(database_url), kind: version}
    return Services(database_url=database_url, redis_url=redis_url, owned=owned, versions=versions, state=state)


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, so that others see all of it or nothing."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text(text)
    partial.rename(path)


_shares: dict[Path, Share] = {}
_shares_turn = threading.Lock()
_locks: set[int] = set()


def share(state: Path) -> Share:
    """This process's one `Share` of the services of a state folder."""
    with _shares_turn:
        return _shares.setdefault(state.resolve(), Share(state.resolve()))


def take_lock(path: Path) -> int | None:
    """Take the lock, as a descriptor; None when someone else has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    _locks.add(fd)
    return fd


def release_lock(fd: int) -> None:
    """Give the lock back; it stays taken while a watchdog holds it."""
    _locks.discard(fd)
    os.close(fd)


def _forget_in_forked_copy() -> None:
    """Forget what the owner owns: a copy that outlives it must not keep the lock."""
    global _shares_turn  # noqa: PLW0603 - a thread that is not in this copy may hold it
    _shares_turn = threading.Lock()
    _shares.clear()
    while _locks:
        os.close(_locks.pop())


os.register_at_fork(after_in_child=_forget_in_forked_copy)
