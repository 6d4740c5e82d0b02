"""NumPy: a table of each instance, a row a reading and a column a series, and one subtraction of all rows at once.

The rules record the shares of bad requests with a label for the promise, and each alert is one for both promises.
"""

from collections import defaultdict
from typing import Any

import numpy as np
from flask import Blueprint, Flask, Response, current_app, jsonify
from prometheus_client.utils import floatToGoString

from shop.readings import Reading, posted
from shop.settings import Settings, settings_of

NOT_CUSTOMERS = frozenset({"/livez", "/metrics", "/readyz", "/slo", "/slo/rules"})
WINDOWS = {"page": ((14.4, 3600, 300), (6.0, 21600, 1800)), "ticket": ((1.0, 259200, 21600),)}
NAMES = {300: "5m", 1800: "30m", 3600: "1h", 21600: "6h", 259200: "3d"}

blueprint = Blueprint("slo", __name__)


def init_app(app: Flask) -> None:
    """Add the routes."""
    app.register_blueprint(blueprint)


@blueprint.post("/slo")
def judge() -> Response:
    """How well the promises were kept."""
    readings, now = posted()
    settings = settings_of(current_app)
    tables = defaultdict(list)
    for reading in readings:
        if reading.samples is not None and reading.at <= now:
            tables[reading.instance].append(reading)
    parts = [_table(of_one, settings.slo_latency_seconds) for of_one in tables.values() if len(of_one) > 1]
    nothing = np.zeros((0, 5))
    events = np.concatenate([nothing, *parts])  # when, served, all, in time, all timed
    ages = now - events[:, 0]

    def count(seconds: float, first: int) -> tuple[float, float]:
        good, requests = events[ages < seconds][:, first : first + 2].sum(axis=0)
        return float(good), float(requests)

    def promise(objective: float, first: int) -> dict[str, Any]:
        good, requests = count(settings.slo_window_days * 86400, first)
        bad, budget = requests - good, requests * (1 - objective)

        def burns(rate: float, *windows: int) -> bool:
            counts = [count(window, first) for window in windows]
            too_fast = [requests - good > rate * requests * (1 - objective) for good, requests in counts]
            return counts[0][1] >= settings.slo_minimum_requests and all(too_fast)

        firing = [severity for severity, pairs in WINDOWS.items() if any(burns(*pair) for pair in pairs)]
        return {
            "objective": objective,
            "good": good,
            "total": requests,
            "indicator": good / requests if requests else None,
            "budget": budget,
            "budget_left": 1 - bad / budget if budget else 1.0,
            "alert": firing[0] if firing else None,
        }

    return jsonify(availability=promise(settings.slo_availability, 1), latency=promise(settings.slo_latency, 3))


def _table(readings: list[Reading], threshold: float) -> Any:
    """One row for each reading but the first: when it was, and what was counted since the one before."""
    rows = [
        {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for sample in reading.samples or ()
            if sample.labels.get("route") not in NOT_CUSTOMERS
        }
        for reading in readings
    ]
    series = list({key: None for row in rows for key in row})
    values = np.array([[row.get(key, 0.0) for key in series] for row in rows]).reshape(len(rows), len(series))
    grown = np.diff(values, axis=0)
    grown = np.where(grown < 0, values[1:], grown)
    labels = [dict(key[1:]) for key in series]
    bounds = np.array(
        [
            float(label["le"]) if key[0].endswith("_bucket") else np.nan
            for key, label in zip(series, labels, strict=True)
        ]
    )
    codes = np.array(
        [
            int(label["status"]) if key[0] == "http_requests_total" else 0
            for key, label in zip(series, labels, strict=True)
        ]
    )
    lower = max(bounds[bounds <= threshold], default=np.nan)
    chosen = [(codes > 0) & (codes < 500), codes > 0, bounds == lower, np.isposinf(bounds)]
    sums = [grown[:, which].sum(axis=1) for which in chosen]
    return np.column_stack([[reading.at for reading in readings[1:]], *sums])


@blueprint.get("/slo/rules")
def rules() -> Response:
    """The alerts for Prometheus."""
    return Response(_rules(settings_of(current_app)), content_type="application/yaml")


def _rules(settings: Settings) -> str:
    only = f'route!~"{"|".join(sorted(NOT_CUSTOMERS))}"'
    bound = floatToGoString(settings.slo_latency_seconds)
    record = "      - record: slo:burn_rate:{promise}_{name}\n        expr: |\n          ({share}) / {allowed:.6f}\n"
    text = "groups:\n  - name: burn rates\n    interval: 30s\n    rules:\n"
    for name in NAMES.values():
        failed = f'sum(rate(http_requests_total{{{only},status=~"5.."}}[{name}]))'
        share = f"{failed} / sum(rate(http_requests_total{{{only}}}[{name}]))"
        text += record.format(promise="availability", name=name, share=share, allowed=1 - settings.slo_availability)
        in_time = f'sum(rate(http_request_duration_seconds_bucket{{{only},le="{bound}"}}[{name}]))'
        share = f"1 - {in_time} / sum(rate(http_request_duration_seconds_count{{{only}}}[{name}]))"
        text += record.format(promise="latency", name=name, share=share, allowed=1 - settings.slo_latency)
    text += "  - name: alerts\n    rules:\n"
    for promise in ("availability", "latency"):
        for severity, pairs in WINDOWS.items():
            cases = [
                f"(slo:burn_rate:{promise}_{NAMES[long]} > {rate} and slo:burn_rate:{promise}_{NAMES[short]} > {rate}"
                f" and sum(increase(http_requests_total[{NAMES[long]}])) >= {settings.slo_minimum_requests})"
                for rate, long, short in pairs
            ]
            text += (
                f"      - alert: {promise.title()}\n        expr: |\n          {' or '.join(cases)}\n"
                f"        labels:\n          severity: {severity}\n        annotations:\n"
                f"          summary: What customers were promised of {promise} is not kept\n"
                f"          runbook_url: https://runbooks.shop.example/{promise}\n"
            )
    return text
