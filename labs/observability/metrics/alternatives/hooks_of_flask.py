"""Flask's own hooks: before, after and at the end of each request, with the page put together from the living files.

`after_request` sees every answer, since this shop turns every exception into one. `teardown_request` runs whatever
happened, so that is where the gauge goes down.
"""

import os
from pathlib import Path
from time import monotonic

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import CollectorRegistry
from sqlalchemy import event

HTTP = ["method", "route"]
REQUESTS = Counter("http_requests", "Requests answered.", [*HTTP, "status"])  # the library adds _total
DURATION = Histogram("http_request_duration", "How long requests took.", HTTP, unit="seconds")
IN_PROGRESS = Gauge("http_requests_in_progress", "Requests under way.", multiprocess_mode="liveall")
IN_USE = Gauge("db_pool_connections_in_use", "Connections that somebody holds.", multiprocess_mode="livesum")
SIZE = Gauge("db_pool_size", "Most connections at once.", multiprocess_mode="livesum")

blueprint = Blueprint("metrics", __name__)


def init_app(app: Flask) -> None:
    """Add the hooks, and the page that Prometheus reads."""
    app.register_blueprint(blueprint)
    app.before_request(_begin)
    app.after_request(_count)
    app.teardown_request(_end)
    engine = app.extensions["engine"]
    SIZE.set(engine.pool.size())
    event.listen(engine, "checkout", lambda *_: IN_USE.inc())
    event.listen(engine, "checkin", lambda *_: IN_USE.dec())


def _begin() -> None:
    if request.endpoint not in {"metrics.metrics", "shutdown.livez", "shutdown.readyz"}:
        g.began = monotonic()
        IN_PROGRESS.inc()


def _count(response: Response) -> Response:
    if "began" in g:
        method = request.method if request.method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} else "?"
        route = str(request.url_rule or "none")
        REQUESTS.labels(method, route, response.status_code).inc()
        DURATION.labels(method, route).observe(monotonic() - g.began)
    return response


def _end(_error: BaseException | None) -> None:
    if "began" in g:
        IN_PROGRESS.dec()


@blueprint.get("/metrics")
def metrics() -> Response:
    """Every metric, of all workers where there are several."""
    registry = REGISTRY
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        for pid in {int(file.stem.split("_")[-1]) for file in Path(folder).glob("gauge_live*.db")}:
            if not Path(f"/proc/{pid}").exists():
                mark_process_dead(pid, folder)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
