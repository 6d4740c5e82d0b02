"""Around Flask's full dispatch, which is behind all error handlers: what comes out of it is what is sent.

The library's own helpers keep the gauge. Series of the shop's routes are made beforehand, at 0, so that a rate is there
from the first error on, and not from the second.
"""

import os
from pathlib import Path
from time import perf_counter

from flask import Blueprint, Flask, Response, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from sqlalchemy import event

REQUESTS = Counter("http_requests_total", "Requests answered.", ["method", "route", "status"])
DURATION = Histogram(
    "http_request_duration_seconds",
    "How long requests took.",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
IN_PROGRESS = Gauge("http_requests_in_progress", "Requests that are being answered.", multiprocess_mode="livesum")
POOL_IN_USE = Gauge(
    "db_pool_connections_in_use", "Connections to the database that somebody holds.", multiprocess_mode="livesum"
)
POOL_SIZE = Gauge("db_pool_size", "Most connections to the database at once.", multiprocess_mode="livesum")

blueprint = Blueprint("metrics", __name__)
METHODS = {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}
OWN = {"metrics.metrics", "shutdown.livez", "shutdown.readyz"}


def init_app(app: Flask) -> None:
    """Count what the application answers, and the connections of its pool."""
    app.register_blueprint(blueprint)
    dispatch = app.full_dispatch_request

    def counted() -> Response:
        if request.endpoint in OWN:
            return dispatch()
        status, began = 500, perf_counter()
        with IN_PROGRESS.track_inprogress():
            try:
                response = dispatch()
                status = response.status_code
                return response
            finally:
                method = request.method if request.method in METHODS else "OTHER"
                route = request.url_rule.rule if request.url_rule else "unknown"
                for code in {200, 500, status}:
                    REQUESTS.labels(method, route, code).inc(code == status)
                DURATION.labels(method, route).observe(perf_counter() - began)

    app.full_dispatch_request = counted  # type: ignore[method-assign]  # it has no hook of its own
    engine = app.extensions["engine"]
    POOL_SIZE.set(engine.pool.size())
    event.listen(engine, "checkout", lambda *_: POOL_IN_USE.inc())
    event.listen(engine, "checkin", lambda *_: POOL_IN_USE.dec())


@blueprint.get("/metrics")
def metrics() -> Response:
    """Every metric of this process, or of all that share its folder."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Response(generate_latest(_of_all(Path(folder)) if folder else REGISTRY), content_type=CONTENT_TYPE_LATEST)


def _of_all(folder: Path) -> CollectorRegistry:
    """What the processes have written down: counts of all that ever were, gauges of those that live."""
    for file in folder.glob("gauge_live*.db"):
        if not _lives(int(file.stem.rpartition("_")[2])):
            file.unlink(missing_ok=True)  # or another process was faster
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]  # it has no types
    return registry


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is there, and somebody else's
    return True
