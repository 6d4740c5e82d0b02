"""What can be seen of a shop from outside: its metrics, its log, its traces."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shopfloor.metrics import Metrics, NoSeries, difference
from shopfloor.traces import Span, Trace

DURATION, REQUESTS = "http_request_duration_seconds", "http_requests_total"


@dataclass(frozen=True)
class Route:
    """What came to one route in a span of time.

    Attributes:
        name: the rule, with its method.
        requests: how many were answered.
        rate: how many a second.
        errors: how many of them with a status of 500 or more.
        p50: seconds that half of them kept to, as the histogram tells; 0 when none came.
        p95: the same for 95 of 100.
    """

    name: str
    requests: int
    rate: float
    errors: int
    p50: float
    p95: float


@dataclass(frozen=True)
class Interval:
    """The metrics of a span of time.

    Attributes:
        counted: what grew in it, and what gauges showed at its end.
        seconds: how long it was.
    """

    counted: Metrics
    seconds: float

    @classmethod
    def between(cls, first: Metrics, last: Metrics) -> "Interval":
        """From one reading to another."""
        return cls(difference(first, last), last.at - first.at)

    def routes(self) -> list[Route]:
        """The routes that were asked for, the busiest first."""
        counts = self.counted.samples(f"{DURATION}_count")
        routes = [self._route(sample.labels["method"], sample.labels["route"], int(sample.value)) for sample in counts]
        return sorted((route for route in routes if route.requests), key=lambda route: -route.requests)

    def route(self, rule: str) -> Route:
        """What came to one rule, whatever the method; nothing, if nothing did."""
        found = [route for route in self.routes() if route.name.endswith(f" {rule}")]
        return found[0] if found else Route(rule, 0, 0, 0, 0, 0)

    def gauge(self, name: str, **labels: str) -> float:
        """What a gauge showed; 0 if it is not there."""
        try:
            return self.counted.value(name, **labels)
        except NoSeries:
            return 0

    def _route(self, method: str, route: str, requests: int) -> Route:
        labels = {"method": method, "route": route}
        answered = self.counted.samples(REQUESTS, **labels)
        errors = sum(int(sample.value) for sample in answered if sample.labels["status"].startswith("5"))
        p50, p95 = (
            float(self.counted.quantile(DURATION, share, **labels)) if requests else 0.0 for share in (0.5, 0.95)
        )
        return Route(f"{method} {route}", requests, requests / self.seconds, errors, p50, p95)


@dataclass(frozen=True)
class Evidence:
    """All that there is to see.

    Attributes:
        before: the metrics of the time in which the shop was well.
        now: the metrics of late.
        traces: the requests of late, whole.
        log: the shop's log.
    """

    before: Interval
    now: Interval
    traces: list[Trace]
    log: Path

    def traces_of(self, rule: str) -> list[Trace]:
        """Those of one rule, the slowest first."""
        found = [trace for trace in self.traces if trace.root.name.endswith(f" {rule}")]
        return sorted(found, key=lambda trace: -trace.duration)

    def lines(self, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> list[dict[str, Any]]:
        """The log's events that are wanted, oldest first."""
        events = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and wanted(event):
                events.append(event)
        return events


def statements(trace: Trace) -> list[Span]:
    """A trace's statements; commands of the cache are none."""
    return [span for span in trace.spans if _system(span) == "postgresql"]


def seconds_before_statements(trace: Trace) -> float:
    """How long a request went on before its first statement began; 0 if it had none."""
    began = min((span.start for span in statements(trace)), default=trace.root.start)
    return (began - trace.root.start) / 1e9


def calls(trace: Trace) -> list[Span]:
    """A trace's calls of the providers."""
    return [span for span in trace.spans if span.kind == "client" and not _system(span)]


def _system(span: Span) -> object:
    """Which database it asks, in today's conventions or those of before; None if it asks none."""
    return span.attributes.get("db.system.name", span.attributes.get("db.system"))


def most_common_path(traces: list[Trace]) -> tuple[str, float]:
    """The path that was asked for most, and its share of all."""
    paths = Counter(str(trace.root.attributes.get("url.path", "")) for trace in traces)
    if not paths:
        return "", 0
    path, count = paths.most_common(1)[0]
    return path, count / paths.total()
