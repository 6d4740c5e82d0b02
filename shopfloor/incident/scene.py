"""The scene of a drill: a shop that serves its users, its providers, and all that watches them."""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from shopfloor import databases, metrics, stages
from shopfloor.databases import Database
from shopfloor.errors import UserError
from shopfloor.incident.evidence import Evidence, Interval
from shopfloor.metrics import Metrics
from shopfloor.paths import material
from shopfloor.services import running_services
from shopfloor.services.delivery import start_delivery
from shopfloor.services.fault_plan import Plan
from shopfloor.services.payments import start_payments
from shopfloor.services.process import Child, log_tail, start_child
from shopfloor.services.providers import ProviderProcess
from shopfloor.services.valkey import private_valkey
from shopfloor.stages import Server, Stage
from shopfloor.traces import TraceReceiver, receiving_traces, traces_of

USERS = Path(__file__).with_name("users.py")
USUAL = {"payments": Plan(latency=0.12, sigma=0.3), "delivery": Plan(latency=0.03, sigma=0.3)}
"""How the providers are when they are well: to take money takes longer than to look up a price."""

USER_COUNT = 8
RECENT_SPANS = 20_000
SETTINGS = {"READ_TIMEOUT_SECONDS": "1", "DEADLINE_SECONDS": "2", "OTEL_BSP_SCHEDULE_DELAY": "200"}

IDS = {
    "products": "SELECT public_id FROM products JOIN stock ON product_id = id"
    " WHERE withdrawn_at IS NULL AND on_hand > reserved + 50 ORDER BY id LIMIT 200",
    "customers": "SELECT public_id FROM customers ORDER BY id LIMIT 500",
    "orders": "SELECT public_id FROM orders WHERE EXISTS (SELECT FROM order_items WHERE order_id = orders.id)"
    " ORDER BY id DESC LIMIT 200",
}
BUSIEST = """
SELECT c.public_id FROM customers c JOIN orders o ON o.customer_id = c.id GROUP BY c.id ORDER BY count(*) DESC LIMIT 1
"""


@dataclass(frozen=True)
class Scene:
    """A running drill.

    Attributes:
        database: the shop's.
        payments: the provider that takes money.
        delivery: the carrier.
        server: the shop.
    """

    database: Database
    payments: ProviderProcess
    delivery: ProviderProcess
    server: Server
    _receiver: TraceReceiver
    _readings: list[Metrics]

    def read(self) -> Metrics:
        """Read the shop's metrics now."""
        self._readings.append(metrics.scrape(f"{self.server.url}/metrics"))
        return self._readings[-1]

    def begin(self) -> None:
        """Forget what was seen so far: from here on it is the present."""
        self._receiver.clear()
        self.read()

    def evidence(self, *, healthy: Interval) -> Evidence:
        """What can be seen of the time since `begin`, or of its last half minute.

        Args:
            healthy: the metrics of the time before.
        """
        last = self.read()
        recent = [reading for reading in self._readings[:-1] if reading.at >= last.at - 30]
        first = recent[0] if recent else self._readings[-2]
        newest = [trace for trace in traces_of(self._receiver.spans) if trace.root.kind == "server"]
        return Evidence(healthy, Interval.between(first, last), newest, self.server.log)


@contextmanager
def playing(
    files: Mapping[str, Path], settings: Mapping[str, str], exporters: int, say: Callable[[str], None]
) -> Iterator[Scene]:
    """Run a solved shop with its providers, its users and what watches them, while the block runs.

    Args:
        files: topics whose file is another than the solution's.
        settings: of the shop, beyond the usual.
        exporters: how many customers' programs fetch their history over and over.
        say: told what takes long.

    Raises:
        UserError: something of it does not start.
    """
    with ExitStack() as running:
        logs = Path(running.enter_context(tempfile.TemporaryDirectory()))
        say("starting the services")
        services = running.enter_context(running_services(progress=say))
        database = running.enter_context(databases.clone(services, "medium", progress=say))
        payments = running.enter_context(start_payments(log=logs / "payments.log"))
        delivery = running.enter_context(start_delivery(log=logs / "delivery.log"))
        payments.plan, delivery.plan = USUAL["payments"], USUAL["delivery"]
        receiver = running.enter_context(receiving_traces(RECENT_SPANS))
        given = SETTINGS | {
            "REDIS_URL": running.enter_context(private_valkey(material().state)),
            "PAYMENTS_URL": payments.url,
            "DELIVERY_URL": delivery.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        }
        say("starting the shop")
        server = running.enter_context(
            stages.serve(_stage(files), database_url=database.url, settings=given | dict(settings))
        )
        say("letting its users in")
        running.enter_context(_users(server.url, logs, _data(database, exporters)))
        yield Scene(database, payments, delivery, server, receiver, [])


def _stage(files: Mapping[str, Path]) -> Stage:
    """The solved shop with some files replaced."""
    contents = {topic: path.read_bytes() for topic, path in (stages.solved_topics() | dict(files)).items()}
    return stages.build_with(contents)


def _data(database: Database, exporters: int) -> dict[str, Any]:
    with database.engine.connect() as connection:
        ids = {kind: [str(key) for key in connection.scalars(text(query))] for kind, query in IDS.items()}
        busiest = str(connection.scalar(text(BUSIEST)))
    return {**ids, "busiest": busiest, "exporters": exporters}


@contextmanager
def _users(url: str, logs: Path, data: Mapping[str, Any]) -> Iterator[Child]:
    """Let them in: they come back for as long as the block runs."""
    (logs / "data.json").write_text(json.dumps(data))
    users = USER_COUNT + int(data["exporters"])
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary", "--loglevel", "ERROR"]
    command += ["-f", str(USERS), "--host", url, "-u", str(users), "-r", str(users), "--stop-timeout", "0"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(logs), "SHOPFLOOR_LOAD_DATA": str(logs / "data.json")}
    with start_child(command, log=logs / "users.log", env=environment, cwd=logs) as child:
        yield child


def let_pass(seconds: float, users: Child | None = None) -> None:
    """Let the users go on for a while."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if users is not None and users.poll() is not None:
            raise UserError(f"The users of the drill ended.\n{log_tail(users.log)}")
        time.sleep(min(0.1, left))
