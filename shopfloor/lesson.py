"""What a chapter imports, and all that it imports from the toolkit.

A reader of a notebook should see only lines that teach: services, seed data and cleaning up are
behind these names.
"""

import atexit
import html
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from sqlalchemy import Engine, Row, func, select, text
from sqlalchemy.orm import Session
from sqlalchemy.sql import Executable

from shopfloor import databases, dependencies, plans, stages
from shopfloor import load as load_module
from shopfloor.claims import claim
from shopfloor.compatibility import changes
from shopfloor.conformance import try_examples
from shopfloor.dependencies import note as depends_on
from shopfloor.faults import Faults, fault_proxy, latency
from shopfloor.figures import figure, label_lines, use_style
from shopfloor.load import LoadResult, Outage
from shopfloor.loopback import over_http, overhearing
from shopfloor.measure import QueryLog, compare, count_queries
from shopfloor.memory import memory_of
from shopfloor.metrics import difference, read_page, scrape, watching
from shopfloor.metrics import plot as plot_series
from shopfloor.multiplexed import multiplexed
from shopfloor.paths import material
from shopfloor.plans import Plan
from shopfloor.protobuf import messages
from shopfloor.sandbox import apart
from shopfloor.services import Services, running_services
from shopfloor.services.delivery import start_delivery
from shopfloor.services.payments import start_payments
from shopfloor.services.providers import Plan as FaultPlan
from shopfloor.services.providers import ProviderProcess
from shopfloor.services.valkey import private_valkey
from shopfloor.shared_cache import shared_cache
from shopfloor.stages import Server
from shopfloor.traces import receiving_traces, trace_of, traces_of
from shopfloor.waterfall import waterfall

__all__ = [
    "FaultPlan",
    "Faults",
    "Lesson",
    "Outage",
    "Table",
    "apart",
    "changes",
    "claim",
    "compare",
    "count_queries",
    "database",
    "delivery",
    "depends_on",
    "difference",
    "fault_proxy",
    "figure",
    "label_lines",
    "latency",
    "load",
    "memory_of",
    "messages",
    "multiplexed",
    "over_http",
    "overhearing",
    "payments",
    "plot_series",
    "read_page",
    "receiving_traces",
    "scrape",
    "serving",
    "shared_cache",
    "solution",
    "trace_of",
    "traces_of",
    "try_examples",
    "valkey",
    "watching",
    "waterfall",
]

T = TypeVar("T")

use_style()  # a chapter's plots are drawn in the book's style


class Table:
    """Rows as a reader sees them, at most the first twelve."""

    SHOWN = 12

    def __init__(self, columns: Sequence[str], rows: Sequence[Row[Any]]) -> None:
        self.columns = list(columns)
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row[Any]]:
        return iter(self.rows)

    def __getitem__(self, position: int) -> Row[Any]:
        return self.rows[position]

    @property
    def value(self) -> Any:
        """The first column of the only row."""
        (row,) = self.rows
        return row[0]

    def _cells(self) -> list[list[str]]:
        return [[_cell(value) for value in row] for row in self.rows[: self.SHOWN]]

    def _left_out(self) -> str:
        more = len(self.rows) - self.SHOWN
        return f"and {more:,} more rows" if more > 0 else ""

    def __repr__(self) -> str:
        lines = [self.columns, *self._cells()]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*shown, self._left_out()]).rstrip()

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self._cells())
        caption = f"<caption>{self._left_out()}</caption>" if self._left_out() else ""
        return f'<table class="sf-table">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


class Lesson:
    """A database of the reader's own, with the shop's seed data in it.

    Attributes:
        engine: SQLAlchemy's engine on it.
        url: where it is.
    """

    def __init__(self, clone: databases.Database) -> None:
        self._clone = clone
        self.engine: Engine = clone.engine
        self.url: str = clone.url

    def session(self) -> AbstractContextManager[Session]:
        """A session of SQLAlchemy's ORM."""
        return self._clone.session()

    def sql(self, statement: str, **parameters: Any) -> Table | None:
        """Run a statement and commit; show its rows, if it gives any.

        VACUUM and CREATE INDEX CONCURRENTLY, which refuse to run in a transaction, run as well.
        """
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            result = connection.execute(text(statement), parameters)
            return Table(list(result.keys()), result.all()) if result.returns_rows else None

    def explain(
        self,
        statement: str | Executable,
        *,
        timing: bool = False,
        planner: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> Plan:
        """Run a statement and show how PostgreSQL did it: nodes, rows and blocks. What it wrote is undone.

        Args:
            statement: the statement; `:name` stands for a parameter.
            timing: also measure times.
            planner: settings of the planner that hold for this statement alone, such as `{"enable_seqscan": "off"}`.
            **parameters: values of the parameters.
        """
        with self.engine.connect() as connection:
            for name, value in (planner or {}).items():
                connection.execute(select(func.set_config(name, value, True)))
            if not _writes(statement):
                # The first run in a session also reads the catalogue, and would count those blocks.
                plans.explain(connection, statement, parameters)
            return plans.explain(connection, statement, parameters, timing=timing)

    def count(self) -> AbstractContextManager[QueryLog]:
        """Count the statements that are sent to this database while the block runs."""
        return count_queries(self.engine)


def database(size: databases.Size = "medium") -> Lesson:
    """A fresh database with the naive shop's tables and `size` of seed data; gone when the notebook ends."""
    clone = databases.clone(_services(), size)
    atexit.register(clone.close)
    return Lesson(clone)


def solution(address: str) -> ModuleType:
    """The solution's module of a topic, such as `data/n_plus_one`, beside the naive one that `shop` holds."""
    path = material().solutions / "shop" / f"{address}.py"
    name = f"solution_{address.replace('/', '_')}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no solution {address}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def payments() -> ProviderProcess:
    """A payment provider of the reader's own, in good health; gone when the notebook ends."""
    return _ending_with_the_page(start_payments(log=_log("payments")))


def delivery() -> ProviderProcess:
    """A delivery company of the reader's own, in good health; gone when the notebook ends."""
    return _ending_with_the_page(start_delivery(log=_log("delivery")))


def valkey(*settings: str) -> str:
    """An empty Valkey of the reader's own; returns its URL. Gone when the notebook ends.

    Args:
        *settings: lines of its configuration, such as `maxmemory 2mb`.
    """
    return _ending_with_the_page(private_valkey(material().state, *settings))


@contextmanager
def serving(
    data: databases.Size | Lesson = "medium",
    *,
    workers: int = 1,
    threads: int = 8,
    settings: Mapping[str, str] | None = None,
    http2: bool = False,
    **topics: str | Sequence[str],
) -> Iterator[dict[str, Server]]:
    """Serve several stages of the shop at once, each with a Valkey and a database of its own.

    Args:
        data: the size of their seed data; or a database of the page, which they share.
        workers: how many processes serve each of them.
        threads: how many requests each process answers at once.
        settings: more of the shop's settings, by the names of their environment variables, such as
            `{"PAYMENTS_URL": payments.url}`.
        http2: serve them with a server that speaks HTTP/2 as well.
        topics: by the name that the figures will show, what each stage has solved: `"naive"`, `"solved"`
            or a list of topics.

    Yields:
        The servers by those names.
    """
    with ExitStack() as running:
        servers = {}
        for name, solved in topics.items():
            seeded = data if isinstance(data, Lesson) else running.enter_context(databases.clone(_services(), data))
            stage = stages.build(solved)
            servers[name] = running.enter_context(
                stages.serve(
                    stage,
                    database_url=seeded.url,
                    redis_url=running.enter_context(private_valkey(material().state)),
                    settings=settings,
                    workers=workers,
                    threads=threads,
                    http2=http2,
                )
            )
        yield servers


def load(
    servers: dict[str, Server],
    topic: str,
    *,
    users: int = 16,
    seconds: int = 8,
    data: object = None,
    events: Sequence[Outage] = (),
) -> LoadResult:
    """Run a topic's Locust users against each server in turn.

    Args:
        servers: what `serving` gives.
        topic: whose `load.py` it is, such as `data/indexing`.
        users: how many ask at once.
        seconds: for how long each server is asked.
        data: what the users need to know, such as whose orders to ask for; the topic's `load.py` says what.
        events: what goes wrong meanwhile, in each server's run.
    """
    users_file = material().labs / topic / "load.py"
    dependencies.note(users_file)
    return load_module.load(servers, users_file, users=users, seconds=seconds, data=data, events=events)


def _writes(statement: str | Executable) -> bool:
    return str(statement).split(maxsplit=1)[0].upper() in {"INSERT", "UPDATE", "DELETE", "MERGE"}


def _ending_with_the_page(running: AbstractContextManager[T]) -> T:
    page = ExitStack()
    atexit.register(page.close)
    return page.enter_context(running)


def _log(name: str) -> Path:
    logs = material().state / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    return logs / f"{name}.log"


@cache
def _services() -> Services:
    running = ExitStack()
    atexit.register(running.close)
    return running.enter_context(running_services())
