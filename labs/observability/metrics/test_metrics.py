"""Checks of `observability/metrics`.

They use the shop as customers, scanners and probes do, and read `/metrics` as Prometheus does. Slow and failing
requests are forced: a payment provider that hangs holds a request and its connection to the database for as long as a
check wants, and a request that finds both connections held fails. How long a request took is compared with what it
cannot have been less or more than, so a slow machine changes nothing.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from shopfloor.checks import waiting
from shopfloor.checks.logged import logged_error
from shopfloor.checks.say import NotRight, differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.metrics import Metrics, difference, read_page
from shopfloor.services.fault_plan import Plan as FaultPlan
from shopfloor.services.providers import Provider

REQUESTS, DURATION = "http_requests_total", "http_request_duration_seconds"
IN_PROGRESS, IN_USE, SIZE = "http_requests_in_progress", "db_pool_connections_in_use", "db_pool_size"
BREAKER = "circuit_breaker_state"
LISTED, ORDER = "/v1/orders", "/v1/orders/<uuid:public_id>"
PAYMENTS, PICKUP = f"{ORDER}/payments", f"{ORDER}/pickup"
NOWHERE = "/v1/orders/ffffffff-ffff-4fff-bfff-ffffffffffff"

POOL = 2
HOUR = 3600.0
FEW, MANY = 3, 9
PATIENCE = 2  # seconds, for what takes milliseconds
until = partial(waiting.until, patience=PATIENCE)
LITTLE = 0.15  # is left of it when something has been waited for in vain: then the shop is wrong already


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """A pool that two requests can hold, and for which a third waits a moment only."""
    return {"POOL_SIZE": str(POOL), "POOL_TIMEOUT_SECONDS": "0.05"}


# --- Orders, and requests ---------------------------------------------------------------------------------------------

UNPAID = """
WITH chosen AS (SELECT id FROM orders WHERE total_amount > 0 ORDER BY id LIMIT 40),
     without_payments AS (DELETE FROM payments WHERE order_id IN (SELECT id FROM chosen))
UPDATE orders SET status = 'pending' WHERE id IN (SELECT id FROM chosen) RETURNING public_id::text
"""


@pytest.fixture(scope="module")
def unpaid(database: Connection) -> Iterator[str]:
    """Orders that are still to be paid, one after another."""
    return iter(list(database.scalars(text(UNPAID))))


def show(order: str) -> Request:
    """Ask for an order."""
    return Request("GET", f"/v1/orders/{order}")


def pay(order: str) -> Request:
    """Pay for it."""
    return Request("POST", f"/v1/orders/{order}/payments")


# --- Reading ----------------------------------------------------------------------------------------------------------

in_vain: list[Shop] = []


def read(shop: Shop) -> Metrics:
    """Read the shop's metrics as Prometheus does.

    Raises:
        NotRight: there are none.
    """
    answer = shop.get("/metrics")
    if answer.status != 200:
        differs(
            did=answer.did,
            got=f"{answer.status}{logged_error(shop)}",
            expected=200,
            matters="What cannot be read is not there: no graph, and no alert.",
        )
    try:
        page = read_page(str(answer.body), openmetrics="openmetrics" in content_type(answer))
    except ValueError as error:
        differs(
            did=answer.did,
            got=f"what is not in the format that its Content-Type says: {error}",
            expected="Prometheus's text format, or OpenMetrics",
            matters="Prometheus throws away the whole page, not the line that is wrong.",
        )
    _recognise_doubles(answer, page)
    return page


def read_when(shop: Shop, wanted: Callable[[Metrics], bool]) -> Metrics:
    """Read them as soon as they are what is wanted, or after a moment whatever they are.

    The client library cannot read the file of a process that is just making it: a page that fails is asked for again.
    """
    deadline = time.monotonic() + (LITTLE if in_vain else PATIENCE)
    while time.monotonic() < deadline:
        with suppress(NotRight):
            if wanted(page := read(shop)):
                return page
        time.sleep(0.005)
    in_vain.append(shop)
    return read(shop)


def total(page: Metrics, name: str, /, **labels: str) -> float:
    """The sum of the series of that name with these labels; 0 when there is none with these labels.

    Raises:
        NotRight: there is none of that name at all.
    """
    if not page.samples(name):
        near = [other for other in page.names if other.startswith(("http", "db", "shop", "flask"))]
        differs(
            did=f"looked for {name} at /metrics, after requests had been answered",
            got=f"no series of that name; there is {', '.join(near[:5]) or 'nothing of requests or the database'}",
            expected=f"a series {name}",
            matters="Whoever is called at night looks at these names first. So do the alerts.",
        )
    return sum(sample.value for sample in page.samples(name, **labels))


def gauges(page: Metrics) -> tuple[float, float, float]:
    """Requests in progress, connections in use, and the size of the pool."""
    return total(page, IN_PROGRESS), total(page, IN_USE), total(page, SIZE)


def counted(page: Metrics, **labels: str) -> float:
    """How many requests with these labels the counter and the histogram have, if they agree.

    Raises:
        NotRight: they do not.
    """
    requests = total(page, REQUESTS, **labels)
    timed = total(page, f"{DURATION}_count", **{name: value for name, value in labels.items() if name != "status"})
    if "status" not in labels and timed != requests:
        differs(
            did=f"added up {REQUESTS} and {DURATION}_count for {labels or 'all requests'}",
            got=f"{requests:g} counted, {timed:g} timed",
            expected="as many timed as counted",
            matters="A request that is counted and not timed is often the one that failed, or the slowest.",
        )
    return requests


# --- The page ---------------------------------------------------------------------------------------------------------


def test_the_page_says_what_it_is(shop: Shop) -> None:
    """/metrics answers with the content type of a format that Prometheus reads."""
    answer = shop.get("/metrics")
    kind = content_type(answer)
    if answer.status == 200 and not re.match(r"(text/plain\b.*\bversion=|application/openmetrics-text\b)", kind):
        wrong(
            "content_type_of_a_web_page",
            did=answer.did,
            got=f"Content-Type: {kind}",
            expected="that of the format, such as prometheus_client's CONTENT_TYPE_LATEST",
        )
    read(shop)


def test_the_metrics_are_there(shop: Shop, unpaid: Iterator[str]) -> None:
    """The five metrics are there, under their names, and of the right kind."""
    shop.ask(show(next(unpaid)))
    page = read_when(shop, lambda page: bool(page.samples(REQUESTS)))
    total(page, REQUESTS)
    if page.samples(f"{DURATION}_count") and not page.samples(f"{DURATION}_bucket"):
        wrong(
            "average_only",
            did=f"looked for {DURATION} at /metrics",
            got=f"{DURATION}_sum and {DURATION}_count: an average, and nothing else",
            expected=f"a histogram: {DURATION}_bucket, how many took at most so long",
        )
    kinds = {family.name: family.type for family in page.families}
    for name in (f"{DURATION}_bucket", IN_PROGRESS, IN_USE, SIZE):
        total(page, name)
    expected = {"http_requests": "counter", DURATION: "histogram", IN_PROGRESS: "gauge", IN_USE: "gauge", SIZE: "gauge"}
    for name, kind in expected.items():
        if kinds.get(name) != kind:
            differs(
                did=f"read the type of {name} at /metrics",
                got=kinds.get(name, "none"),
                expected=kind,
                matters="What only grows is a counter, and rate() takes its falling for a restart; what rises and falls"
                " is a gauge.",
            )


def test_the_breaker_is_still_there(shop: Shop) -> None:
    """What another module counts is still at /metrics."""
    _expect_breaker(read(shop), "the breaker's gauge at /metrics")


# --- How many series --------------------------------------------------------------------------------------------------


def test_ids_make_no_series(shop: Shop, unpaid: Iterator[str]) -> None:
    """However many orders are asked for, they are one series."""
    orders = [next(unpaid) for _ in range(MANY)]
    pages = _after_each(shop, [show(order) for order in orders])
    for order in orders:
        label, value = _label_with(pages[1], order)
        if label and value.startswith("/"):
            wrong(
                "raw_path_as_a_label",
                did=f"GET /v1/orders/<id> for {MANY} orders, then GET /metrics",
                got=f'a series for each, such as {label}="{value}"',
                expected=f'one series, route="{ORDER}"',
            )
        if label:
            wrong(
                "id_as_a_label",
                did=f"GET /v1/orders/<id> for {MANY} orders, then GET /metrics",
                got=f'a series for each, such as {label}="{value}"',
                expected="one series for all of them: whose order it was stands in the log",
            )
    _expect_same_series(pages, f"GET /v1/orders/<id> for {FEW} and then for {MANY} orders")
    tokens = [f"{UUID(int=number)}" for number in range(MANY)]
    pages = _after_each(shop, [Request("GET", f"/v1/orders?limit=1&customer={token}") for token in tokens])
    _expect_same_series(pages, f"GET /v1/orders?customer=<id> for {FEW} and then for {MANY} customers")


def test_unknown_paths_make_no_series(shop: Shop) -> None:
    """However many paths a scanner tries that are not there, they are one series."""
    paths = [f"/wp-{number}a7/setup.php" for number in range(MANY)]
    pages = _after_each(shop, [Request("GET", path) for path in paths])
    for path in paths:
        label, value = _label_with(pages[1], path)
        if label:
            wrong(
                "unmatched_paths_as_they_come",
                did=f"GET of {MANY} paths that are not there, then GET /metrics",
                got=f'a series for each, such as {label}="{value}"',
                expected="one series for all of them, under one value of route",
            )
    _expect_same_series(pages, f"GET of {FEW} and then of {MANY} paths that are not there")


def test_methods_make_no_series(shop: Shop) -> None:
    """However many methods a client makes up, they are one series."""
    methods = [f"BREW{number}" for number in range(MANY)]
    pages = _after_each(shop, [Request(method, "/v1/products") for method in methods])
    for method in methods:
        label, value = _label_with(pages[1], method)
        if label:
            wrong(
                "any_method_is_a_label",
                did=f"{MANY} requests with methods that HTTP does not know, then GET /metrics",
                got=f'a series for each, such as {label}="{value}"',
                expected="one series for all of them, under one value of method",
            )
    _expect_same_series(pages, f"{FEW} and then {MANY} methods that HTTP does not know")


def test_probes_are_no_traffic(shop: Shop) -> None:
    """Requests for /metrics, /livez and /readyz are not counted among those of users."""
    before = read(shop)
    for path in ("/livez", "/readyz", "/metrics"):
        shop.get(path)
    time.sleep(0.02)  # what is counted late would be missed; nothing fails that should not
    happened = difference(before, read(shop))
    if total(happened, REQUESTS) or total(happened, f"{DURATION}_count"):
        wrong(
            "probes_are_traffic",
            did="GET /livez, /readyz and /metrics, and no request of a user",
            got=f"{total(happened, REQUESTS):g} requests counted",
            expected="none: probes are many, quick and well, and hide what users meet",
        )


# --- What is counted --------------------------------------------------------------------------------------------------


def test_every_answer_is_counted(shop: Shop, unpaid: Iterator[str]) -> None:
    """Each request is counted and timed once, under its method, the rule of its route, and the status of its answer."""
    order = next(unpaid)
    asked = [
        (show(order), ORDER),
        (show(order), ORDER),
        (Request("GET", "/v1/orders?limit=1"), LISTED),
        (Request("GET", NOWHERE), ORDER),
        (Request("GET", "/v1/orders?limit=none"), LISTED),
        (Request("POST", f"/v1/orders/{order}/pickup"), PICKUP),
        (Request("DELETE", "/v1/orders"), None),
        (Request("GET", "/v1/nothing"), None),
    ]
    before = read(shop)
    answers = [(request, rule, shop.ask(request).status) for request, rule in asked]
    page = read_when(shop, lambda page: total(difference(before, page), REQUESTS) >= len(asked))
    happened = difference(before, page)
    _recognise_lost_failures(happened, [status for *_, status in answers])
    _recognise_hidden_status(happened)
    expected = Counter((request.method, rule, str(status)) for request, rule, status in answers if rule)
    for (method, rule, status), count in expected.items():
        labels = {"method": method, "route": rule, "status": status}
        _expect_count(happened, count, **labels)
    for (method, status), count in Counter((request.method, str(status)) for request, _, status in answers).items():
        _expect_count(happened, count, method=method, status=status)
    for (method, rule), count in Counter((request.method, rule) for request, rule, _ in answers if rule).items():
        counted(happened, method=method, route=rule)
        _expect_count(happened, count, method=method, route=rule)


# --- While two payments hang ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hang:
    """What the metrics were while the provider held two payments, one of which had lost its client, and afterwards.

    Attributes:
        idle: before it.
        during: while both hung.
        refused: the answer to a request that found both connections held.
        full: after that answer, while both still hung.
        after: when both had ended.
        least: how many seconds the two payments cannot have taken less than, together.
        most: how many not more.
    """

    idle: Metrics
    during: Metrics
    refused: Answer
    full: Metrics
    after: Metrics
    least: float
    most: float

    @property
    def happened(self) -> Metrics:
        """In all."""
        return difference(self.idle, self.after)


@pytest.fixture(scope="module")
def hang(shop: Shop, providers: dict[str, Provider], unpaid: Iterator[str]) -> Hang:
    """Two payments hang at the provider; meanwhile a third request fails, and somebody sets the clock on by an hour."""
    payments, requests = providers["payments"], [pay(next(unpaid)) for _ in range(POOL)]
    idle = read_when(shop, lambda page: gauges(page)[:2] == (0, 0))
    payments.plan = FaultPlan(rates={"hang": 1})
    payments.forget()
    began = time.monotonic()
    with ThreadPoolExecutor(1) as thread:
        try:
            paying = thread.submit(shop.ask, requests[0])
            with shop.asking(requests[1]):
                until(lambda: payments.counts().now == POOL)
                during = read_when(shop, lambda page: gauges(page) == (POOL, POOL, POOL))
                refused = shop.ask(show(next(unpaid)))
                full = read_when(shop, lambda page: gauges(page) == (POOL, POOL, POOL))
            shop.turn_clock(HOUR)
            released = time.monotonic()
        finally:
            payments.plan = FaultPlan()
        paying.result()
    after = read_when(
        shop,
        lambda page: total(difference(idle, page), f"{DURATION}_count") > POOL and gauges(page)[:2] == (0, 0),
    )
    least = sum(released - received.at for received in payments.received())
    return Hang(idle, during, refused, full, after, least, POOL * (time.monotonic() - began))


def test_what_is_under_way_shows(hang: Hang) -> None:
    """http_requests_in_progress says how many requests are under way, and goes back however they end."""
    idle, during, full, after = (total(page, IN_PROGRESS) for page in (hang.idle, hang.during, hang.full, hang.after))
    if idle > 0:
        wrong(
            "stays_up_after_an_error",
            did=f"{IN_PROGRESS}, when nothing was under way and some requests had ended with an error",
            got=f"{idle:g}",
            expected="0: a request that fails has ended, too",
        ) if idle > 1 else differs(
            did=f"{IN_PROGRESS}, when nobody but /metrics was asked",
            got=f"{idle:g}",
            expected="0: reading the metrics is no request of a user",
            matters="A gauge that is never 0 hides the one request that hangs.",
        )
    if during != POOL:
        differs(
            did=f"{IN_PROGRESS}, while {POOL} payments hung at the provider",
            got=f"{during:g}",
            expected=POOL,
            matters="A request that hangs has not ended and is in no other figure: this gauge is all that shows it.",
        )
    if full != POOL:
        wrong(
            "stays_up_after_an_error",
            did=f"{IN_PROGRESS}, while {POOL} payments hung and another request had been answered with"
            f" {hang.refused.status}",
            got=f"{full:g}",
            expected=f"{POOL}: a request that fails has ended, too",
        )
    if after != 0:
        differs(
            did=f"{IN_PROGRESS}, after {POOL} payments had ended, one of them with its client gone",
            got=f"{after:g}",
            expected=0,
            matters="What is left behind adds up, and in a week the gauge says nothing any more.",
        )


def test_the_pool_shows(hang: Hang) -> None:
    """db_pool_connections_in_use says how many connections are held at this moment, of db_pool_size."""
    during, full = total(hang.during, IN_USE), total(hang.full, IN_USE)
    if during != POOL and full == POOL:
        wrong(
            "pool_looked_at_when_requests_end",
            did=f"{IN_USE}, while {POOL} payments held a connection each, and again after another request had failed",
            got=f"{during:g}, and then {full:g}",
            expected=f"{POOL} from the beginning: when all hang, no request ends",
        )
    for page, expected, when in (
        (hang.during, POOL, f"while {POOL} payments held a connection each"),
        (hang.full, POOL, "when a request had waited for a connection in vain"),
        (hang.after, 0, "when all had ended"),
    ):
        if total(page, IN_USE) != expected:
            differs(
                did=f"{IN_USE}, {when}",
                got=f"{total(page, IN_USE):g}",
                expected=expected,
                matters="A pool that is full is seen here minutes before the first request fails for it.",
            )
    if total(hang.during, SIZE) != POOL:
        differs(
            did=f"{SIZE}, with POOL_SIZE={POOL}",
            got=f"{total(hang.during, SIZE):g}",
            expected=POOL,
            matters="Whether 8 connections in use are many depends on how many there are.",
        )


def test_failures_are_counted(hang: Hang) -> None:
    """A request that ends with a 500 is counted and timed as one."""
    status = str(hang.refused.status)
    if status != "500":
        differs(
            did=f"{hang.refused.did}, while all connections to the database were held",
            got=status,
            expected=500,
            matters="Measuring changes no answer.",
        )
    found = total(hang.happened, REQUESTS, method="GET", route=ORDER, status="500")
    timed = total(hang.happened, f"{DURATION}_count", method="GET", route=ORDER)
    if (found, timed) != (1, 1):
        differs(
            did=f"{hang.refused.did}, which found no connection to the database and was answered with 500",
            got=f'{found:g} counted as {REQUESTS}{{route="{ORDER}",status="500"}}, {timed:g} timed',
            expected="1 and 1",
            matters="An error rate without the worst errors is 0 during an outage.",
        )


def test_durations_are_seconds(hang: Hang) -> None:
    """The histogram adds up the seconds that requests took, from beginning to end, whatever the clock says."""
    labels = {"method": "POST", "route": PAYMENTS}
    count = total(hang.happened, f"{DURATION}_count", **labels)
    if count != POOL:
        differs(
            did=f"{POOL} payments, one of which had lost its client when it ended",
            got=f"{count:g} timed",
            expected=POOL,
            matters="The requests that nobody waited for to the end are the slow ones.",
        )
    seconds = total(hang.happened, f"{DURATION}_sum", **labels)
    did = f"{POOL} payments that took between {hang.least:.2f} and {hang.most:.2f} s together; {DURATION}_sum"
    if hang.least <= seconds / 1000 <= hang.most:
        wrong("milliseconds", did=did, got=f"{seconds:.1f}", expected="their seconds, as the name says")
    if hang.least <= seconds - POOL * HOUR <= hang.most:
        wrong(
            "time_of_day",
            did=f"{did}, with the clock set on by an hour meanwhile",
            got=f"{seconds:.1f}",
            expected="their seconds: how late it is has no part in how long something takes",
        )
    if not hang.least <= seconds <= hang.most:
        differs(
            did=did,
            got=f"{seconds:.3f}",
            expected="what they took, waiting included",
            matters="A latency that leaves out the waiting is good while users give up.",
        )


def test_buckets_fit(hang: Hang) -> None:
    """The buckets tell 10 ms from 100 ms, that from 1 s, and that from a hang of 3 s."""
    bounds = sorted({float(sample.labels["le"]) for sample in hang.after.samples(f"{DURATION}_bucket")})
    finite = [bound for bound in bounds if bound < float("inf")]
    did, shown = f"the bounds of {DURATION}'s buckets", ", ".join(f"{bound:g}" for bound in finite)
    if finite and finite[0] >= 1:
        wrong(
            "buckets_of_milliseconds",
            did=did,
            got=f"{shown}: everything up to {finite[0]:g} s is in the first",
            expected="seconds: some bounds below a tenth of one, and some above one",
        )
    for low, high in ((0.01, 0.1), (0.1, 1), (1, 3), (3, float("inf"))):
        if not any(low <= bound < high for bound in finite):
            between = f"above {low:g} s" if high == float("inf") else f"from {low:g} s on and below {high:g} s"
            differs(
                did=did,
                got=shown,
                expected=f"one {between}",
                matters="What is in one bucket is one to every percentile, and what is in the last has no upper end.",
            )
    for bound in finite:
        inside = total(hang.happened, f"{DURATION}_bucket", le=_le(hang.after, bound), method="POST", route=PAYMENTS)
        if inside and bound < hang.least / (2 * POOL):
            differs(
                did=f"{POOL} payments that took {hang.least:.2f} s at least together; the bucket up to {bound:g} s",
                got=f"{inside:g} of them",
                expected=0,
                matters="Percentiles are read from the buckets alone.",
            )


# --- Several workers --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workers:
    """What two workers with one folder told.

    Attributes:
        calm: each of them, after the first had answered two requests and the second one.
        busy: each of them, while a payment hung in each.
        left: the second, after the first had been killed.
        end: the second, after its own payment had ended.
    """

    calm: tuple[Metrics, Metrics]
    busy: tuple[Metrics, Metrics]
    left: Metrics
    end: Metrics


@pytest.fixture(scope="module")
def workers(start: Callable[..., Any], providers: dict[str, Provider], unpaid: Iterator[str]) -> Workers:
    """Two workers of one shop, of which the first is killed while it answers."""
    payments, order = providers["payments"], next(unpaid)
    with TemporaryDirectory() as folder, ExitStack() as stack, ExitStack() as first:
        both = tuple(each.enter_context(start(PROMETHEUS_MULTIPROC_DIR=folder)) for each in (first, stack))
        for worker in (both[0], *both):
            worker.ask(show(order))
        # counting after the answer has gone is right, too, and so is timing after counting
        timed = f"{DURATION}_count"
        calm = tuple(
            read_when(worker, lambda page: total(page, REQUESTS) == 3 and total(page, timed) >= 3) for worker in both
        )
        payments.plan = FaultPlan(rates={"hang": 1})
        payments.forget()
        try:
            for worker in both:
                stack.enter_context(worker.asking(pay(next(unpaid))))
            until(lambda: payments.counts().now == 2)
            busy = tuple(read_when(worker, lambda page: gauges(page) == (2, 2, 2 * POOL)) for worker in both)
            first.close()
            left = read_when(both[1], lambda page: gauges(page) == (1, 1, POOL))
        finally:
            payments.plan = FaultPlan()
        end = read_when(both[1], lambda page: gauges(page) == (0, 0, POOL))
        return Workers((calm[0], calm[1]), (busy[0], busy[1]), left, end)


def test_workers_count_together(workers: Workers) -> None:
    """Whichever of two workers is asked, it tells how many requests both have answered."""
    found = [total(page, REQUESTS, method="GET", route=ORDER, status="200") for page in workers.calm]
    did = "two requests to one worker and one to another, with one PROMETHEUS_MULTIPROC_DIR; then /metrics of each"
    if found == [2, 1]:
        wrong(
            "figures_of_one_worker",
            did=did,
            got="2 from the one and 1 from the other: each tells its own",
            expected="3 from either: Prometheus meets whichever is free",
        )
    timed = [total(page, f"{DURATION}_bucket", le=_le(page, float("inf")), route=ORDER) for page in workers.calm]
    if found != [3, 3] or timed != [3, 3]:
        differs(
            did=did,
            got=f"{found[0]:g} and {found[1]:g} counted, {timed[0]:g} and {timed[1]:g} timed",
            expected="3 from either",
            matters="A counter that jumps from scrape to scrape has a rate that was never there.",
        )
    _expect_breaker(workers.calm[0], "the breaker's gauge at /metrics, with PROMETHEUS_MULTIPROC_DIR")


def test_workers_gauges_add_up(workers: Workers) -> None:
    """Whichever is asked, it tells what is under way and held in both."""
    for page in workers.busy:
        progress, used, size = gauges(page)
        if (progress, used, size) == (2, 1, POOL):
            wrong(
                "pool_of_the_worker_that_answers",
                did=f"{IN_USE} and {SIZE}, while a payment hung in each of two workers",
                got=f"{used:g} of {size:g}: those of the worker that was asked",
                expected=f"2 of {2 * POOL}: those of both, as all other figures",
            )
        if (progress, used, size) != (2, 2, 2 * POOL):
            differs(
                did=f"{IN_PROGRESS}, {IN_USE} and {SIZE}, while a payment hung in each of two workers",
                got=f"{progress:g}, {used:g} and {size:g}",
                expected=f"2, 2 and {2 * POOL}: the sum of both",
                matters="Half of what is held is not half as bad: it is half of the truth.",
            )


def test_the_dead_leave_their_counts_alone(workers: Workers) -> None:
    """Of a worker that was killed the counts stay, and nothing is under way or held."""
    did = "killed one of two workers while a payment hung in each; then /metrics of the other"
    found = total(workers.left, REQUESTS, method="GET", route=ORDER, status="200")
    if found < 3:
        wrong(
            "counters_fall",
            did=did,
            got=f"{found:g} orders shown, of which there were 3 before",
            expected="3: what has been counted has happened",
        )
    if gauges(workers.left) != (1, 1, POOL):
        processes = {sample.labels.get("pid") for sample in workers.left.samples(IN_PROGRESS)} - {None}
        progress, used, size = gauges(workers.left)
        got = f"{progress:g} in progress, {used:g} of {size:g} connections in use"
        expected = f"1 in progress, 1 of {POOL} connections in use: those of the living"
        if len(processes) > 1:
            wrong("gauge_for_every_process", did=did, got=f"{got}, in a series for each pid", expected=expected)
        if gauges(workers.left) == gauges(workers.busy[1]):
            wrong("the_dead_go_on_working", did=did, got=got, expected=expected)
        differs(did=did, got=got, expected=expected, matters="The pool of a process that is gone is no pool.")
    if gauges(workers.end) != (0, 0, POOL):
        progress, used, size = gauges(workers.end)
        differs(
            did="had the payment of the other end, too",
            got=f"{progress:g} in progress, {used:g} of {size:g} connections in use",
            expected=f"0 in progress, 0 of {POOL} connections in use",
            matters="What is left behind adds up, and in a week the gauge says nothing any more.",
        )


# --- What they have in common -----------------------------------------------------------------------------------------


def content_type(answer: Answer) -> str:
    """As the header has it."""
    return answer.headers.get("content-type", "none")


def _after_each(shop: Shop, requests: list[Request]) -> tuple[Metrics, Metrics]:
    """The metrics after a few requests, and after all of them."""
    pages = []
    for some in (requests[:FEW], requests[FEW:]):
        before = read(shop)
        for request in some:
            shop.ask(request)
        pages.append(read_when(shop, lambda page, before=before, some=some: _grown(before, page) >= len(some)))
    return pages[0], pages[1]


def _grown(before: Metrics, page: Metrics) -> float:
    return total(difference(before, page), REQUESTS)


def _label_with(page: Metrics, wanted: str) -> tuple[str, str]:
    """The first label of any series whose value contains this, with the value; nothing where there is none."""
    for family in page.families:
        for sample in family.samples:
            for label, value in sample.labels.items():
                if wanted in value:
                    return label, value
    return "", ""


def _expect_same_series(pages: tuple[Metrics, Metrics], did: str) -> None:
    few, many = (Counter(sample.name for family in page.families for sample in family.samples) for page in pages)
    for name, count in many.items():
        if count > few[name]:
            differs(
                did=did,
                got=f"{few[name]} and then {count} series {name}",
                expected=f"{few[name]} both times",
                matters="Each series costs memory in the shop and in Prometheus for as long as the process lives.",
            )


def _expect_count(happened: Metrics, expected: int, **labels: str) -> None:
    found = total(happened, REQUESTS, **labels)
    if found != expected:
        shown = ", ".join(f'{name}="{value}"' for name, value in labels.items())
        differs(
            did=f"eight requests, of which {expected} fit {REQUESTS}{{{shown}}}",
            got=f"{found:g} counted",
            expected=expected,
            matters="Rates and shares are computed from these counts, and alerts from those.",
        )


def _expect_breaker(page: Metrics, did: str) -> None:
    if not page.samples(BREAKER, dependency="payments"):
        wrong(
            "only_its_own_registry",
            did=f"looked for {did}",
            got=f"no series {BREAKER}",
            expected="it is there: every module of the shop counts on the library's default registry",
        )


def _recognise_doubles(answer: Answer, page: Metrics) -> None:
    series = Counter(
        (sample.name, tuple(sorted(sample.labels.items()))) for family in page.families for sample in family.samples
    )
    doubles = sorted({name for (name, _), count in series.items() if count > 1})
    if doubles:
        wrong(
            "exported_twice",
            did=answer.did,
            got=f"the same series twice on one page: {', '.join(doubles[:3])}",
            expected="each series once",
        )


def _recognise_lost_failures(happened: Metrics, statuses: list[int]) -> None:
    found, well = total(happened, REQUESTS), sum(status < 400 for status in statuses)
    if found == well < len(statuses):
        wrong(
            "failures_are_not_counted",
            did=f"{len(statuses)} requests, of which {len(statuses) - well} were answered with an error",
            got=f"{found:g} counted: those that went well",
            expected=f"{len(statuses)}",
        )


def _recognise_hidden_status(happened: Metrics) -> None:
    values = {sample.labels.get("status", "") for sample in happened.samples(REQUESTS) if sample.value}
    if not all(re.fullmatch(r"\d{3}", value) for value in values):
        wrong(
            "all_errors_are_one",
            did="requests that were answered with 200, 400, 404, 405 and 409; the label status of their series",
            got=", ".join(f'"{value}"' for value in sorted(values)),
            expected="the status code of each: an error of the caller is none of the shop's",
        )


def _le(page: Metrics, bound: float) -> str:
    """How the page writes a bound."""
    return next(
        sample.labels["le"] for sample in page.samples(f"{DURATION}_bucket") if float(sample.labels["le"]) == bound
    )
