"""Runs a lab's checks with pytest, in a process that never executes a line of the learner's.

What a check may use is here: the learner's shop over HTTP with the statements that it sends read off
the wire, the indexes that it declares, and the database itself.
"""

import http.client
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from shopfloor.checks.learner import Learner, LearnerFailed, learner
from shopfloor.checks.say import NotRight
from shopfloor.checks.wire import Recorder, Statement, recording
from shopfloor.plans import Plan, explain

ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Task:
    """What is to be judged.

    Attributes:
        tests: the lab's test file.
        stage: the folder with the learner's shop.
        database_url: a database with seed data, this process's alone.
        redis_url: of Valkey.
    """

    tests: Path
    stage: Path
    database_url: str
    redis_url: str


@dataclass(frozen=True)
class Answer:
    """What the learner's shop answered, and what it asked the database for it."""

    did: str
    status: int
    body: Any
    statements: list[Statement]

    @property
    def rows(self) -> int:
        """How many rows the database sent."""
        return sum(statement.rows for statement in self.statements)

    @property
    def bytes(self) -> int:
        """What those rows weighed."""
        return sum(statement.bytes for statement in self.statements)


class Shop:
    """The learner's shop, asked over HTTP."""

    def __init__(self, port: int, recorder: Recorder, process: Learner) -> None:
        self._port, self._recorder, self._process = port, recorder, process

    def get(self, path: str, **query: Any) -> Answer:
        """Ask, and read off the wire what the shop asks the database meanwhile.

        Raises:
            LearnerFailed: no answer came in time, or the connection broke.
        """
        address = f"{path}?{urlencode(query)}" if query else path
        self._recorder.clear()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", address)
            response = connection.getresponse()
            body = response.read()
        except TimeoutError:
            raise LearnerFailed(f"GET {address} had no answer after {ANSWER_SECONDS:.0f} s: does it loop?") from None
        except (OSError, http.client.HTTPException) as error:
            raise LearnerFailed(
                f"GET {address} broke off ({type(error).__name__}): the shop's process ended."
            ) from None
        finally:
            connection.close()
        return Answer(f"GET {address}", response.status, _json(body), self._recorder.statements)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


class Judge:
    """The plugin: gives checks their fixtures, and keeps what came of each."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.results: list[dict[str, Any]] = []
        self.collected = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Know how many checks there are, so that none can go missing."""
        self.collected = len(session.items)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Keep the outcome of a check: of its body, or of a fixture that failed."""
        outcome: Any = yield
        report = outcome.get_result()
        if report.when == "call" or report.failed:
            self.results.append(_result(item, report, call.excinfo.value if call.excinfo else None))

    @pytest.fixture(scope="session")
    def shop(self) -> Iterator[Shop]:
        """The learner's shop, served; its statements are read off the wire."""
        with recording(self.task.database_url) as recorder:
            environment = _environment(recorder.url, self.task.redis_url)
            with learner(self.task.stage, "serve", environment) as process:
                shop = Shop(int(process.told["port"]), recorder, process)
                shop.get("/readyz")  # connecting asks the server some things that are no page's fault
                yield shop

    @pytest.fixture(scope="session")
    def database(self) -> Iterator[Connection]:
        """The database as it is, each statement committed at once: for facts, and to change rows and back."""
        engine = create_engine(self.task.database_url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection
        engine.dispose()

    @pytest.fixture(scope="session")
    def declared(self) -> list[str]:
        """The statements that the learner's `INDEXES` holds."""
        environment = _environment(self.task.database_url, self.task.redis_url)
        with learner(self.task.stage, "indexes", environment) as process:
            told = process.told["indexes"]
        if not isinstance(told, list) or not all(isinstance(statement, str) for statement in told):
            raise LearnerFailed(f"INDEXES must be a tuple of strings, one CREATE INDEX statement each; it is {told!r}.")
        return told

    @pytest.fixture(scope="session")
    def tables(self, declared: list[str]) -> Iterator["Tables"]:
        """The tables with the declared indexes, in a transaction that is rolled back after the last check."""
        engine = create_engine(self.task.database_url)
        with engine.connect() as connection, connection.begin() as transaction:
            for statement in declared:
                _create(connection, statement)
            yield Tables(connection, declared)
            transaction.rollback()
        engine.dispose()


@dataclass(frozen=True)
class Index:
    """An index as PostgreSQL describes it.

    Attributes:
        keys: its key columns or expressions in order, as text, with ` DESC` where so.
        included: the columns it carries besides.
        condition: of a partial index, else empty.
    """

    name: str
    table: str
    method: str
    unique: bool
    bytes: int
    keys: tuple[str, ...]
    included: tuple[str, ...]
    condition: str
    definition: str


class Tables:
    """The shop's tables with the learner's indexes on them."""

    def __init__(self, connection: Connection, declared: list[str]) -> None:
        self.connection = connection
        self.declared = declared

    def explain(self, statement: str, **parameters: Any) -> Plan:
        """Run a query and read how PostgreSQL did it. What a statement wrote is undone."""
        return explain(self.connection, statement, parameters)

    def value(self, statement: str, **parameters: Any) -> Any:
        """The first column of the first row."""
        return self.connection.scalar(text(statement), parameters)

    def indexes(self) -> list[Index]:
        """The indexes beyond those of primary keys and unique constraints."""
        rows = self.connection.execute(text(_INDEXES))
        return [
            Index(
                name=row["name"],
                table=row["table_name"],
                method=row["method"],
                unique=row["is_unique"],
                bytes=row["bytes"],
                keys=tuple(row["keys"]),
                included=tuple(row["included"]),
                condition=row["condition"],
                definition=row["definition"],
            )
            for row in rows.mappings()
        ]


_INDEXES = """
SELECT index.relname AS name, indexed.relname AS table_name, method.amname AS method,
       indisunique AS is_unique, pg_relation_size(index.oid) AS bytes,
       ARRAY(SELECT pg_get_indexdef(index.oid, place, true)
                    || CASE WHEN indoption[place - 1] & 1 = 1 THEN ' DESC' ELSE '' END
             FROM generate_series(1, indnkeyatts) AS place) AS keys,
       ARRAY(SELECT pg_get_indexdef(index.oid, place, true)
             FROM generate_series(indnkeyatts + 1, indnatts) AS place) AS included,
       coalesce(pg_get_expr(indpred, indrelid), '') AS condition,
       pg_get_indexdef(index.oid) AS definition
FROM pg_index
JOIN pg_class AS index ON index.oid = indexrelid
JOIN pg_class AS indexed ON indexed.oid = indrelid
JOIN pg_am AS method ON method.oid = index.relam
WHERE indexed.relnamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = index.oid)
ORDER BY name
"""


def _create(connection: Connection, statement: str) -> None:
    """Create an index.

    Raises:
        LearnerFailed: it is no statement of that kind, or PostgreSQL refuses it.
    """
    if not re.match(r"(\s|--[^\n]*\n)*CREATE\s+(UNIQUE\s+)?INDEX\s", statement, re.IGNORECASE):
        raise LearnerFailed(f"INDEXES holds what is not of the form CREATE INDEX name ON ...: {statement!r}")
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        refusal = str(error.orig).splitlines()[0]
        raise LearnerFailed(f"PostgreSQL refuses this statement: {' '.join(statement.split())}\n{refusal}") from None


def judge(task: Task) -> dict[str, Any]:
    """Run the checks of a task, in this process, and tell what came of each.

    Returns:
        `results`, a list with an entry for each check that ran, and `complete`: whether all of them did.
    """
    plugin = Judge(task)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    arguments = [
        "-p",
        "no:cacheprovider",
        "-p",
        "no:terminal",
        "-c",
        os.devnull,
        "--rootdir",
        str(task.tests.parent),
    ]
    code = pytest.main([*arguments, str(task.tests)], plugins=[plugin])
    complete = code in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED} and 0 < plugin.collected <= len(
        plugin.results
    )
    return {"results": plugin.results, "complete": complete}


def _result(item: pytest.Item, report: pytest.TestReport, error: BaseException | None) -> dict[str, Any]:
    title = (item.obj.__doc__ or item.name).strip().splitlines()[0]  # type: ignore[attr-defined]  # a Function has it
    result: dict[str, Any] = {"check": item.name, "title": title, "passed": report.passed}
    if isinstance(error, NotRight):
        result["finding"] = error.finding.as_dict()
    elif isinstance(error, LearnerFailed):
        result |= {"story": error.story, "trace": error.trace}
    elif error is not None:
        result |= {"story": f"{type(error).__name__}: {error}", "trace": report.longreprtext}
    return result


def _environment(database_url: str, redis_url: str) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "PATH": os.environ.get("PATH", ""), "TZ": "UTC"}
