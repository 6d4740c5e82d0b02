"""Runs a lab's checks with pytest, in a process that never executes a line of the learner's.

What a check may use is here: the learner's shop over HTTP with what it asks of others read off the wire, the indexes
that it declares, the providers that it calls, the database and the cache themselves.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
import redis
from sqlalchemy import Connection, create_engine, text

from shopfloor.checks.learner import LearnerFailed, Output, environment, learner
from shopfloor.checks.say import NotRight, wrong
from shopfloor.checks.shop import Shop, serving
from shopfloor.labs import BESIDE
from shopfloor.paths import material
from shopfloor.plans import Plan, explain
from shopfloor.services.delivery import Couriers
from shopfloor.services.fault_plan import Plan as FaultPlan
from shopfloor.services.payments import Charges
from shopfloor.services.providers import Provider, running
from shopfloor.traces import TraceReceiver, receiving_traces

# As `shop.database.create_indexes` wants it, which a learner's file cannot be asked: with a name.
CREATE_INDEX = re.compile(
    r"(\s|--[^\n]*\n)*CREATE\s+(UNIQUE\s+)?INDEX\s+(IF\s+NOT\s+EXISTS\s+)?\w+\s+ON\s", re.IGNORECASE
)


@dataclass(frozen=True)
class Task:
    """What is to be judged.

    Attributes:
        tests: the lab's test file.
        stage: the folder with the learner's shop.
        database_url: a database with seed data, this process's alone.
        redis_url: of a Valkey, this process's alone if the lab needs one.
        needs: what else it needs: see `shopfloor.labs.Lab`.
        to_first_failure: ask no further once a check has failed.
        part: 0 for all checks but those marked `beside`, 1 for those, which another process judges meanwhile.
    """

    tests: Path
    stage: Path
    database_url: str
    redis_url: str
    needs: tuple[str, ...] = ()
    to_first_failure: bool = False
    part: int = 0


Tell = Callable[[Mapping[str, Any]], None]


PROVIDERS: dict[str, Callable[[], Charges | Couriers]] = {"payments": Charges, "delivery": Couriers}


EXPORT_MILLISECONDS = "20"
"""How long OpenTelemetry may keep spans before it sends them; by default five seconds."""


class StartShop(Protocol):
    """Serves the learner's shop anew while a block runs."""

    def __call__(self, *solved: str, **settings: str) -> AbstractContextManager[Shop]:
        """Serve it.

        Args:
            *solved: topics whose solution it has besides what the lab's own `solved` names, for a file that must do its
                work with another topic's answer and without.
            **settings: those of its environment, beyond what the lab's own `settings` say.
        """


@dataclass(frozen=True)
class Ran:
    """What came of a command of the shop: its exit code, and what it printed."""

    code: int
    printed: str


class RunCommand(Protocol):
    """Runs one of the commands that the learner's shop adds to `flask`."""

    def __call__(self, command: str, **settings: str) -> Ran:
        """Settings are those of its environment, beyond what the lab's own `settings` say."""


class Judge:
    """The plugin: gives checks their fixtures, and tells what came of each."""

    def __init__(self, task: Task, tell: Tell) -> None:
        self.task = task
        self.outputs: list[Output] = []
        self._tell = tell

    def _output(self) -> Output:
        """Where one more process of the learner's may print."""
        self.outputs.append(Output())
        return self.outputs[-1]

    def pytest_configure(self, config: pytest.Config) -> None:
        """Have traces short: to read the source of every frame takes a tenth of a second."""
        config.option.tbstyle = "native"
        config.addinivalue_line("markers", f"{BESIDE}: judged beside the others")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Tell of checks that cannot even be collected."""
        if report.failed:
            self._tell({"broken": report.longreprtext})

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Tell which checks there are, so that none can go missing; keep those of this process."""
        self._tell({"checks": [{"check": _name(item), "title": _title(item)} for item in items]})
        items[:] = [item for item in items if (item.get_closest_marker(BESIDE) is not None) == bool(self.task.part)]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Tell the outcome of a check: of its body, or of a fixture that failed. Without a learner's process, stop."""
        outcome: Any = yield
        report = outcome.get_result()
        error = call.excinfo.value if call.excinfo else None
        if report.when == "call" or report.failed:
            self._tell({"result": _result(item, report, error)})
        if isinstance(error, LearnerFailed):
            item.session.shouldstop = "nothing is left to check"
        if report.failed and self.task.to_first_failure:
            item.session.shouldstop = "nobody asks for more"

    @pytest.fixture(scope="session")
    def settings(self) -> dict[str, str]:
        """What the shop is told besides where everything is. A lab's test file says its own."""
        return {}

    @pytest.fixture(scope="session")
    def start(
        self, settings: dict[str, str], providers: dict[str, Provider], traces: TraceReceiver | None
    ) -> StartShop:
        """Serves the learner's shop anew, for a check that wants one in its first state, or several."""
        urls = {f"{name.upper()}_URL": provider.url for name, provider in providers.items()}
        if traces:
            urls |= {"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url, "OTEL_BSP_SCHEDULE_DELAY": EXPORT_MILLISECONDS}
        task = self.task

        def start(*solved: str, **more: str) -> AbstractContextManager[Shop]:
            given = urls | settings | more
            stage = _also_solved(task.stage, solved)
            return serving(stage, task.database_url, task.redis_url, given, self._output())

        return start

    @pytest.fixture(scope="session")
    def run(self, settings: dict[str, str], providers: dict[str, Provider]) -> RunCommand:
        """Runs a command of the learner's shop, such as `settle`."""
        where = {"DATABASE_URL": self.task.database_url, "REDIS_URL": self.task.redis_url}
        urls = {f"{name.upper()}_URL": provider.url for name, provider in providers.items()}

        def run(command: str, **more: str) -> Ran:
            seen = environment(**(where | urls | settings | more))
            with learner(self.task.stage, f"command {command}", seen, self._output()) as process:
                return Ran(process.told["exit"], process.told["printed"])

        return run

    @pytest.fixture(scope="session")
    def shop(self, start: StartShop) -> Iterator[Shop]:
        """The learner's shop, one for all checks."""
        with start() as shop:
            yield shop

    @pytest.fixture(scope="session")
    def providers(self) -> Iterator[dict[str, Provider]]:
        """The outside providers that the lab needs, by name, in their first state."""
        with ExitStack() as stack:
            needed = {name: Provider(make()) for name, make in PROVIDERS.items() if name in self.task.needs}
            for provider in needed.values():
                stack.enter_context(running(provider))
            yield needed

    @pytest.fixture(scope="session")
    def traces(self) -> Iterator[TraceReceiver | None]:
        """Where the shop's spans are sent, if the lab needs it."""
        with ExitStack() as stack:
            yield stack.enter_context(receiving_traces()) if "traces" in self.task.needs else None

    @pytest.fixture
    def payments(self, providers: dict[str, Provider]) -> Provider:
        """The payment provider, in good health, without a memory of earlier checks."""
        return _recovered(providers["payments"])

    @pytest.fixture
    def delivery(self, providers: dict[str, Provider]) -> Provider:
        """The delivery company, likewise."""
        return _recovered(providers["delivery"])

    @pytest.fixture(scope="session")
    def valkey(self) -> Iterator[redis.Redis]:
        """Valkey itself, for facts, past what the shop sees of it."""
        with redis.Redis.from_url(self.task.redis_url, socket_timeout=5) as client:
            yield client

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
        with learner(self.task.stage, "indexes", environment(), self._output()) as process:
            told = process.told["indexes"]
        if not isinstance(told, list) or not all(isinstance(statement, str) for statement in told):
            raise LearnerFailed(f"INDEXES must be a tuple of strings, one CREATE INDEX statement each; it is {told!r}.")
        return told

    @pytest.fixture(scope="session")
    def refusals(self) -> dict[str, str]:
        """The mistakes that show in PostgreSQL's refusing an index, by SQLSTATE. A lab's test file says its own."""
        return {}

    @pytest.fixture(scope="session")
    def tables(self, declared: list[str], refusals: dict[str, str]) -> Iterator["Tables"]:
        """The tables with the declared indexes, in a transaction that is rolled back after the last check."""
        engine = create_engine(self.task.database_url)
        with engine.connect() as connection, connection.begin() as transaction:
            for statement in declared:
                _create(connection, statement, refusals)
            yield Tables(connection, declared)
            transaction.rollback()
        engine.dispose()


@dataclass(frozen=True)
class Index:
    """An index as PostgreSQL describes it.

    Attributes:
        keys: its key columns or expressions in order, as text, with ` DESC` where so, and ` NULLS LAST` or
            ` NULLS FIRST` where that is not the direction's own.
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
                    || (ARRAY['', ' DESC NULLS LAST', ' NULLS FIRST', ' DESC'])[1 + indoption[place - 1]]
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


def _also_solved(stage: Path, topics: Sequence[str]) -> Path:
    """The learner's shop with some solutions laid over it, in a folder beside it."""
    if not topics:
        return stage
    other = Path(tempfile.mkdtemp(dir=stage.parent, prefix="stage-"))
    shutil.copytree(stage, other, dirs_exist_ok=True)
    for topic in topics:
        shutil.copy2(material().solutions / "shop" / f"{topic}.py", other / "shop" / f"{topic}.py")
    return other


def _recovered(provider: Provider) -> Provider:
    provider.plan = FaultPlan()
    provider.forget()
    return provider


def _create(connection: Connection, statement: str, refusals: Mapping[str, str]) -> None:
    """Create an index.

    Raises:
        NotRight: PostgreSQL refuses it for a reason that is a known mistake.
        LearnerFailed: it is no statement of that kind, or PostgreSQL refuses it otherwise.
    """
    if not CREATE_INDEX.match(statement):
        raise LearnerFailed(f"INDEXES holds what is not of the form CREATE INDEX name ON ...: {statement!r}")
    driver: Any = connection.connection.driver_connection
    words = " ".join(statement.split())
    try:
        with connection.begin_nested():
            driver.execute(statement, prepare=True)  # which takes one statement: no SET rides along behind it
    except psycopg.Error as error:
        refusal = error.diag.message_primary or str(error)
        if mistake := refusals.get(error.sqlstate or ""):
            wrong(
                mistake,
                did=words,
                got=f"{refusal}: {error.diag.message_detail}",
                expected="an index that the rows allow",
            )
        raise LearnerFailed(f"PostgreSQL refuses this statement: {words}\n{refusal}") from None


def judge(task: Task, tell: Tell) -> None:
    """Run the checks of a task, in this process.

    Args:
        task: what to judge.
        tell: told `checks`, all there are; the `result` of each of its part; at the `end` how pytest ended, and
            what was printed; and what is `broken`, if the checks themselves are. Only with all of these is it complete.
    """
    if "valkey" in task.needs:
        with redis.Redis.from_url(task.redis_url) as client:
            client.flushall()  # what an earlier check has left
    plugin = Judge(task, tell)
    code = _run_pytest(task.tests, plugin)
    printed = "".join(output.text for output in plugin.outputs)
    tell({"end": code, "printed": printed, "printed_bytes": sum(output.size for output in plugin.outputs)})


def warm_up() -> None:
    """Have pytest import what it imports when it runs."""
    with tempfile.TemporaryDirectory() as folder:
        tests = Path(folder, "test_nothing.py")
        tests.write_text("def test_nothing():\n    pass\n")
        _run_pytest(tests)


PYTEST = ("--capture=no", "--assert=plain", "--import-mode=importlib", "-c", os.devnull)
NOT_NEEDED = (
    "cacheprovider", "terminal", "faulthandler", "junitxml", "doctest", "unittest", "threadexception",
    "logging",  # takes the log of the forked shop as well, so that Flask would print no traceback
)  # fmt: skip


def _run_pytest(tests: Path, *plugins: object) -> int:
    """Run a file of tests as it would run anywhere, whatever this user's environment says to pytest."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        os.environ.pop(name, None)
    sys.dont_write_bytecode = True
    without = [argument for name in NOT_NEEDED for argument in ("-p", f"no:{name}")]
    folder = str(tests.parent)  # else pytest looks at all that lies in the folders above
    where = ["--rootdir", folder, "--confcutdir", folder, str(tests)]
    return int(pytest.main([*PYTEST, *without, *where], plugins=list(plugins)))


def _name(item: pytest.Item) -> str:
    """Unlike any other's in its file."""
    return item.nodeid.partition("::")[2]


def _title(item: pytest.Item) -> str:
    return (item.obj.__doc__ or item.name).strip().splitlines()[0]  # type: ignore[attr-defined]  # a Function has it


def _result(item: pytest.Item, report: pytest.TestReport, error: BaseException | None) -> dict[str, Any]:
    result: dict[str, Any] = {"check": _name(item), "title": _title(item), "passed": report.passed}
    if isinstance(error, NotRight):
        result["finding"] = error.finding.as_dict()
    elif isinstance(error, LearnerFailed):
        result |= {"story": error.story, "trace": error.trace}
    elif error is not None:
        story = f"This check could not be finished. {type(error).__name__}: {error}"
        result |= {"story": story, "trace": report.longreprtext}
    return result
