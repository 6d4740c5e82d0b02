"""Each request is counted when its answer has been sent, not when it is ready: a slow client is part of its duration.

The route is looked up a second time in the application's own map, so nothing of Flask's request is needed. What is
counted last is counted late: a moment after the client has its answer.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

from flask import Blueprint, Flask, Response
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
from werkzeug.exceptions import HTTPException
from werkzeug.wsgi import ClosingIterator

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


def init_app(app: Flask) -> None:
    """Stand around the application, watch its pool, and add the page that Prometheus reads."""
    app.register_blueprint(blueprint)
    app.wsgi_app = Counted(app)  # type: ignore[method-assign, assignment]  # as Flask has it
    pool = app.extensions["engine"].pool
    POOL_SIZE.set(pool.size())
    event.listen(pool, "checkout", lambda *_: POOL_IN_USE.inc())
    event.listen(pool, "checkin", lambda *_: POOL_IN_USE.dec())


class Counted:
    """The application, with every request of a user counted."""

    def __init__(self, app: Flask) -> None:
        self._app, self._answer = app, app.wsgi_app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer."""
        if environ["PATH_INFO"] in {"/metrics", "/livez", "/readyz"}:
            return self._answer(environ, start_response)
        request = Measured(environ["REQUEST_METHOD"], self._rule(environ))

        def start(status: str, *more: Any) -> Any:
            request.status = status[:3]
            return start_response(status, *more)

        try:
            answer = self._answer(environ, start)
        except BaseException:
            request.end()
            raise
        return ClosingIterator(answer, request.end)

    def _rule(self, environ: dict[str, Any]) -> str:
        try:
            rule, _ = self._app.url_map.bind_to_environ(environ).match(return_rule=True)
        except HTTPException:  # there is none, or not for this method
            return "-"
        return rule.rule


class Measured:
    """A request that is under way."""

    def __init__(self, method: str, route: str) -> None:
        self.status = "500"
        self._method = method if method in {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"} else "-"
        self._route = route
        self._began = perf_counter()
        IN_PROGRESS.inc()

    def end(self) -> None:
        """It is over."""
        IN_PROGRESS.dec()
        REQUESTS.labels(self._method, self._route, self.status).inc()
        DURATION.labels(self._method, self._route).observe(perf_counter() - self._began)


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
