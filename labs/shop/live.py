"""What becomes of an order, told as it happens, to whoever watches it: given code, no lab changes it.

The answer is a stream of server-sent events that lasts until the order is delivered or cancelled. There is a limit to
how many may watch at once, since each keeps a thread. Without the setting `order_watchers` there is no such route.

Source: WHATWG, "HTML", section 9.2, Server-sent events.
"""

import json
import time
from collections.abc import Iterator
from threading import BoundedSemaphore
from uuid import UUID

from flask import Blueprint, Flask, Response, current_app
from sqlalchemy import Engine, select
from werkzeug.exceptions import NotFound, ServiceUnavailable

from shop import database
from shop.models import Order
from shop.settings import settings_of

LAST = frozenset({"delivered", "cancelled"})

blueprint = Blueprint("live", __name__, url_prefix="/v1")


def init_app(app: Flask) -> None:
    """Add the route, if anybody may watch."""
    watchers = settings_of(app).order_watchers
    if watchers is not None:
        app.extensions["watchers"] = BoundedSemaphore(watchers)
        app.register_blueprint(blueprint)


@blueprint.get("/orders/<uuid:public_id>/events")
def events(public_id: UUID) -> Response:
    """The order's status, and each one that it gets from now on."""
    places: BoundedSemaphore = current_app.extensions["watchers"]
    status = _status(database.engine(), public_id)
    if status is None:
        raise NotFound("There is no such order.")
    if not places.acquire(blocking=False):
        raise ServiceUnavailable("As many as can be are watching their orders.", retry_after=5)
    told = _events(database.engine(), public_id, status, settings_of(current_app).order_watch_seconds)
    answer = Response(told, content_type="text/event-stream", headers={"Cache-Control": "no-store"})
    answer.call_on_close(places.release)
    return answer


def _events(engine: Engine, public_id: UUID, status: str | None, seconds: float) -> Iterator[str]:
    """Each status once; in between a comment, by which one notices that nobody listens any more."""
    told = None
    while status is not None:
        yield ": nothing new\n\n" if status == told else f"event: status\ndata: {json.dumps({'status': status})}\n\n"
        told = status
        if status in LAST:
            return
        time.sleep(seconds)
        status = _status(engine, public_id)


def _status(engine: Engine, public_id: UUID) -> str | None:
    """On a connection that is given back at once: who watches needs one only now and then."""
    with engine.connect() as connection:
        return connection.scalar(select(Order.status).where(Order.public_id == public_id))
