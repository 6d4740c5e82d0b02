"""Flask's signals, which change nothing and only listen; and a collector that reads the files of the living alone.

No file is removed: those of dead processes are left out when the page is put together.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

import flask
from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry
from sqlalchemy import event

requests = Counter("http_requests_total", "Requests answered", ("method", "route", "status"))
duration = Histogram(
    "http_request_duration_seconds",
    "Time from the first line of a request to its answer",
    ("method", "route", "status"),
    buckets=[0.001 * 2**power for power in range(14)],
)
in_progress = Gauge("http_requests_in_progress", "Requests without an answer yet", multiprocess_mode="livesum")
in_use = Gauge("db_pool_connections_in_use", "Connections out of the pool", multiprocess_mode="livesum")
size = Gauge("db_pool_size", "Connections that the pool may have", multiprocess_mode="livesum")

blueprint = Blueprint("metrics", __name__)
WATCHERS = ("/metrics", "/livez", "/readyz")
KNOWN = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")


def init_app(app: Flask) -> None:
    """Listen to the application and to its engine."""
    app.register_blueprint(blueprint)
    flask.request_started.connect(_started, app)
    flask.request_finished.connect(_finished, app)
    flask.request_tearing_down.connect(_over, app)
    engine = app.extensions["engine"]
    size.set(engine.pool.size())
    event.listen(engine.pool, "checkout", lambda *_: in_use.inc(1))
    event.listen(engine.pool, "checkin", lambda *_: in_use.inc(-1))


def _started(_app: Flask, **_: Any) -> None:
    if request.path not in WATCHERS:
        g.metrics_began = perf_counter()
        in_progress.inc()


def _finished(_app: Flask, response: Response, **_: Any) -> None:
    if "metrics_began" in g:
        labels = {
            "method": request.method if request.method in KNOWN else "unknown",
            "route": request.url_rule.rule if request.url_rule is not None else "",
            "status": str(response.status_code),
        }
        requests.labels(**labels).inc()
        duration.labels(**labels).observe(perf_counter() - g.metrics_began)


def _over(_app: Flask, **_: Any) -> None:
    if "metrics_began" in g:
        in_progress.dec()


class Living(Collector):
    """What the processes of a folder have written, without the gauges of those that are gone."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Put it together."""
        files = [file for file in Path(self._folder).glob("*.db") if "gauge_live" not in file.name or _lives(file)]
        return MultiProcessCollector.merge(map(str, files))


def _lives(file: Path) -> bool:
    pid = int(file.stem.rpartition("_")[2])
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


@blueprint.get("/metrics")
def metrics() -> Response:
    """Every metric."""
    folder = os.getenv("PROMETHEUS_MULTIPROC_DIR", "")
    shown = REGISTRY
    if folder:
        shown = CollectorRegistry()
        shown.register(Living(folder))
    return Response(generate_latest(shown), content_type=CONTENT_TYPE_LATEST)
