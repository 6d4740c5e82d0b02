"""The warehouse, which is told of each order that has been placed: given code, no lab changes it.

It is a service of its own with a database of its own, so nothing that is told it can be taken back by a rollback.
"""

from typing import Any, cast

import httpx2
from flask import Flask, current_app

from shop import outgoing
from shop.settings import settings_of


def init_app(app: Flask) -> None:
    """Give the application its way to the warehouse, if there is one."""
    settings, client = settings_of(app), None
    if settings.warehouse_url:
        client = httpx2.Client(
            base_url=str(settings.warehouse_url),
            timeout=settings.read_timeout_seconds,
            verify=settings.warehouse_url.scheme == "https",  # else reading the certificates takes 30 ms for nothing
        )
    app.extensions["warehouse"] = client


def tell(order: dict[str, Any]) -> bool:
    """Tell the warehouse of an order, and wait until it has heard.

    A warehouse that does not answer is no reason to refuse an order: what went wrong is logged.

    Args:
        order: as `shop.foundations.serialization.order_json` has it.

    Returns:
        Whether it has heard, as far as can be known.
    """
    client = cast("httpx2.Client | None", current_app.extensions["warehouse"])
    if client is None:
        return False
    try:
        client.post("/orders", json=order, headers=outgoing.headers()).raise_for_status()
    except httpx2.HTTPError as error:
        current_app.logger.warning("the warehouse was not told: %s", error, extra={"order": order["id"]})
        return False
    return True
