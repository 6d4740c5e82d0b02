"""What can be wrong with the shop in a drill.

Each fault is put into a shop that is solved otherwise. What it looks like from outside is not written here as a story:
`shows` is tested against the running shop, with the fault and without.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import text

from shopfloor.incident.evidence import (
    Evidence,
    calls,
    most_common_path,
    seconds_before_statements,
    statements,
)
from shopfloor.incident.scene import SETTINGS, USUAL, Scene
from shopfloor.paths import material
from shopfloor.services.fault_plan import Plan


def _mistake(address: str, name: str) -> dict[str, Path]:
    """A lab's shipped mistake in place of the topic's solution."""
    return {address: material().labs / address / "mistakes" / f"{name}.py"}


def _naive(address: str) -> dict[str, Path]:
    """The shop's first version of a topic in place of its solution."""
    return {address: material().labs / "shop" / f"{address}.py"}


def _nothing(_: Scene) -> None:
    """The fault is there from the start."""


@dataclass(frozen=True)
class Fault:
    """A cause of an incident.

    Attributes:
        name: for tests and logs.
        cause: as the learner names it.
        fastest: which evidence shows it fastest, and what to see there.
        shows: whether that evidence is there.
        files: topics whose file is another than the solution's.
        settings: of the shop, beyond the usual.
        exporters: how many customers' programs fetch their history over and over.
        begin: puts it in, when the shop has been well for a while.
    """

    name: str
    cause: str
    fastest: str
    shows: Callable[[Evidence], bool]
    files: Mapping[str, Path] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    exporters: int = 0
    begin: Callable[[Scene], None] = _nothing


USUAL_SECONDS = USUAL["payments"].latency
PATIENCE_SECONDS = float(SETTINGS["DEADLINE_SECONDS"])
HISTORY = "/v1/customers/<uuid:public_id>/orders"
ORDERS = "/v1/orders"
PAY = "/v1/orders/<uuid:public_id>/payments"
QUOTES = "/v1/orders/<uuid:public_id>/delivery-quotes"
BESTSELLERS = "/v1/bestsellers"


def _drop_index(scene: Scene) -> None:
    with scene.database.engine.begin() as connection:
        connection.execute(text("DROP INDEX orders_customer_history_idx"))


def _one_statement_takes_it_all(evidence: Evidence) -> bool:
    """In most histories one statement takes more than twice as long as all the others.

    It is not held against the whole request, of which Python's share grows when the machine is busy.
    """
    traces = evidence.traces_of(HISTORY)
    durations = [sorted(span.duration for span in statements(trace)) for trace in traces]
    slow = [each for each in durations if each and each[-1] > 2 * sum(each[:-1])]
    return len(slow) > len(traces) / 2


def _computed_again_and_again(evidence: Evidence) -> bool:
    """More than one request in five computes the bestsellers."""
    traces = evidence.traces_of(BESTSELLERS)
    return sum(bool(statements(trace)) for trace in traces) > len(traces) / 5


def _delivery_hangs(scene: Scene) -> None:
    scene.delivery.plan = Plan(rates={"hang": 1.0})


def _only_quotes_fail_and_late(evidence: Evidence) -> bool:
    """Delivery quotes have errors, no other route does, and the errors come as late as the shop's patience is long."""
    failing = [route for route in evidence.now.routes() if route.errors]
    return [route.name.endswith(QUOTES) for route in failing] == [True] and failing[0].p95 > PATIENCE_SECONDS / 2


def _slow_payments(scene: Scene) -> None:
    scene.payments.plan = Plan(latency=0.8, sigma=0.1)


def _time_passes_before_statements(evidence: Evidence) -> bool:
    """More than one history in ten waits longer for its first statement to begin than for all of them to be done."""
    traces = evidence.traces_of(HISTORY)
    late = [trace for trace in traces if seconds_before_statements(trace) > trace.duration / 2]
    return len(late) > len(traces) / 10


def _overloaded_payments(scene: Scene) -> None:
    scene.payments.plan = Plan(latency=0.9, capacity=1, queue=0)


def _calls_for_each_payment(evidence: Evidence) -> bool:
    traces = evidence.traces_of(PAY)
    return sum(len(calls(trace)) for trace in traces) > 2 * len(traces)


def _one_path_is_most_of_it(evidence: Evidence) -> bool:
    return most_common_path(evidence.traces_of(HISTORY))[1] > 0.5


def _statements_for_each_order(evidence: Evidence) -> bool:
    return any(len(statements(trace)) > 20 for trace in evidence.traces_of(ORDERS))


def _call_takes_it_all(evidence: Evidence) -> bool:
    """Most payments are one call of the provider, which takes much longer than it used to."""
    traces = evidence.traces_of(PAY)
    slow = [trace for trace in traces if [call.duration > 3 * USUAL_SECONDS for call in calls(trace)] == [True]]
    return len(slow) > len(traces) / 2


FAULTS = (
    Fault(
        "hanging_dependency",
        "The carrier takes calls and never answers them.",
        "Metrics: the only route with errors is the one of delivery quotes, and it fails after as long as the shop"
        " waits at most. Everything else is as it was: the bulkhead holds, and after some seconds circuit_breaker_state"
        " of delivery is not 0.",
        shows=_only_quotes_fail_and_late,
        begin=_delivery_hangs,
    ),
    Fault(
        "missing_index",
        "An index has been gone since the last migration.",
        "Traces: in a customer's history one statement takes nearly all of the time, and it is the one that looks for"
        " the orders of a customer. Metrics say which route is slow; that it is a single statement, only a trace says.",
        shows=_one_statement_takes_it_all,
        begin=_drop_index,
    ),
    Fault(
        "retry_storm",
        "The payment provider is overloaded, and each failure is repeated without a limit.",
        "Traces: a payment has several calls of the provider below it, each of them failed. Counted over all, the"
        " provider gets several times as many calls as there are payments.",
        shows=_calls_for_each_payment,
        files=_mistake("reliability/timeouts_retries", "no_budget") | _naive("reliability/circuit_breaker"),
        begin=_overloaded_payments,
    ),
    Fault(
        "pool_too_small",
        "The pool has too few connections to the database for what the shop does at once.",
        "Metrics: db_pool_connections_in_use is as high as db_pool_size. Routes that have nothing to do with each other"
        " are slow together, and in their traces time passes before a statement and not within one.",
        shows=_time_passes_before_statements,
        settings={"POOL_SIZE": "1", "BULKHEAD_SIZE": "1"},
    ),
    Fault(
        "stampede",
        "Whenever an entry of the cache expires, everyone who misses it computes it.",
        "Traces: bestsellers, which come from the cache, run their large statement again and again, several requests at"
        " the same moment. In the metrics it is but a high 95th percentile beside a low median.",
        shows=_computed_again_and_again,
        files=_mistake("data/caching", "everyone_computes"),
        settings={"CACHE_TTL_SECONDS": "0.3"},
    ),
    Fault(
        "noisy_customer",
        "One customer's program asks for more than all others together.",
        "Traces: more than half of the histories are of one and the same customer. Metrics show only that there are"
        " more of them, since a label with the customer's id would be one series a customer.",
        shows=_one_path_is_most_of_it,
        exporters=2,
    ),
    Fault(
        "n_plus_one",
        "A release brought back a query for each thing on the page.",
        "Traces: the orders page has more than a hundred small statements, one after another. None of them is slow.",
        shows=_statements_for_each_order,
        files=_naive("data/n_plus_one"),
    ),
    Fault(
        "slow_provider",
        "The payment provider has become slow.",
        "Traces: a payment consists of one call of the provider, and that takes nearly all of its time. The shop's own"
        " metrics show a slow route and no reason.",
        shows=_call_takes_it_all,
        begin=_slow_payments,
    ),
)
"""In the order in which their causes are offered."""
