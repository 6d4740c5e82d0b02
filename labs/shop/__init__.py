"""A small online shop: JSON over HTTP under /v1, and of late under /v2.

Each topic of the handbook is a module of the same address, and what a module adds to the application it adds in its
`init_app`. A module that no one has improved yet is naive but works.
"""

from flask import Flask

from shop import back_office, database, live, marketplace, outgoing, partners, warehouse
from shop.api import errors, idempotency, openapi, pagination, rate_limiting, resources, versioning
from shop.data import caching
from shop.foundations import business_logic, middleware, request_content
from shop.observability import logging, metrics, slo, tracing
from shop.reliability import bulkheads, circuit_breaker, shutdown, timeouts_retries
from shop.settings import Settings

# The order is the order of the middleware: what stands first sees a request first and its response last. What wraps
# `app.wsgi_app` stands around all of that, and there the last one is outermost.
TOPICS = (
    outgoing,
    database,
    tracing,
    logging,
    metrics,
    errors,
    middleware,
    rate_limiting,
    caching,
    timeouts_retries,
    circuit_breaker,
    bulkheads,
    slo,
    shutdown,
    warehouse,
    request_content,
    resources,
    pagination,
    business_logic,
    marketplace,
    idempotency,
    openapi,
    partners,
    back_office,
    live,
    versioning,
)


def create_app(settings: Settings | None = None) -> Flask:
    """Make the application.

    Args:
        settings: read from the environment when not given.

    Raises:
        shop.settings.SettingsError: the environment does not describe a shop that can start.
    """
    app = Flask(__name__)
    app.config["SETTINGS"] = settings or Settings.from_environment()
    for topic in TOPICS:
        topic.init_app(app)
    return app
