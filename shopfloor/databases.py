"""Databases with the shop's seed data: each size is loaded once, into a template, and cloned in milliseconds.

This is the only module of the toolkit that imports the shop.
"""

import atexit
import hashlib
import importlib.util
import os
import platform
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, get_args

import psutil
from psycopg import errors
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from shopfloor.errors import UserError
from shopfloor.paths import material

if importlib.util.find_spec("shop") is None:  # behind a stage's shop, when there is one on the path
    sys.path.append(str(material().labs))

from shop import binary_copy, models, seed
from shop.database import make_engine

if TYPE_CHECKING:
    from shopfloor.services import Services

Size = seed.SizeName
Progress = Callable[[str], None]

FORMAT = 1  # raise it when a template should be made anew although the shop's code is the same
OLDEST_SERVER = 15  # the first that can copy a template's files instead of logging their blocks
EXTENSIONS = ("pageinspect", "pg_visibility")  # with these a chapter looks inside an index
MAINTENANCE_TIMEOUT = {"connect_timeout": 10}


class Database:
    """A database of the caller's own, cloned from a template; dropped when closed or when the interpreter ends.

    Attributes:
        name: of the database.
        url: where it is, with the password.
        engine: SQLAlchemy's engine on it.
    """

    def __init__(self, services: "Services", name: str) -> None:
        self._services = services
        self._owner = os.getpid()
        self.name = name
        self.url = _url(services, name).render_as_string(hide_password=False)
        self.engine: Engine = make_engine(self.url)
        atexit.register(self.close)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session that is rolled back and closed at the end of the block; commit to keep what it wrote."""
        with Session(self.engine) as session:
            yield session

    def close(self) -> None:
        """Drop the database. It is harmless to do so twice, in a forked child, or when the server has gone."""
        atexit.unregister(self.close)
        if os.getpid() != self._owner:
            return
        self.engine.dispose()
        try:
            with _maintenance(self._services) as connection:
                _drop(connection, self.name)
        except UserError:  # the server went first; whoever makes the next clone on it drops this one
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def clone(services: "Services", size: Size = "medium", *, progress: Progress | None = None) -> Database:
    """Make a database with the naive schema and `size` of seed data.

    The first clone of a size loads its template; other processes that ask meanwhile wait for it.

    Args:
        services: whose PostgreSQL it is.
        size: how much data; see `shop.seed.SIZES`.
        progress: told what happens, if the template has to be made.

    Raises:
        UserError: the server cannot be reached, is too old, or does not let this user create databases.
    """
    name = _clone_name()
    with _maintenance(services) as connection:
        _drop_orphans(connection)
        _lock(connection, size, progress)
        template = _ensure_template(services, connection, size, progress)
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"))
    return Database(services, name)


def ensure_template(services: "Services", size: Size, *, progress: Progress | None = None) -> str:
    """Load the template of a size unless it is there; as `clone`, without the clone.

    Returns:
        The template's name.

    Raises:
        UserError: as `clone`.
    """
    with _maintenance(services) as connection:
        _lock(connection, size, progress)
        return _ensure_template(services, connection, size, progress)


def fingerprint(server_major: int) -> str:
    """What a template's content depends on, in twelve hexadecimal digits."""
    digest = hashlib.sha256(f"{FORMAT} {server_major}".encode())
    for module in (seed, binary_copy, models):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:12]


def _ensure_template(services: "Services", connection: Connection, size: Size, progress: Progress | None) -> str:
    """Make the template under another name and rename it when whole. The caller holds the size's lock."""
    family = f"shopfloor_template_{size}_"
    template = family + fingerprint(_server_major(connection))
    existing = _databases(connection, family)
    if template in existing:
        return template
    tell = progress or (lambda _words: None)
    for outdated in (*existing, *_databases(connection, f"shopfloor_making_{size}_")):
        _drop(connection, outdated)
    making = f"shopfloor_making_{size}_{secrets.token_hex(4)}"
    tell(f"{size} seed data: making the database")
    connection.execute(text(f"CREATE DATABASE {making} TEMPLATE template0 ENCODING 'UTF8'"))
    try:
        _load(services, making, size, lambda words: tell(f"{size} seed data: {words}"))
        connection.execute(text(f"ALTER DATABASE {making} WITH ALLOW_CONNECTIONS false IS_TEMPLATE true"))
        connection.execute(text(f"ALTER DATABASE {making} RENAME TO {template}"))
    except BaseException:
        _drop(connection, making)
        raise
    return template


def _load(services: "Services", name: str, size: Size, progress: Progress) -> None:
    engine = create_engine(_url(services, name), poolclass=NullPool)
    with engine.begin() as connection:
        _create_extensions(connection)
    seed.load(engine, size, progress)


def _create_extensions(connection: Connection) -> None:
    """Those that the server has and this user may create."""
    available = connection.scalars(
        text(
            "SELECT DISTINCT name FROM pg_available_extension_versions WHERE name = ANY(:wanted)"
            " AND (trusted OR NOT superuser OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))"
        ),
        {"wanted": list(EXTENSIONS)},
    )
    for extension in available.all():
        connection.execute(text(f"CREATE EXTENSION {extension}"))


def _lock(connection: Connection, size: Size, progress: Progress | None) -> None:
    """Take the server-wide lock on the template of a size; it ends with the connection."""
    key = {"key": f"shopfloor template {size}"}
    if not connection.scalar(text("SELECT pg_try_advisory_lock(hashtextextended(:key, 0))"), key):
        if progress:
            progress(f"{size} seed data: waiting for another process that is making or copying it")
        connection.execute(text("SELECT pg_advisory_lock(hashtextextended(:key, 0))"), key)


@contextmanager
def _maintenance(services: "Services") -> Iterator[Connection]:
    """A connection to the maintenance database, each statement its own transaction; failures said in words."""
    url = make_url(services.database_url)
    shown = url.render_as_string(hide_password=True)
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=MAINTENANCE_TIMEOUT)
    try:
        with engine.connect() as connection:
            if (major := _server_major(connection)) < OLDEST_SERVER:
                raise UserError(
                    f"PostgreSQL at {shown} is version {major}. Version {OLDEST_SERVER} or later is needed."
                )
            yield connection
    except DBAPIError as error:
        if isinstance(error.orig, errors.InsufficientPrivilege):
            raise UserError(
                f"The user {url.username!r} may not create databases on {shown}. Either let it (ALTER ROLE"
                f" {url.username} CREATEDB) or unset DATABASE_URL, and the kit starts a PostgreSQL of its own."
            ) from error
        if isinstance(error, OperationalError) and (error.connection_invalidated or not error.statement):
            raise UserError(
                f"PostgreSQL at {shown} cannot be reached: {str(error.orig).strip()}. Check DATABASE_URL, or unset it,"
                " and the kit starts a PostgreSQL of its own."
            ) from error
        raise


def _server_major(connection: Connection) -> int:
    return int(connection.scalar(text("SHOW server_version_num")) or 0) // 10_000


def _url(services: "Services", name: str) -> URL:
    return make_url(services.database_url).set(database=name)


def _databases(connection: Connection, prefix: str) -> list[str]:
    return list(
        connection.scalars(
            text("SELECT datname FROM pg_database WHERE starts_with(datname, :prefix) ORDER BY 1"), {"prefix": prefix}
        )
    )


def _drop(connection: Connection, name: str) -> None:
    """Drop a database of ours, a template too, even while someone is connected to it."""
    is_template = text("SELECT datistemplate FROM pg_database WHERE datname = :name")
    if connection.scalar(is_template, {"name": name}):  # only then: an interrupted DROP leaves one that refuses ALTER
        connection.execute(text(f"ALTER DATABASE {name} IS_TEMPLATE false"))
    connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


def _clone_name() -> str:
    """It tells whose it is: machine, process, and when that started, since numbers of processes are used again."""
    pid = os.getpid()
    return f"{_clone_prefix()}{pid}_{_started(pid)}_{secrets.token_hex(4)}"


def _clone_prefix() -> str:
    """The machine: on a server that several share, the processes of another cannot be seen from here."""
    namespace = Path("/proc/self/ns/pid")
    number = namespace.stat().st_ino if namespace.exists() else 0
    return f"shopfloor_clone_{hashlib.sha256(f'{platform.node()} {number}'.encode()).hexdigest()[:8]}_"


def _started(pid: int) -> int:
    """When a process started, in Unix seconds; 0 if there is none."""
    try:
        return int(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0


def _drop_orphans(connection: Connection) -> None:
    """Drop the clones of processes of this machine that have ended without doing so."""
    prefix = _clone_prefix()
    for name in _databases(connection, prefix):
        pid, started, _token = name.removeprefix(prefix).split("_")
        if abs(_started(int(pid)) - int(started)) > 2:  # the kernel's idea of when it booted moves a little
            _drop(connection, name)


assert set(get_args(Size)) == set(seed.SIZES)
