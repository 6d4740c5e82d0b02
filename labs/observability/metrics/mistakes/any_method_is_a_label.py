"""The method is a label as the client sent it, and a client may send any word.

HTTP's methods are few, but a server reads whatever stands in that place: a loop that sends A, AA, AAA makes a series
with each request. It was a vulnerability of Go's client library for Prometheus (CVE-2022-21698): memory can be filled
from outside, without an account, with answers of 405.

Keep the methods that HTTP knows, and call all others by one name.

Read: "Labels: every value is a series" in the chapter Metrics.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

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
UNMATCHED = "unmatched"

blueprint = Blueprint("metrics", __name__)


def init_app(app: Flask) -> None:
    """Count requests and the connections to the database, and add the page that Prometheus reads."""
    app.register_blueprint(blueprint)
    app.wsgi_app = _counted(app.wsgi_app)  # type: ignore[method-assign, assignment]  # as Flask has it
    _count_connections(app.extensions["engine"])


def _counted(wsgi_app: WSGIApplication) -> WSGIApplication:
    """The application with every request of a user counted and timed, whatever becomes of it."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] in NO_TRAFFIC:
            return wsgi_app(environ, start_response)
        status, route = "500", UNMATCHED  # of one that breaks off before it has either

        def start(line: str, *more: Any) -> Any:
            nonlocal status, route
            status, route = line.partition(" ")[0], _route()
            return start_response(line, *more)

        IN_PROGRESS.inc()
        began = perf_counter()
        try:
            return wsgi_app(environ, start)
        finally:
            seconds = perf_counter() - began
            IN_PROGRESS.dec()
            method = _method(environ)
            REQUESTS.labels(method, route, status).inc()
            DURATION.labels(method, route).observe(seconds)

    return answer


def _method(environ: WSGIEnvironment) -> str:
    """The method."""
    return str(environ["REQUEST_METHOD"])


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
