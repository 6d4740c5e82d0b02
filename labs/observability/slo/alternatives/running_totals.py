"""Running totals: what each instance has counted since its first reading, restarts mended, looked up at any moment.

A window holds the total at its end minus the total at its beginning. The rules are JSON, which is YAML.
"""

import json
from bisect import bisect_right
from collections import defaultdict
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify
from prometheus_client.samples import Sample

from shop.readings import Reading, posted
from shop.settings import Settings, settings_of

DAY = 86400.0
MACHINES = ("/metrics", "/livez", "/readyz", "/slo", "/slo/rules")
BURNS = (("page", 14.4, "1h", "5m"), ("page", 6.0, "6h", "30m"), ("ticket", 1.0, "3d", "6h"))
SECONDS = {"5m": 300.0, "30m": 1800.0, "1h": 3600.0, "6h": 21600.0, "3d": 3 * DAY}
KINDS = ("served", "failed", "quick", "timed")

blueprint = Blueprint("slo", __name__)


class Totals:
    """What one instance has counted since its first reading, at the moment of each."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self.totals: list[dict[str, float]] = []
        self._last: dict[tuple[str, ...], float] = {}

    def add(self, reading: Reading, samples: list[tuple[tuple[str, ...], float]]) -> None:
        """Go on to the next reading. The last word of a series' key is its kind."""
        total = dict(self.totals[-1]) if self.totals else dict.fromkeys(KINDS, 0.0)
        values = dict(samples)
        if self.totals:
            for key, value in values.items():
                last = self._last.get(key, 0.0)
                total[key[-1]] += value - last if value >= last else value
        self.moments.append(reading.at)
        self.totals.append(total)
        self._last = values

    def at(self, moment: float) -> dict[str, float]:
        """The totals of the last reading at or before a moment, or else of the first."""
        return self.totals[max(bisect_right(self.moments, moment) - 1, 0)]


def init_app(app: Flask) -> None:
    """Add the routes."""
    app.register_blueprint(blueprint)


@blueprint.post("/slo")
def judge() -> Response:
    """How well the promises were kept."""
    readings, now = posted()
    settings = settings_of(current_app)
    instances: defaultdict[str, Totals] = defaultdict(Totals)
    for reading in readings:
        if reading.samples is not None:
            bound = _bound(reading, settings.slo_latency_seconds)
            samples = [(key, sample.value) for sample in reading.samples if (key := _key(sample, bound))]
            instances[reading.instance].add(reading, samples)

    def bad_and_all(bad_kind: str, good_kind: str, seconds: float) -> tuple[float, float]:
        grown = dict.fromkeys(KINDS, 0.0)
        for totals in instances.values():
            begin, end = totals.at(now - seconds), totals.at(now)
            for kind in KINDS:
                grown[kind] += end[kind] - begin[kind]
        if bad_kind == "failed":
            return grown["failed"], grown["failed"] + grown["served"]
        return grown["timed"] - grown[good_kind], grown["timed"]

    def promise(objective: float, bad_kind: str, good_kind: str) -> dict[str, Any]:
        bad, requests = bad_and_all(bad_kind, good_kind, settings.slo_window_days * DAY)
        alert = None
        for severity, rate, long, short in reversed(BURNS):
            limit = rate * (1 - objective)
            of_long, of_short = (bad_and_all(bad_kind, good_kind, SECONDS[span]) for span in (long, short))
            enough = of_long[1] >= settings.slo_minimum_requests
            if enough and all(failed > limit * of_all for failed, of_all in (of_long, of_short)):
                alert = severity
        budget = requests * (1 - objective)
        return {
            "objective": objective,
            "good": requests - bad,
            "total": requests,
            "indicator": 1 - bad / requests if requests else None,
            "budget": budget,
            "budget_left": (budget - bad) / budget if requests else 1,
            "alert": alert,
        }

    return jsonify(
        availability=promise(settings.slo_availability, "failed", "served"),
        latency=promise(settings.slo_latency, "", "quick"),
    )


@blueprint.get("/slo/rules")
def rules() -> Response:
    """The alerts for Prometheus."""
    settings = settings_of(current_app)
    found = [
        rule
        for severity, rate, long, short in BURNS
        for rule in (
            _alert("Availability", settings.slo_availability, (severity, rate, long, short), settings),
            _alert("Latency", settings.slo_latency, (severity, rate, long, short), settings),
        )
    ]
    return Response(json.dumps({"groups": [{"name": "slo", "rules": found}]}), content_type="application/yaml")


def _alert(promise: str, objective: float, burn: tuple[str, float, str, str], settings: Settings) -> dict[str, Any]:
    severity, rate, long, short = burn
    threshold = f"{settings.slo_latency_seconds:g}"
    customers = f'route!~"{"|".join(MACHINES)}"'

    def bad(span: str) -> str:
        requests = f"sum(rate(http_requests_total{{{customers}}}[{span}]))"
        if promise == "Availability":
            return f'sum(rate(http_requests_total{{status=~"5..",{customers}}}[{span}])) / {requests}'
        name = "http_request_duration_seconds_bucket"
        quick, timed = (f'sum(rate({name}{{le="{le}",{customers}}}[{span}]))' for le in (threshold, "+Inf"))
        return f"1 - {quick} / {timed}"

    limit = round(rate * (1 - objective), 9)
    enough = f"sum(increase(http_requests_total{{{customers}}}[{long}])) >= {settings.slo_minimum_requests}"
    return {
        "alert": f"{promise}{severity.title()}{long}",
        "expr": f"({bad(long)} > {limit}) and ({bad(short)} > {limit}) and ({enough})",
        "labels": {"severity": severity},
        "annotations": {
            "summary": f"Customers are not served as promised ({promise.lower()}).",
            "runbook_url": f"https://runbooks.shop.example/{promise.lower()}",
        },
    }


def _bound(reading: Reading, threshold: float) -> float:
    """The last bound up to the threshold; all routes have the same."""
    bounds = [float(sample.labels["le"]) for sample in reading.samples or [] if "le" in sample.labels]
    return max((bound for bound in bounds if bound <= threshold), default=-1)


def _key(sample: Sample, bound: float) -> tuple[str, ...] | None:
    """A series' name and labels, and which kind it adds to; None: to none."""
    labels = sample.labels
    if labels.get("route") in MACHINES:
        return None
    kind = None
    if sample.name == "http_requests_total":
        kind = "failed" if labels["status"] >= "500" else "served"
    elif sample.name == "http_request_duration_seconds_bucket":
        kind = {bound: "quick", float("inf"): "timed"}.get(float(labels["le"]))
    return (sample.name, *(word for label in sorted(labels.items()) for word in label), kind) if kind else None
