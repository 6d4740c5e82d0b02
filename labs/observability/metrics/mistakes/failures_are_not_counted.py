"""What a view returns is counted, and what it raises is not.

The measuring stands around Flask's dispatch_request, or around a view as a decorator. An error leaves through it as an
exception, past the line that counts, and becomes an answer further out. So neither a 404 nor a 500 is in the figures.
The error rate is 0, and in an outage it stays 0 while the rate of requests falls as if nobody wanted to buy.

Count where every answer passes, also those to errors and to paths without a route, and use finally.

Read: "Rate and errors" in the chapter Metrics.
"""

import os
from http import HTTPMethod
from pathlib import Path
from time import perf_counter
from typing import cast
from wsgiref.types import WSGIEnvironment

from flask import Blueprint, Flask, Response, request
from flask.typing import ResponseReturnValue
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
from sqlalchemy import Engine, QueuePool, event

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

NO_TRAFFIC = {"/metrics", "/livez", "/readyz"}
METHODS = set(HTTPMethod)
OTHER, UNMATCHED = "other", "unmatched"

blueprint = Blueprint("metrics", __name__)


def init_app(app: Flask) -> None:
    """Count requests and the connections to the database, and add the page that Prometheus reads."""
    app.register_blueprint(blueprint)
    _count_requests(app)
    _count_connections(app.extensions["engine"])


def _count_requests(app: Flask) -> None:
    dispatch = app.dispatch_request

    def counted() -> ResponseReturnValue:
        if request.path in NO_TRAFFIC:
            return dispatch()
        began = perf_counter()
        with IN_PROGRESS.track_inprogress():
            response = app.make_response(dispatch())
        method, route = _method(request.environ), _route()
        DURATION.labels(method, route).observe(perf_counter() - began)
        REQUESTS.labels(method, route, str(response.status_code)).inc()
        return response

    app.dispatch_request = counted  # type: ignore[method-assign]  # around every view


def _method(environ: WSGIEnvironment) -> str:
    """The method; whatever a client makes up is one and the same."""
    method = environ["REQUEST_METHOD"]
    return method if method in METHODS else OTHER


def _route() -> str:
    """The rule that matched, with a place for each id; whatever matches none is one and the same."""
    return request.url_rule.rule if request.url_rule else UNMATCHED


def _count_connections(engine: Engine) -> None:
    POOL_SIZE.set(cast("QueuePool", engine.pool).size())
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
