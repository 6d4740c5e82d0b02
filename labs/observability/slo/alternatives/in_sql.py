"""PostgreSQL counts: the readings go there as JSON, and one statement finds what each window holds.

Each reading is joined with the one before it of the same instance, series by series. Each alert of the rules has its
whole expression, both pages in one.
"""

import json
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify
from prometheus_client.samples import Sample
from sqlalchemy import text

from shop import database
from shop.readings import posted
from shop.settings import Settings, settings_of

COUNT = text("""
WITH samples AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:samples AS jsonb))
        AS sample (reading int, series text, kind text, value float8)
), readings AS MATERIALIZED (
    SELECT reading, at, lag(reading) OVER (PARTITION BY instance ORDER BY reading) AS before
    FROM jsonb_to_recordset(CAST(:readings AS jsonb)) AS reading (reading int, instance text, at float8)
), growth AS (
    SELECT later.at, sample.kind,
           CASE WHEN sample.value < earlier.value THEN sample.value
                ELSE sample.value - coalesce(earlier.value, 0) END AS grown
    FROM readings AS later
    JOIN samples AS sample ON sample.reading = later.reading
    LEFT JOIN samples AS earlier ON earlier.reading = later.before AND earlier.series = sample.series
    WHERE later.before IS NOT NULL AND later.at <= :now
)
SELECT seconds,
       coalesce(sum(grown) FILTER (WHERE kind = 'served'), 0) AS served,
       coalesce(sum(grown) FILTER (WHERE kind = 'failed'), 0) AS failed,
       coalesce(sum(grown) FILTER (WHERE kind = 'quick'), 0) AS quick,
       coalesce(sum(grown) FILTER (WHERE kind = 'timed'), 0) AS timed
FROM unnest(CAST(:windows AS int[])) AS seconds
LEFT JOIN growth ON growth.at > :now - seconds
GROUP BY seconds
""")
MACHINES = ["/metrics", "/livez", "/readyz", "/slo", "/slo/rules"]
ALERTS = (("page", 14.4, 3600, 300), ("page", 6, 21600, 1800), ("ticket", 1, 259200, 21600))
SPANS = {300: "5m", 1800: "30m", 3600: "1h", 21600: "6h", 259200: "3d"}

blueprint = Blueprint("slo", __name__)


def init_app(app: Flask) -> None:
    """Add the routes."""
    app.register_blueprint(blueprint)


@blueprint.post("/slo")
def judge() -> Response:
    """How well the promises were kept."""
    readings, now = posted()
    settings = settings_of(current_app)
    month = settings.slo_window_days * 86400
    taken = [
        {"reading": number, "instance": reading.instance, "at": reading.at}
        for number, reading in enumerate(readings)
        if reading.samples is not None
    ]
    samples = [
        {"reading": number, "series": repr((sample.name, sample.labels)), "kind": kind, "value": sample.value}
        for number, reading in enumerate(readings)
        for bound in [_bound(reading.samples or [], settings.slo_latency_seconds)]
        for sample in reading.samples or []
        if (kind := _kind(sample, bound))
    ]
    asked = {"samples": json.dumps(samples), "readings": json.dumps(taken), "now": now, "windows": [month, *SPANS]}
    windows = {row.seconds: row for row in database.session().execute(COUNT, asked)}
    answered = {seconds: (row.served, row.served + row.failed) for seconds, row in windows.items()}
    in_time = {seconds: (row.quick, row.timed) for seconds, row in windows.items()}
    return jsonify(
        {
            "availability": _promise(settings.slo_availability, answered, month, settings),
            "latency": _promise(settings.slo_latency, in_time, month, settings),
        }
    )


def _promise(
    objective: float, windows: dict[int, tuple[float, float]], month: int, settings: Settings
) -> dict[str, Any]:
    good, total = windows[month]
    budget = (1 - objective) * total
    fires = [
        severity
        for severity, rate, long, short in ALERTS
        if windows[long][1] >= settings.slo_minimum_requests
        and all(
            windows[span][1] and 1 - windows[span][0] / windows[span][1] > rate * (1 - objective)
            for span in (long, short)
        )
    ]
    return {
        "objective": objective,
        "good": good,
        "total": total,
        "indicator": good / total if total else None,
        "budget": budget,
        "budget_left": 1 - (total - good) / budget if budget else 1,
        "alert": next(iter(fires), None),
    }


@blueprint.get("/slo/rules")
def rules() -> Response:
    """The alerts for Prometheus."""
    settings = settings_of(current_app)
    customers = f'route!~"{"|".join(MACHINES)}"'
    quick = f'{customers},le="{settings.slo_latency_seconds}"'
    failed = "sum(rate(http_requests_total{%s}[SPAN])) / sum(rate(http_requests_total{%s}[SPAN]))"
    slow = "1 - sum(rate(http_request_duration_seconds_bucket{%s}[SPAN]))"
    slow += " / sum(rate(http_request_duration_seconds_count{%s}[SPAN]))"
    promises = {
        "Availability": (settings.slo_availability, failed % (customers + ',status=~"5.."', customers)),
        "Latency": (settings.slo_latency, slow % (quick, customers)),
    }
    page = "groups:\n- name: promises\n  rules:\n"
    for promise, (objective, ratio) in promises.items():
        for severity in ("page", "ticket"):
            cases = [
                f"(({ratio.replace('SPAN', SPANS[long])}) > {rate * (1 - objective):.8f}"
                f" and ({ratio.replace('SPAN', SPANS[short])}) > {rate * (1 - objective):.8f})"
                for of, rate, long, short in ALERTS
                if of == severity
            ]
            page += (
                f"  - alert: {promise}{severity.title()}\n    expr: >-\n      {' or '.join(cases)}\n"
                f"    labels: {{severity: {severity}}}\n    annotations:\n"
                f"      summary: Customers of the shop meet failures or wait\n"
                f"      runbook_url: https://runbooks.shop.example/{promise}\n"
            )
    return Response(page, content_type="application/yaml")


def _bound(samples: Any, threshold: float) -> float | None:
    bounds = {float(sample.labels["le"]) for sample in samples if sample.name.endswith("_seconds_bucket")}
    return max((bound for bound in bounds if bound <= threshold), default=None)


def _kind(sample: Sample, bound: float | None) -> str:
    """What a sample counts; empty: nothing of this."""
    if sample.labels.get("route") in MACHINES:
        return ""
    if sample.name == "http_requests_total":
        return "failed" if sample.labels["status"].startswith("5") else "served"
    if sample.name == "http_request_duration_seconds_bucket":
        return {bound: "quick", float("inf"): "timed"}.get(float(sample.labels["le"]), "")
    return ""
