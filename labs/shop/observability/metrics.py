"""What the shop counts, at `/metrics` in Prometheus's text format: what the client library counts by itself.

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
