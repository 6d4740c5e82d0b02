"""The way to the database: one engine for the process, one session for a request. Given code, no lab changes it."""

import re
from typing import cast

from flask import Flask, current_app, g
from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.orm import Session

from shop.models import Base
from shop.settings import Settings


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
    settings: Settings = app.config["SETTINGS"]
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
        g.pop("session").close()


def create_indexes(connection: Connection) -> list[str]:
    """Create the indexes of `shop.data.indexing` that are not there yet.

    Returns:
        The names of those it created. The caller commits.
    """
    from shop.data.indexing import INDEXES  # noqa: PLC0415 - the data layer is above this module

    there = {name for table in Base.metadata.tables for name in _index_names(connection, table)}
    missing = {name: statement for statement in INDEXES if (name := _name_of(statement)) not in there}
    for statement in missing.values():
        connection.execute(text(statement))
    return list(missing)
