"""The way to the database: one engine for the process, one session for a request. Given code, no lab changes it."""

import re
from typing import cast

from flask import Flask, current_app, g
from sqlalchemy import Connection, Engine, create_engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shop.settings import settings_of

# comments first, as a solution may carry them inside its statements
CREATE_INDEX = re.compile(
    r"(?:\s|--[^\n]*\n)*CREATE\s+(?:UNIQUE\s+)?INDEX\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)\s+ON\s", re.IGNORECASE
)


def make_engine(url: str, *, pool_size: int = 5, pool_timeout_seconds: float = 30) -> Engine:
    """An engine whose connections tell the time in UTC.

    Args:
        url: `postgresql+psycopg://...`.
        pool_size: most connections at once; there is no overflow beyond it.
        pool_timeout_seconds: how long to wait for a free one.
    """
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout_seconds,
        connect_args={"options": "-c timezone=utc"},
    )


def init_app(app: Flask) -> None:
    """Give the application its engine, and end each request's session with the request."""
    settings = settings_of(app)
    app.extensions["engine"] = make_engine(
        settings.database_url, pool_size=settings.pool_size, pool_timeout_seconds=settings.pool_timeout_seconds
    )
    app.teardown_appcontext(_end_session)


def engine() -> Engine:
    """The engine of the current application."""
    return cast("Engine", current_app.extensions["engine"])


def session() -> Session:
    """The session of the current request.

    It is rolled back and closed when the request ends. Committing is the business of whoever owns the transaction.
    """
    if "session" not in g:
        g.session = Session(engine())
    return cast("Session", g.session)


def _end_session(_error: BaseException | None) -> None:
    if "session" in g:
        try:
            g.pop("session").close()
        except SQLAlchemyError:  # the connection is lost: the transaction has ended with it, and the answer stands
            current_app.logger.warning("the session could not be closed", exc_info=True)


def create_indexes(connection: Connection) -> list[str]:
    """Create the indexes of `shop.data.indexing` that are not there yet.

    Returns:
        The names of those it created. The caller commits.

    Raises:
        ValueError: an entry is not a statement that creates a named index.
    """
    from shop.data.indexing import INDEXES  # noqa: PLC0415 - that module is a lab's, and is read when it is asked for

    created = []
    for statement in INDEXES:
        name = _index_name(statement)
        if connection.scalar(select(func.to_regclass(name))) is None:
            connection.execute(text(statement))
            created.append(name)
    return created


def _index_name(statement: str) -> str:
    match = CREATE_INDEX.match(statement)
    if match is None:
        raise ValueError(f"INDEXES holds what is not of the form CREATE INDEX name ON ...: {statement!r}")
    return match[1]
