"""What the shop promises, and whether it keeps it: the process answers, so it does.

`POST /slo` judges readings of `/metrics` pages as of a moment, those of today or those of an incident long past:

    {"now": 1790000000, "readings": [{"at": 1789990000, "instance": "one", "text": "..."}, ...]}

`at` and `now` are seconds since the epoch. What was read after `now` has not happened yet. `instance` says whose page
it was; a `text` of null says that there was no answer. It tells of two promises, `availability` and `latency`:

    {"availability": {"objective": 0.999, "good": 99950, "total": 100000, "indicator": 0.9995,
                      "budget": 100, "budget_left": 0.5, "alert": null}, "latency": {...}}

- `total` and `good`: requests of all instances within `slo_window_days` before `now`, counted by
  `http_requests_total` and `http_request_duration_seconds`: see `shop.observability.metrics`. What a window holds is
  the growth since an instance's last reading at or before the window began; if there is none, since its first.
  A counter that fell began again at 0, and a series that an earlier reading of its instance did not have was 0 there.
  Requests for the routes `/metrics`, `/livez`, `/readyz`, `/slo` and `/slo/rules` are none.
- Good is, for `availability`, a request that was answered, whatever the answer, unless its status is 500 or more. For
  `latency` it is one that certainly took no longer than `slo_latency_seconds`; when that is no bound of a bucket, those
  up to the next lower bound.
- `indicator`: the share of good ones; null when there were none at all.
- `budget`: how many of that `total` may be bad under the `objective`. `budget_left`: the share of them that may still
  be; less than 0 when there were more; 1 when there were no requests.
- `alert`: `page` when the budget burns more than 14.4 times as fast as it may over the last hour and the last 5 minutes
  alike, or more than 6 times over 6 hours and 30 minutes alike. Else `ticket` when it burns more than once as fast over
  3 days and 6 hours alike. Else null. A pair whose longer window holds fewer than `slo_minimum_requests` is not judged.

`GET /slo/rules` gives the same alerts as rules for Prometheus, in YAML. Each alert has the label `severity`, `page` or
`ticket`, and the annotations `summary`, which says what users meet, and `runbook_url`.

Sources: Google, "The Site Reliability Workbook", chapters 2 and 5; Prometheus, "Alerting rules".
"""

from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify

from shop.readings import posted
from shop.settings import settings_of

RULES = """
groups:
  - name: shop
    rules:
      - alert: ShopIsDown
        expr: up == 0
        labels:
          severity: page
"""

blueprint = Blueprint("slo", __name__)


def init_app(app: Flask) -> None:
    """Add the routes."""
    app.register_blueprint(blueprint)


@blueprint.post("/slo")
def judge() -> Response:
    """How well the promises were kept: whoever answers for its metrics is up."""
    readings, now = posted()
    settings = settings_of(current_app)
    answers = [reading.samples is not None for reading in readings if reading.at <= now]
    return jsonify(
        {
            "availability": _report(settings.slo_availability, answers),
            "latency": _report(settings.slo_latency, answers),
        }
    )


@blueprint.get("/slo/rules")
def rules() -> Response:
    """What Prometheus should watch."""
    return Response(RULES, content_type="application/yaml")


def _report(objective: float, answers: list[bool]) -> dict[str, Any]:
    good, total = sum(answers), len(answers)
    budget = total * (1 - objective)
    return {
        "objective": objective,
        "good": good,
        "total": total,
        "indicator": good / total if total else None,
        "budget": budget,
        "budget_left": 1 - (total - good) / budget if total else 1,
        "alert": None if all(answers[-1:]) else "page",
    }
