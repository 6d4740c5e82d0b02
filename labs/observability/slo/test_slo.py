"""Checks of `observability/slo`.

They post readings that they have made up, so they know what happened, and nobody waits for a month to pass. The shop's
own counters are read only once, to see that they fit. Wherever a window ends there is a reading, so nothing has to be
guessed between two. The first check that fails is what the learner reads, so each is about one thing.
"""

import itertools
import math
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import NamedTemporaryFile
from typing import Any, NoReturn

import pytest
import yaml
from sqlalchemy import Connection, text

from shopfloor.checks.judge import StartShop
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.services.fault_plan import Plan as FaultPlan
from shopfloor.services.providers import Provider

Json = dict[str, Any]

MINUTE, HOUR, DAY = 60, 3600, 86400
NOW = 1_790_000_000
WINDOW = 28 * DAY
OBJECTIVE, LATENCY = 0.999, 0.99
PRODUCTS, ORDER = "/v1/products", "/v1/orders/<uuid:public_id>"
PROBES = ("/livez", "/readyz", "/metrics", "/slo", "/slo/rules")
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, math.inf)
QUICK, SLOW = 0.02, 2.0
OTHER = {
    "SLO_AVAILABILITY": "0.95",
    "SLO_LATENCY": "0.9",
    "SLO_LATENCY_SECONDS": "0.2",
    "SLO_WINDOW_DAYS": "7",
    "SLO_MINIMUM_REQUESTS": "1000",
}
MATTERS = "What is decided by these figures, whether to release, whom to wake, what to pay back, is decided wrongly."


# --- Making up what happened ------------------------------------------------------------------------------------------


@dataclass
class Instance:
    """A process of the shop, as its counters have it.

    Attributes:
        bounds: where its histogram's buckets end.
    """

    bounds: tuple[float, ...] = BOUNDS
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    buckets: Counter[tuple[str, float]] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    def answer(self, count: int, status: int = 200, *, route: str = PRODUCTS, seconds: float = QUICK) -> None:
        """Count some requests; none at all makes the series all the same."""
        self.requests[route, str(status)] += count
        for bound in self.bounds:
            self.buckets[route, bound] += count * (seconds <= bound)
        self.seconds[route] += count * seconds  # type: ignore[assignment]  # Counter adds what can be added

    def page(self) -> str:
        """Its metrics, as Prometheus's format has them."""
        lines = ["# TYPE http_requests_total counter"]
        for (route, status), count in self.requests.items():
            lines.append(f'http_requests_total{{method="GET",route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE http_request_duration_seconds histogram")
        for (route, bound), count in self.buckets.items():
            name = "+Inf" if math.isinf(bound) else str(bound)
            lines.append(
                f'http_request_duration_seconds_bucket{{method="GET",route="{route}",le="{name}"}} {float(count)}'
            )
        for route, seconds in self.seconds.items():
            labels = f'{{method="GET",route="{route}"}}'
            lines.append(f"http_request_duration_seconds_sum{labels} {seconds}")
            lines.append(f"http_request_duration_seconds_count{labels} {float(self.buckets[route, math.inf])}")
        lines += ["# TYPE http_requests_in_progress gauge", "http_requests_in_progress 1.0"]
        return "\n".join(lines) + "\n"


@dataclass
class Replay:
    """Readings of some instances."""

    readings: list[Json] = field(default_factory=list)

    def read(self, at: float, instance: Instance | None, name: str = "one") -> None:
        """Read one of them; None: it does not answer."""
        self.readings.append({"at": at, "instance": name, "text": instance.page() if instance else None})

    def request(self, now: float = NOW) -> Request:
        """What judges them."""
        return Request("POST", "/slo", json={"now": now, "readings": self.readings})


@dataclass(frozen=True)
class Part:
    """What some of the requests met for a while.

    Attributes:
        begin: so many seconds before now it began.
        end: so many before now it ended.
        failed: the share of requests that failed.
        slow: the share that was slow.
    """

    begin: float
    end: float
    failed: float = 0
    slow: float = 0


def month(*parts: Part, hourly: int = 12_000, until: float = 0) -> Replay:
    """Four weeks of steady traffic in which some things went wrong.

    Args:
        *parts: what; where none is, all went well.
        hourly: requests an hour.
        until: readings go on for so many seconds after now.
    """
    ages = {WINDOW, 7 * DAY, 3 * DAY, 6 * HOUR, HOUR, 30 * MINUTE, 5 * MINUTE, 0, -until}
    ages |= {age for part in parts for age in (part.begin, part.end)}
    replay, shop = Replay(), Instance()
    shop.answer(7_000)
    shop.answer(5, 500)
    shop.answer(9, seconds=SLOW)
    replay.read(NOW - max(ages), shop)
    for begin, end in _pairs(sorted(ages, reverse=True)):
        count = round(hourly * (begin - end) / HOUR)
        met = [part for part in parts if part.begin >= begin and part.end <= end]
        failed, slow = (round(count * sum(shares)) for shares in _shares(met))
        shop.answer(count - failed - slow)
        shop.answer(failed, 500)
        shop.answer(slow, seconds=SLOW)
        replay.read(NOW - end, shop)
    return replay


def _shares(parts: Sequence[Part]) -> tuple[list[float], list[float]]:
    return [part.failed for part in parts], [part.slow for part in parts]


def _pairs(ages: list[float]) -> Iterable[tuple[float, float]]:
    return itertools.pairwise(ages)


# --- Reading what came ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """What the shop says of one promise.

    Attributes:
        did: what was done, as a sentence has it.
    """

    did: str
    name: str
    fields: Json

    def number(self, name: str) -> float:
        """A figure of it.

        Raises:
            NotRight: there is none of that name.
        """
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(name, value, "a number")
        return float(value)

    def fail(self, name: str, got: object, expected: object) -> NoReturn:
        """Say that a field is not right."""
        differs(did=self.did, got=f"{self.name}, {name}: {got!r}", expected=f"{name}: {expected}", matters=MATTERS)

    def same(self, **expected: float) -> None:
        """Go on if these figures are right."""
        for name, value in expected.items():
            if not near(self.number(name), value):
                self.fail(name, self.fields[name], f"{value:.6g}")

    @property
    def alert(self) -> str | None:
        """The alert that fires."""
        alert: str | None = self.fields.get("alert")
        return alert


def near(one: float, other: float) -> bool:
    """Whether two figures are the same, but for how a computer adds."""
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-6)


def ask(shop: Shop, replay: Replay, story: str, now: float = NOW) -> Answer:
    """Have readings judged."""
    answer = shop.ask(replay.request(now))
    return Answer(f"POST /slo with {len(replay.readings)} readings: {story}", answer.status, answer.body)


def judged(shop: Shop, replay: Replay, story: str, now: float = NOW) -> tuple[Told, Told]:
    """What the shop says of availability and latency.

    Raises:
        NotRight: it does not say anything.
    """
    return told(shop, ask(shop, replay, story, now))


def told(shop: Shop, answer: Answer) -> tuple[Told, Told]:
    """Take an answer apart."""
    names = ("availability", "latency")
    body = answer.body if isinstance(answer.body, dict) else {}
    if answer.status != 200 or not all(isinstance(body.get(name), dict) for name in names):
        error = re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception)\b.*)$", shop.output, re.MULTILINE)
        got = f"{answer.status} {str(answer.body)[:200]}" + (f"; the log says {error[-1]}" if error else "")
        differs(
            did=answer.did, got=got, expected="200 and an object with `availability` and `latency`", matters=MATTERS
        )
    availability, latency = (Told(answer.did, name, body[name]) for name in names)
    _recognise_added_buckets(latency)
    return availability, latency


def _recognise_added_buckets(latency: Told) -> None:
    """More requests were good than there were."""
    good, total = latency.number("good"), latency.number("total")
    if 0 < total < good:
        wrong(
            "buckets_added_up",
            did=latency.did,
            got=f"{latency.name}, good: {good:.6g} of {total:.6g}",
            expected="at most as many as there were. A bucket already holds all that are below it",
        )


@pytest.fixture(scope="session")
def other(start: StartShop) -> Iterator[Shop]:
    """A shop that promises something else."""
    with start(**OTHER) as shop:
        yield shop


# --- Indicators -------------------------------------------------------------------------------------------------------


def test_requests_make_the_indicator(shop: Shop) -> None:
    """Availability is the share of requests that did not fail, and what customers got wrong is no failure."""
    replay, one = Replay(), Instance()
    for status in (200, 201, 304, 404, 422, 429, 500, 502, 503):
        one.answer(100, status)
    replay.read(NOW - DAY, one)
    answered = {200: 9_000, 201: 400, 304: 200, 404: 250, 422: 60, 429: 50, 500: 20, 502: 10, 503: 10}
    for status, count in answered.items():
        one.answer(count, status, route=PRODUCTS)
    replay.read(NOW, one)
    availability, latency = judged(shop, replay, "10,000 requests, 40 of them with 5xx and 360 with 4xx")
    if availability.fields.get("good") == 9_600 or availability.fields.get("total") == 9_640:
        wrong(
            "client_errors_are_failures",
            did=availability.did,
            got=f"good: {availability.fields.get('good')} of {availability.fields.get('total')}",
            expected="good: 9960 of 10000. 4xx are the shop's right answers to wrong requests",
        )
    if near(availability.number("total"), 10_900):
        wrong(
            "totals_since_the_start",
            did=availability.did,
            got="total: 10900, all that the counter has ever counted",
            expected="total: 10000, by which it has grown from the first reading to the last",
        )
    availability.same(objective=OBJECTIVE, total=10_000, good=9_960, indicator=0.996)
    latency.same(objective=LATENCY, total=10_000, good=10_000, indicator=1)


def test_probes_are_no_customers(shop: Shop) -> None:
    """Requests of probes and scrapers count for nothing."""
    replay, one = Replay(), Instance()
    for route in (PRODUCTS, "unmatched", *PROBES):
        one.answer(0, route=route)
        one.answer(0, 500, route=route)
    replay.read(NOW - DAY, one)
    one.answer(800)
    one.answer(50, 500)
    one.answer(150, 500, route="unmatched", seconds=SLOW)
    for route in PROBES:
        one.answer(10_000, route=route)
        one.answer(3, 500, route=route)
    replay.read(NOW, one)
    availability, latency = judged(shop, replay, "1,000 requests of customers, and 50,015 of probes")
    if 11_000 <= availability.number("total") <= 51_015:
        wrong(
            "probes_are_customers",
            did=availability.did,
            got=f"good: {availability.fields.get('good')} of {availability.fields.get('total')}",
            expected="good: 800 of 1000. Nobody buys anything at /livez, /readyz, /metrics or /slo",
        )
    availability.same(total=1_000, good=800, indicator=0.8)
    latency.same(total=1_000, good=850, indicator=0.85)


def test_the_first_failure_counts(shop: Shop) -> None:
    """A series that was not there before was 0."""
    replay, one = Replay(), Instance()
    one.answer(500)
    replay.read(NOW - HOUR, one)
    one.answer(900)
    one.answer(100, 503, route=ORDER, seconds=SLOW)
    replay.read(NOW, one)
    availability, latency = judged(
        shop, replay, "in the second, status 503 and another route are there for the first time"
    )
    if near(availability.number("total"), 900):
        wrong(
            "first_failure_is_lost",
            did=availability.did,
            got=f"good: {availability.fields.get('good')} of 900; the 100 failures are not among them",
            expected="good: 900 of 1000",
        )
    availability.same(total=1_000, good=900)
    latency.same(total=1_000, good=900)


def test_a_restart_takes_nothing_back(shop: Shop) -> None:
    """After a restart counters begin at 0, and what they had counted remains counted."""
    replay, one = Replay(), Instance()
    one.answer(5_000)
    one.answer(300, 500)
    replay.read(NOW - 3 * HOUR, one)
    one.answer(900)
    one.answer(100, 500)
    replay.read(NOW - 2 * HOUR, one)
    one = Instance()
    one.answer(450)
    one.answer(50, 500)
    replay.read(NOW - HOUR, one)
    one.answer(1_500)
    replay.read(NOW, one)
    availability, latency = judged(shop, replay, "3,000 requests, and a restart after the first 1,000")
    total = availability.number("total")
    if near(total, 2_000 - 5_300) or near(total, 2_500) or near(total, 0) or near(total, 1_000 + 1_500 + 500 - 6_300):
        wrong(
            "restart_is_not_seen",
            did=availability.did,
            got=f"total: {total:.6g}",
            expected="total: 3000. The counter fell from 6300 to 500: it has begun again, and 500 are new",
        )
    availability.same(total=3_000, good=2_850)
    latency.same(total=3_000, good=3_000)


def test_a_missed_reading_loses_nothing(shop: Shop) -> None:
    """When a reading is missing, the next one tells what happened meanwhile."""
    replay, one = Replay(), Instance()
    one.answer(5_000)
    one.answer(0, 500)
    replay.read(NOW - 3 * HOUR, one)
    one.answer(400)
    replay.read(NOW - 2 * HOUR, None)
    one.answer(400, 500)
    replay.read(NOW - HOUR, one)
    one.answer(200)
    replay.read(NOW, one)
    availability, _ = judged(shop, replay, "1,000 requests, and the second reading had no answer")
    if near(availability.number("total"), 6_000):
        wrong(
            "gap_is_a_restart",
            did=availability.did,
            got="total: 6000, among them the 5000 from before the first reading",
            expected="total: 1000. After the gap the counter is compared with the last reading that had an answer",
        )
    availability.same(total=1_000, good=600)


def test_hours_weigh_what_they_serve(shop: Shop) -> None:
    """An hour of the night weighs as much as it has requests."""
    replay, one = Replay(), Instance()
    one.answer(0)
    one.answer(0, 500)
    replay.read(NOW - 4 * HOUR, one)
    for hours, (served, failed) in ((3, (50, 50)), (2, (9_900, 0)), (0, (19_990, 10))):
        one.answer(served)
        one.answer(failed, 500)
        replay.read(NOW - hours * HOUR, one)
    availability, _ = judged(shop, replay, "at night 50 of 100 requests failed, by day 10 of 29,900")
    shares = (0.5, 1, 0.9995)
    if near(availability.number("indicator"), sum(shares) / 3):
        wrong(
            "minutes_weighed_alike",
            did=availability.did,
            got=f"indicator: {availability.fields['indicator']:.6g}, the average of 0.5, 1 and 0.9995",
            expected="indicator: 0.998: of 30000 requests 60 failed",
        )
    availability.same(total=30_000, good=29_940, indicator=0.998)


def test_instances_weigh_what_they_serve(shop: Shop) -> None:
    """Requests are counted over all instances, and each request weighs the same."""
    replay, big, small = Replay(), Instance(), Instance()
    for instance in (big, small):
        instance.answer(0)
        instance.answer(0, 500)
    big.answer(70_000)
    small.answer(40)
    small.answer(20, 500)
    for at, (served, failed) in ((NOW - 2 * HOUR, (0, 0)), (NOW - HOUR, (40, 20)), (NOW, (20, 20))):
        big.answer(4_950 if served else 0)
        small.answer(served)
        small.answer(failed, 500)
        replay.read(at, big, "big")
        replay.read(at + (1 if at < NOW else 0), small, "small")
    availability, _ = judged(
        shop, replay, "two instances: one served 9,900 and failed none, one served 100 and failed 40"
    )
    told_share, mean = availability.fields.get("indicator"), (1 + 0.6) / 2
    if isinstance(told_share, float) and near(told_share, mean):
        wrong(
            "instances_weighed_alike",
            did=availability.did,
            got=f"indicator: {told_share:.6g}, the average of 1 and 0.6",
            expected="indicator: 0.996: of 10000 requests 40 failed",
        )
    if availability.number("total") > 20_000:
        wrong(
            "instances_mixed_up",
            did=availability.did,
            got=f"total: {availability.fields['total']}: each change of the instance looks like a restart",
            expected="total: 10000. A counter is compared with the same instance's last reading",
        )
    availability.same(total=10_000, good=9_960, indicator=0.996)


def test_latency_counts_requests(shop: Shop) -> None:
    """Latency is the share of requests at or below the threshold."""
    replay, one = Replay(), Instance()
    one.answer(0)
    replay.read(NOW - HOUR, one)
    for count, seconds in ((500, 0.004), (300, QUICK), (100, 0.2), (60, 0.4), (40, SLOW)):
        one.answer(count, seconds=seconds)
    replay.read(NOW, one)
    _, latency = judged(shop, replay, "1,000 requests, 900 of them within 0.25 s")
    good = latency.number("good")
    if near(good, 1_000) or near(good, 0):
        wrong(
            "latency_from_the_mean",
            did=latency.did,
            got=f"good: {good:.6g} of 1000; the mean is 0.13 s",
            expected="good: 900 of 1000",
        )
    latency.same(total=1_000, good=900, indicator=0.9)


def test_a_threshold_between_two_buckets(other: Shop) -> None:
    """Between two bounds only what is certain counts as good."""
    replay, one, coarse = Replay(), Instance(), Instance(bounds=(0.25, 1.0, math.inf))
    for instance, name in ((one, "one"), (coarse, "coarse")):
        instance.answer(0)
        replay.read(NOW - HOUR, instance, name)
    for count, seconds in ((700, 0.09), (200, 0.22), (100, SLOW)):
        one.answer(count, seconds=seconds)
    replay.read(NOW, one, "one")
    replay.read(NOW, coarse, "coarse")
    story = "SLO_LATENCY_SECONDS=0.2; 700 took 0.09 s, 200 took 0.22 s, 100 took 2 s"
    _, latency = judged(other, replay, story)
    if near(latency.number("good"), 900):
        wrong(
            "bucket_above_the_threshold",
            did=latency.did,
            got="good: 900, all in the bucket up to 0.25 s",
            expected="good: 700, those up to 0.1 s. Of the bucket up to 0.25 s nobody knows how many took 0.2 s",
        )
    latency.same(total=1_000, good=700, indicator=0.7)
    coarse.answer(50)
    replay.read(NOW + HOUR, coarse, "coarse")
    _, latency = judged(other, replay, f"{story}; and of 50 it is known that they took at most 0.25 s", NOW + HOUR)
    latency.same(total=1_050, good=700)


# --- The budget -------------------------------------------------------------------------------------------------------


def test_the_budget_is_counted(shop: Shop) -> None:
    """The budget is the share of requests that may fail, and what is left of it."""
    availability, latency = judged(shop, month(Part(20 * DAY, 19 * DAY, failed=0.007, slow=0.07)), "four weeks")
    total = 12_000 * 24 * 28
    failed, slow = 0.007 * 12_000 * 24, 0.07 * 12_000 * 24
    for promise, objective in ((availability, OBJECTIVE), (latency, LATENCY)):
        if near(promise.number("budget"), total * (100 * (1 - objective))) or promise.number("budget") > total:
            wrong(
                "budget_in_percent",
                did=promise.did,
                got=f"{promise.name}, budget: {promise.fields['budget']:.6g} of {total}",
                expected=f"{total * (1 - objective):.6g}: 1 - {objective} is a share, and no percentage",
            )
    availability.same(total=total, good=total - failed, budget=total * 0.001, budget_left=1 - failed / total / 0.001)
    latency.same(total=total, good=total - slow, budget=total * 0.01, budget_left=1 - slow / total / 0.01)


def test_the_window_moves(shop: Shop, other: Shop) -> None:
    """What happened before the window is forgotten, and what has not happened yet is not known."""
    outage = Part(10 * DAY, 9 * DAY, failed=0.5)
    replay = month(Part(35 * DAY, 34 * DAY, failed=0.5), outage, until=DAY)
    hourly = 12_000
    cases = (
        (shop, NOW, "a day of failures 35 days ago, and one 10 days ago", 1, WINDOW),
        (other, NOW, "SLO_WINDOW_DAYS=7, and failures 10 days ago", 0, 7 * DAY),
        (shop, NOW - outage.begin, "judged as of the moment before the second", 1, 25 * DAY),
    )
    for at, now, story, outages, seconds in cases:
        availability, _ = judged(at, replay, story, now)
        total, failed = hourly * seconds / HOUR, outages * hourly * 12
        availability.same(total=total, good=total - failed)


def test_an_overspent_budget_is_negative(shop: Shop) -> None:
    """Whoever has spent more than the budget is told how much more."""
    availability, latency = judged(shop, month(Part(6 * DAY, 4 * DAY, failed=0.05)), "two days with 5 % of failures")
    failed = 0.05 * 12_000 * 48
    left = 1 - failed / (12_000 * 24 * 28 * 0.001)
    if near(availability.number("budget_left"), 0):
        wrong(
            "overspent_looks_like_empty",
            did=availability.did,
            got="budget_left: 0",
            expected=f"budget_left: {left:.3g}. More was spent than there was, and that much has to be made good",
        )
    availability.same(budget_left=left)
    latency.same(budget_left=1)


def test_nothing_is_no_failure(shop: Shop) -> None:
    """Without a request there is no indicator, nothing was spent, and nobody is woken."""
    silent, one = Replay(), Instance()
    one.answer(10)
    one.answer(3, 500)
    for at in (NOW - WINDOW, NOW - HOUR, NOW):
        silent.read(at, one)
    single = Replay()
    single.read(NOW, one)
    for replay, story in (
        (silent, "counters that did not change"),
        (single, "a single reading"),
        (Replay(), "none at all"),
    ):
        answer = ask(shop, replay, story)
        body = answer.body if isinstance(answer.body, dict) else {}
        shown = body.get("availability", {}).get("indicator") if answer.status == 200 else None
        if answer.status == 500 or shown is not None:
            wrong(
                "no_traffic_is_a_number",
                did=answer.did,
                got=f"status {answer.status}" if answer.status == 500 else f"indicator: {shown}",
                expected="200, and indicator: null. Of no requests there is no share",
            )
        for promise in told(shop, answer):
            promise.same(total=0, good=0, budget=0, budget_left=1)
            if promise.fields.get("indicator", 0) is not None or promise.alert is not None:
                promise.fail("indicator and alert", (promise.fields.get("indicator"), promise.alert), "null and null")


# --- Alerts -----------------------------------------------------------------------------------------------------------


def expect(told: Told, alert: str | None, matters: str) -> None:
    """Go on if this alert fires, or none."""
    if told.alert != alert:
        differs(did=told.did, got=f"{told.name}, alert: {told.alert}", expected=f"alert: {alert}", matters=matters)


def test_an_alert_knows_the_objective(shop: Shop, other: Shop) -> None:
    """The same share of failures is an emergency under one objective and allowed under another."""
    replay = month(Part(4 * DAY, 0, failed=0.03, slow=0.05))
    stories = ((other, "3 % of failures, and 95 % was promised"), (shop, "3 % of failures, and 99.9 % was promised"))
    for at, story in stories:
        availability, latency = judged(at, replay, story)
        if at is other and availability.alert == "page":
            wrong(
                "threshold_forgets_the_objective",
                did=availability.did,
                got="alert: page",
                expected="alert: null. The promise allows 5 % of failures, and it is kept",
            )
        expect(availability, "page" if at is shop else None, "Who promised less must be left to sleep.")
        expect(latency, "ticket" if at is shop else None, "5 % are too late of 1 %, and of 10 % they are allowed.")


def test_a_lone_error_wakes_nobody(shop: Shop, other: Shop) -> None:
    """With next to no traffic no share says anything."""
    replay, one = Replay(), Instance()
    one.answer(50)
    one.answer(7, 500)
    replay.read(NOW - HOUR, one)
    one.answer(2)
    replay.read(NOW - 5 * MINUTE, one)
    one.answer(1, 500)
    replay.read(NOW, one)
    availability, _ = judged(shop, replay, "3 requests in an hour, and the last one failed")
    _recognise_night(availability)
    expect(availability, None, "Whoever is woken by one failure at night soon sleeps through a real one.")
    for at, minimum in ((shop, 100), (other, 1_000)):
        for hourly in (minimum - 1, minimum):
            replay, one = Replay(), Instance()
            one.answer(0)
            one.answer(0, 500)
            replay.read(NOW - HOUR, one)
            one.answer(hourly // 10)
            replay.read(NOW - 5 * MINUTE, one)
            one.answer(hourly - hourly // 10, 500)
            replay.read(NOW, one)
            story = f"SLO_MINIMUM_REQUESTS={minimum}, and {hourly} in the last hour, nearly all of them failures"
            availability, _ = judged(at, replay, story)
            if hourly < minimum:
                _recognise_night(availability)
            expect(availability, None if hourly < minimum else "page", "The minimum is what operators have set.")


def _recognise_night(told: Told) -> None:
    if told.alert is not None:
        wrong("one_error_at_night", did=told.did, got=f"alert: {told.alert}", expected="alert: null")


def test_a_blip_wakes_nobody(shop: Shop) -> None:
    """Two bad minutes are no emergency."""
    availability, _ = judged(shop, month(Part(2 * MINUTE, 0, failed=0.3)), "30 % of failures since 2 minutes")
    if availability.alert == "page":
        wrong(
            "single_short_window",
            did=availability.did,
            got="alert: page",
            expected="alert: null. Over the hour it is 1 % of failures, which burns the budget 10 times as fast,"
            " and a page needs 14.4",
        )
    expect(availability, None, "A page for what is over before anybody has got up teaches people to ignore pages.")


def test_an_incident_pages_and_ends(shop: Shop) -> None:
    """An incident pages soon after it began, and the page ends soon after the incident."""
    incident = Part(70 * MINUTE, 40 * MINUTE, failed=0.1)
    replay = month(incident)
    during = month(Part(10 * MINUTE, 0, failed=0.2))
    availability, latency = judged(shop, during, "20 % of failures since 10 minutes")
    expect(availability, "page", "The budget of four weeks would be gone within hours.")
    expect(latency, None, "These failures came quickly.")
    availability, _ = judged(shop, replay, "10 % of failures for half an hour, and none since 40 minutes")
    if availability.alert == "page":
        wrong(
            "single_long_window",
            did=availability.did,
            got="alert: page",
            expected="alert: null. The hour behind still looks bad, and the last 5 minutes are good: it is over",
        )
    matters = "An alert that outlives its incident hides the next one."
    expect(availability, None, matters)
    short = month(Part(15 * MINUTE, 5 * MINUTE, failed=0.12))
    availability, _ = judged(shop, short, "12 % of failures for 10 minutes, and none since 5 minutes")
    expect(availability, None, matters)


def test_slow_burns_are_seen(shop: Shop) -> None:
    """A smaller leak pages after hours, and a trickle makes a ticket after days."""
    cases = (
        (Part(6 * HOUR, 0, failed=0.0065), "page", "0.65 % of failures for 6 hours, a burn rate of 6.5"),
        (Part(6 * HOUR, 35 * MINUTE, failed=0.008), None, "0.8 % of failures for hours, and none since 35 minutes"),
        (Part(6 * HOUR, 0, failed=0.0055), None, "0.55 % of failures for 6 hours: fast enough for a page it is not"),
        (Part(3 * DAY, 0, failed=0.0015), "ticket", "0.15 % of failures for 3 days, a burn rate of 1.5"),
        (Part(3 * DAY, 6 * HOUR, failed=0.0015), None, "0.15 % of failures for days, and none since 6 hours"),
        (Part(WINDOW, 0, failed=0.0008), None, "0.08 % of failures, and 0.1 % are allowed"),
    )
    for part, alert, story in cases:
        availability, _ = judged(shop, month(part), story)
        if alert == "page" and availability.alert != "page":
            wrong(
                "only_the_fast_burn",
                did=availability.did,
                got=f"alert: {availability.alert}",
                expected="alert: page. At this rate the budget of four weeks is gone in four days",
            )
        expect(availability, alert, "A leak that nobody sees empties the budget as surely as an outage.")


def test_latency_has_alerts(shop: Shop) -> None:
    """The budget of slow requests burns as that of failures does."""
    cases = (
        (Part(HOUR, 0, slow=0.3), "page", "30 % slow for an hour"),
        (Part(HOUR, 0, slow=0.1), None, "10 % slow for an hour"),
        (Part(6 * HOUR, 0, slow=0.08), "page", "8 % slow for 6 hours"),
        (Part(3 * DAY, 0, slow=0.02), "ticket", "2 % slow for 3 days"),
    )
    for part, alert, story in cases:
        availability, latency = judged(shop, month(part), story)
        expect(latency, alert, "A shop that is too slow to be used is down.")
        expect(availability, None, "Slow answers are answers.")


# --- The shop's own counters ------------------------------------------------------------------------------------------

UNPAID = """
WITH chosen AS (SELECT id FROM orders WHERE total_amount > 0 ORDER BY id LIMIT 2),
     without_payments AS (DELETE FROM payments WHERE order_id IN (SELECT id FROM chosen))
UPDATE orders SET status = 'pending' WHERE id IN (SELECT id FROM chosen) RETURNING public_id::text
"""


def test_the_shops_own_counters(shop: Shop, database: Connection, payments: Provider) -> None:
    """Readings of the shop's own page give what its customers met."""
    orders = list(database.scalars(text(UNPAID)))
    replay = Replay()

    def read(at: float) -> None:
        replay.readings.append({"at": at, "instance": "this", "text": shop.get("/metrics").body})

    read(NOW - HOUR)
    payments.plan = FaultPlan(script=("error 500",) * 20)
    asked = [shop.get("/v1/products", limit=1) for _ in range(3)]
    asked += [shop.get("/v1/nothing"), shop.get("/livez")]
    asked += [shop.ask(Request("POST", f"/v1/orders/{order}/payments")) for order in orders]
    read(NOW)
    customers = asked[:4] + asked[5:]
    failed = sum(answer.status >= 500 for answer in customers)
    assert failed
    availability, _ = judged(
        shop, replay, "before and after 3 lists of products, a 404, 2 failing payments and a probe"
    )
    availability.same(total=len(customers), good=len(customers) - failed)


# --- Rules for Prometheus ---------------------------------------------------------------------------------------------

KNOWN = {
    "up",
    "http_requests_total",
    "http_request_duration_seconds_bucket",
    "http_request_duration_seconds_count",
    "http_request_duration_seconds_sum",
}
REQUESTS, DURATION = "http_requests_total", "http_request_duration_seconds_bucket"
WORDS = {
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "inf",
    "nan",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
}
UNITS = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
PAGES, TICKETS = {5 * MINUTE, HOUR, 30 * MINUTE, 6 * HOUR}, {6 * HOUR, 3 * DAY}
ALERT_KEYS = {"alert", "expr", "for", "keep_firing_for", "labels", "annotations"}
RECORD_KEYS = {"record", "expr", "labels"}
GROUP_KEYS = {"name", "interval", "query_offset", "limit", "labels", "rules"}
RULES_MATTER = "A rule that cannot be loaded, or that names what is not there, never fires, and nobody is told."


def test_prometheus_takes_the_rules(shop: Shop, other: Shop) -> None:
    """The rules are a file that Prometheus loads, and each alert says whom it is for and what users meet."""
    did = "GET /slo/rules"
    answer = shop.get("/slo/rules")
    if answer.status != 200:
        differs(did=did, got=answer.status, expected=200, matters=RULES_MATTER)
    page = answer.body if isinstance(answer.body, str) else str(answer.body)
    rules = list(_rules(did, page))
    _promtool(did, page)
    records = {rule["record"]: rule["expr"] for rule in rules if "record" in rule}
    alerts = [rule for rule in rules if "alert" in rule]
    for rule in rules:
        unknown = _names(rule["expr"]) - KNOWN - set(records)
        if unknown:
            wrong(
                "rules_name_nothing",
                did=did,
                got=f"{rule.get('alert') or rule.get('record')} asks for {', '.join(sorted(unknown))},"
                " which no rule records and the shop does not have",
                expected=f"names among {', '.join(sorted(KNOWN - {'up'} | set(records)))}",
            )
    for rule in alerts:
        _complete(did, rule)
        _selective(did, rule, _expanded(rule["expr"], records))
    for source, promise in ((REQUESTS, "availability"), (DURATION, "latency")):
        for severity, windows in (("page", PAGES), ("ticket", TICKETS)):
            expressions = [
                _expanded(rule["expr"], records) for rule in alerts if rule["labels"]["severity"] == severity
            ]
            of_promise = [e for e in expressions if (DURATION in _names(e)) == (source == DURATION)]
            seen = {span for expression in of_promise for span in _spans(expression)}
            if missing := windows - seen:
                differs(
                    did=did,
                    got=f"of {promise}, a {severity} looks at windows of {sorted(seen)} seconds",
                    expected=f"also {sorted(missing)}",
                    matters="The short window ends an alert with its incident, the long one ignores a blip.",
                )
    if other.get("/slo/rules").body == answer.body:
        differs(
            did=f"{did} of a shop that promises 95 %, and of one that promises 99.9 %",
            got="the same rules",
            expected="thresholds that follow SLO_AVAILABILITY and SLO_LATENCY",
            matters="The rules go on alerting on a promise that nobody has made.",
        )


def _rules(did: str, page: str) -> Iterator[Json]:
    """The rules of a file, each of a form that Prometheus accepts."""

    def refuse(got: str, expected: str) -> NoReturn:
        differs(did=did, got=got, expected=expected, matters=RULES_MATTER)

    try:
        document = yaml.safe_load(page)
    except yaml.YAMLError as error:
        refuse(f"no YAML: {' '.join(str(error).split())[:200]}", "YAML")
    groups = document.get("groups") if isinstance(document, dict) else None
    if not isinstance(groups, list) or not groups or set(document) != {"groups"}:
        refuse(f"{str(document)[:100]}", "an object with a list of `groups`")
    for group in groups:
        if not isinstance(group, dict) or not set(group) <= GROUP_KEYS or not isinstance(group.get("rules"), list):
            refuse(f"a group {str(group)[:100]}", f"keys among {sorted(GROUP_KEYS)}, with a name and a list of rules")
    if len({group.get("name") for group in groups} - {None}) < len(groups):
        refuse("a group without a name, or two of one name", "a name of its own for each")
    for rule in (rule for group in groups for rule in group["rules"]):
        if problem := _problem(rule):
            refuse(*problem)
        yield rule


def _problem(rule: Any) -> tuple[str, str] | None:
    """What is wrong with a rule, and what would be right."""
    keys = set(rule) if isinstance(rule, dict) else set()
    if not ({"alert", "expr"} <= keys <= ALERT_KEYS or {"record", "expr"} <= keys <= RECORD_KEYS):
        return f"a rule with {sorted(keys)}", "`alert` or `record`, `expr`, and what else Prometheus knows"
    if not isinstance(rule["expr"], str) or rule["expr"].count("(") != rule["expr"].count(")"):
        return f"expr: {str(rule['expr'])[:100]}", "an expression whose brackets close"
    if not re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", str(rule.get("record", "record"))):
        return f"record: {rule['record']}", "the name of a metric: letters, digits, _ and :"
    return None


def _promtool(did: str, page: str) -> None:
    """Ask Prometheus's own tool, where there is one."""
    promtool = shutil.which("promtool")
    if promtool is None:
        return
    with NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(page)
        file.flush()
        done = subprocess.run(
            [promtool, "check", "rules", file.name], capture_output=True, text=True, timeout=10, check=False
        )
    if done.returncode:
        differs(
            did=f"{did}, promtool check rules", got=done.stderr.strip()[:300], expected="SUCCESS", matters=RULES_MATTER
        )


def _complete(did: str, rule: Json) -> None:
    labels, annotations = rule.get("labels") or {}, rule.get("annotations") or {}
    lacks = [name for name in ("summary", "runbook_url") if not str(annotations.get(name) or "").strip()]
    if labels.get("severity") not in {"page", "ticket"} or lacks:
        differs(
            did=did,
            got=f"{rule['alert']}: severity {labels.get('severity')!r}, annotations {sorted(annotations)}",
            expected="severity: page or ticket, and the annotations summary and runbook_url",
            matters="Who is woken must know at once what users meet and where to read what to do.",
        )


def _selective(did: str, rule: Json, expression: str) -> None:
    """Go on if an expression picks out the bad ones: by status, or by a bucket that the shop has."""
    bounds = re.findall(r'\ble\s*=~?\s*"([^"]*)"', expression)
    chosen = "0.25" in bounds if DURATION in _names(expression) else re.search(r"\bstatus\s*[=!]", expression)
    if not chosen:
        differs(
            did=did,
            got=f"{rule['alert']}: {expression[:200]}",
            expected='a matcher that picks out the bad ones: status, or le="0.25" as the shop writes it',
            matters="An alert that compares all requests with all requests says nothing.",
        )


def _bare(expression: str) -> str:
    """An expression without texts, comments, ranges and lists of labels."""
    without = re.sub(r"#.*", "", re.sub(r'"(\\.|[^"\\])*"|' + r"'(\\.|[^'\\])*'", "", expression))
    without = re.sub(r"\{[^{}]*\}|\[[^\[\]]*\]", " ", without)
    return re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)", " ", without)


def _names(expression: str) -> set[str]:
    """The metrics that an expression asks for."""
    found = re.finditer(r"(?<![\w.:])([a-zA-Z_:][\w:]*)\b(?!\s*\()", _bare(expression))
    return {name[1] for name in found if name[1].lower() not in WORDS}


def _expanded(expression: str, records: Mapping[str, str], depth: int = 4) -> str:
    """An expression with what it names followed by what that is made of."""
    names = _names(expression) & set(records) if depth else set()
    return " ".join([expression, *(_expanded(records[name], records, depth - 1) for name in sorted(names))])


def _spans(expression: str) -> set[int]:
    """The lengths of all ranges in it, in seconds."""
    ranges = re.findall(r"\[\s*((?:\d+[smhdw])+)\s*(?::[^\]]*)?\]", expression)
    return {sum(int(count) * UNITS[unit] for count, unit in re.findall(r"(\d+)([smhdw])", span)) for span in ranges}
