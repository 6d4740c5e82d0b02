"""Each worker shows its own figures, and Prometheus is answered by whichever is free.

One scrape tells of 1,200 requests, the next, answered by another worker, of 800. A counter that falls has been set back
to 0, as Prometheus sees it, and rate() adds all 800 as if they had just come. The graph is a comb whose teeth are no
traffic at all, and the percentiles are those of a part of the requests that nobody chose.

With PROMETHEUS_MULTIPROC_DIR set, let a MultiProcessCollector put together what all workers have written.

Read: "Several workers" in the chapter Metrics.
"""

from collections.abc import Iterable
from http import HTTPMethod
from time import perf_counter
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Blueprint, Flask, Response, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from sqlalchemy import Engine, QueuePool, event

REQUESTS = Counter("http_requests_total", "Requests answered.", ["method", "route", "status"])
DURATION = Histogram(
    "http_request_duration_seconds",
    "How long requests took.",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
IN_PROGRESS = Gauge("http_requests_in_progress", "Requests that are being answered.")
POOL_IN_USE = Gauge("db_pool_connections_in_use", "Connections to the database that somebody holds.")
POOL_SIZE = Gauge("db_pool_size", "Most connections to the database at once.")

NO_TRAFFIC = {"/metrics", "/livez", "/readyz"}
METHODS = set(HTTPMethod)
OTHER, UNMATCHED = "other", "unmatched"

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
    """Every metric of this process."""
    return Response(generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)
