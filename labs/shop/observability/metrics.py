"""What the shop counts, at `/metrics` in Prometheus's text format: what the client library counts by itself.

What others rely on, once it is there:

- `http_requests_total{method, route, status}`, a counter: requests answered. `route` is the rule that Flask matched, as
  it is written (`/v1/orders/<uuid:public_id>`), and one and the same value for all that match none; `status` is the
  code, such as `404`.
- `http_request_duration_seconds{method, route}`, a histogram: how long they took.
- `http_requests_in_progress`, a gauge: requests that are being answered.
- `db_pool_connections_in_use` and `db_pool_size`, gauges: the connections to the database that somebody holds, and how
  many there can be.

Requests for `/metrics`, `/livez` and `/readyz` are in none of them. With `PROMETHEUS_MULTIPROC_DIR` in the environment,
several processes share that folder, and each tells the sum of all.

Source: Prometheus, "Exposition formats", https://prometheus.io/docs/instrumenting/exposition_formats/.
"""

from flask import Blueprint, Flask, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

blueprint = Blueprint("metrics", __name__)


def init_app(app: Flask) -> None:
    """Add the page that Prometheus reads."""
    app.register_blueprint(blueprint)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Every metric of this process's registry."""
    return Response(generate_latest(), content_type=CONTENT_TYPE_LATEST)
