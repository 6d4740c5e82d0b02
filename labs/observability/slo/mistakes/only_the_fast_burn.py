"""Only the pair of windows for fast burns is there, so a slow leak pages nobody.

0.65 % of failures burns the budget six and a half times as fast as it may: four weeks' worth in four days. It never
reaches 14.4, so no page comes, and at the end of the month everybody is surprised. The faster an alert has to be, the
higher its threshold must be; what is below needs a longer window, and gets the time for it.

Have all three pairs, and report the most severe that fires.

Read: "Two windows" in the chapter Service levels.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flask import Blueprint, Flask, Response, current_app, jsonify
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from shop.readings import Reading, posted
from shop.settings import Settings, settings_of

MINUTE, HOUR, DAY = 60, 3600, 86400
NO_CUSTOMERS = {"/metrics", "/livez", "/readyz", "/slo", "/slo/rules"}

blueprint = Blueprint("slo", __name__)


class Pair(NamedTuple):
    """Two windows, in seconds. The long one says that it matters, the short one that it lasts."""

    severity: str
    burn: float
    long: int
    short: int


PAIRS = (
    Pair("page", 14.4, HOUR, 5 * MINUTE),
    Pair("ticket", 1, 3 * DAY, 6 * HOUR),
)


class Count(NamedTuple):
    """Requests, and how many of them were good."""

    good: float
    total: float


class Step(NamedTuple):
    """What an instance counted from one reading to the next.

    Attributes:
        end: when the later one was taken.
    """

    end: float
    availability: Count
    latency: Count


Series = tuple[str, frozenset[tuple[str, str]]]


def init_app(app: Flask) -> None:
    """Add the routes."""
    app.register_blueprint(blueprint)


@blueprint.post("/slo")
def judge() -> Response:
    """How well the promises were kept, by the readings that are posted."""
    readings, now = posted()
    return jsonify(report(readings, now, settings_of(current_app)))


@blueprint.get("/slo/rules")
def rules() -> Response:
    """The alerts as Prometheus reads them."""
    return Response(prometheus_rules(settings_of(current_app)), content_type="application/yaml")


def report(readings: Sequence[Reading], now: float, settings: Settings) -> dict[str, Any]:
    """Both promises, as of a moment.

    Args:
        readings: the oldest first.
        now: the moment, on the clock of the readings.
        settings: what is promised.
    """
    steps = [step for step in _steps(readings, settings.slo_latency_seconds) if step.end <= now]
    ages = [(now - step.end, step) for step in steps]
    availability = [(age, step.availability) for age, step in ages]
    latency = [(age, step.latency) for age, step in ages]
    return {
        "availability": _promise(settings.slo_availability, availability, settings),
        "latency": _promise(settings.slo_latency, latency, settings),
    }


def _steps(readings: Sequence[Reading], threshold: float) -> Iterator[Step]:
    """What was counted between each two readings of an instance that follow each other."""
    last: dict[str, dict[Series, float]] = {}
    for reading in readings:
        if reading.samples is None:
            continue  # the next one tells what happened meanwhile
        values = {_series(sample): sample.value for sample in reading.samples if _is_counted(sample)}
        before = last.get(reading.instance)
        if before is not None:
            growth = {series: _grown(before.get(series, 0), value) for series, value in values.items()}
            yield Step(reading.at, _answered(growth), _in_time(growth, threshold))
        last[reading.instance] = values


def _grown(before: float, after: float) -> float:
    """How much a counter grew. One that fell began again at 0."""
    return after if after < before else after - before


def _is_counted(sample: Sample) -> bool:
    return (
        sample.name in {"http_requests_total", "http_request_duration_seconds_bucket"}
        and sample.labels.get("route") not in NO_CUSTOMERS
    )


def _series(sample: Sample) -> Series:
    return sample.name, frozenset(sample.labels.items())


def _answered(growth: Mapping[Series, float]) -> Count:
    """Requests, and those that the shop did not fail: a 404 is an answer."""
    counts = [(dict(labels), count) for (name, labels), count in growth.items() if name == "http_requests_total"]
    good = sum(count for labels, count in counts if int(labels["status"]) < 500)
    return Count(good, sum(count for _, count in counts))


def _in_time(growth: Mapping[Series, float], threshold: float) -> Count:
    """Requests, and those in the buckets that end at the threshold or before: a bucket above it proves nothing."""
    histograms: dict[frozenset[tuple[str, str]], dict[float, float]] = defaultdict(dict)
    for (name, labels), count in growth.items():
        if name == "http_request_duration_seconds_bucket":
            bounds = histograms[frozenset(label for label in labels if label[0] != "le")]
            bounds[float(dict(labels)["le"])] = count
    good = total = 0.0
    for buckets in histograms.values():
        certain = [bound for bound in buckets if bound <= threshold]
        good += buckets[max(certain)] if certain else 0  # each holds all that are below it
        total += buckets[float("inf")]
    return Count(good, total)


def _promise(objective: float, counts: Sequence[tuple[float, Count]], settings: Settings) -> dict[str, Any]:
    """What became of one promise, from counts with their ages in seconds."""
    good, total = _within(counts, settings.slo_window_days * DAY)
    budget = total * (1 - objective)
    return {
        "objective": objective,
        "good": good,
        "total": total,
        "indicator": good / total if total else None,
        "budget": budget,
        "budget_left": 1 - (total - good) / budget if total else 1,
        "alert": _alert(objective, counts, settings.slo_minimum_requests),
    }


def _within(counts: Sequence[tuple[float, Count]], seconds: float) -> Count:
    recent = [count for age, count in counts if age < seconds]
    return Count(sum(count.good for count in recent), sum(count.total for count in recent))


def _alert(objective: float, counts: Sequence[tuple[float, Count]], minimum: int) -> str | None:
    """The most severe alert that fires."""
    for pair in PAIRS:
        long, short = _within(counts, pair.long), _within(counts, pair.short)
        if long.total >= minimum and min(_burn(long, objective), _burn(short, objective)) > pair.burn:
            return pair.severity
    return None


def _burn(count: Count, objective: float) -> float:
    """How many times as fast as it may the budget burns: 1 uses all of it, and no more, if it goes on like that."""
    return (count.total - count.good) / count.total / (1 - objective) if count.total else 0


REQUESTS = f'http_requests_total{{route!~"{"|".join(sorted(NO_CUSTOMERS))}"}}'
FAILED = REQUESTS.replace("}", ', status=~"5.."}')
TIMED = REQUESTS.replace("http_requests_total", "http_request_duration_seconds_count")
IN_TIME = REQUESTS.replace("http_requests_total", "http_request_duration_seconds_bucket")


def prometheus_rules(settings: Settings) -> str:
    """The alerts as a file for Prometheus: the share of bad requests for each window, and alerts on pairs of them."""
    bound = floatToGoString(settings.slo_latency_seconds)  # as the client library writes it, and labels are texts
    in_time = IN_TIME.replace("}", f', le="{bound}"}}')
    missed = settings.slo_latency_seconds
    lines = ["groups:", "  - name: shop-slo", "    rules:"]
    for window in sorted({window for pair in PAIRS for window in (pair.long, pair.short)}):
        span = _span(window)
        failed, requests = f"(sum(rate({FAILED}[{span}])) or vector(0))", f"sum(rate({REQUESTS}[{span}]))"
        slow = f"1 - sum(rate({in_time}[{span}])) / sum(rate({TIMED}[{span}]))"
        lines += _record(f"shop:availability_errors:ratio_rate{span}", f"{failed} / {requests}")
        lines += _record(f"shop:latency_errors:ratio_rate{span}", slow)
    for pair in PAIRS:
        lines += _rule(pair, "availability", settings.slo_availability, settings, "Requests of customers fail")
        lines += _rule(pair, "latency", settings.slo_latency, settings, f"Customers wait longer than {missed:g} s")
    return "\n".join(lines) + "\n"


def _record(name: str, expression: str) -> list[str]:
    return [f"      - record: {name}", f"        expr: '{expression}'"]


def _rule(pair: Pair, promise: str, objective: float, settings: Settings, meet: str) -> list[str]:
    limit = f"{pair.burn:g} * {1 - objective:.6g}"
    long, short = _span(pair.long), _span(pair.short)
    ratio = f"shop:{promise}_errors:ratio_rate"
    enough = f"sum(increase({REQUESTS}[{long}])) >= {settings.slo_minimum_requests}"
    return [
        f"      - alert: Shop{promise.title()}BudgetBurns",
        f"        expr: '({ratio}{long} > {limit}) and ({ratio}{short} > {limit}) and ({enough})'",
        "        labels:",
        f"          severity: {pair.severity}",
        f"          long_window: {long}",
        "        annotations:",
        f"          summary: '{meet}: {{{{ $value | humanizePercentage }}}} of them over {long}.'",
        f"          description: 'The budget of {promise} burns more than {pair.burn:g} times as fast as it may.'",
        f"          runbook_url: 'https://runbooks.shop.example/slo/{promise}'",
    ]


def _span(seconds: int) -> str:
    """As PromQL writes it."""
    unit, letter = next(unit for unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m")) if seconds >= unit[0])
    return f"{seconds // unit}{letter}"
