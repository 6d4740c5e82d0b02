"""The delivery company: someone else's service, reached over HTTP alone.

    GET /quotes?city=Turin&items=3&speed=express    {"price": {"amount": 1020, "currency": "EUR"}, "days": 1}
    POST /pickups {"reference": "order-1"}          201 {"id": "pu_...", "reference": "order-1"}: a courier comes

A quote depends on nothing but the city, the number of items and the speed (`standard` when it is not said, or
`express`), and may be asked for as often as one likes. A pickup may not: the company knows no idempotency keys, so
each request that arrives is one more courier. Refusals are problem details (RFC 9457).
"""

import json
import sys
import uuid
import zlib
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from shopfloor.services.provider_http import Answer, Request, problem
from shopfloor.services.providers import ProviderProcess, provider_process, serve_process

MOST_ITEMS = 10_000
FARTHEST = 8  # zones


def start_delivery(*, log: Path) -> AbstractContextManager[ProviderProcess]:
    """Start a delivery company of one's own on a free loopback port, and end it afterwards.

    Args:
        log: gets what it prints.

    Raises:
        ChildError: it does not start.
    """
    return provider_process("shopfloor.services.delivery", log=log)


class Couriers:
    """The company's service: its prices, and the couriers that were ordered."""

    makes = "pickups"

    def __init__(self) -> None:
        self._pickups: list[dict[str, Any]] = []

    def made(self) -> list[dict[str, Any]]:
        """The pickups, oldest first."""
        return list(self._pickups)

    def answer(self, request: Request) -> Answer:
        """Do what is asked."""
        match request.method, request.path:
            case "GET", "/quotes":
                return _quote(request)
            case "POST", "/pickups":
                return self._book(request)
        return problem(HTTPStatus.NOT_FOUND, f"Nothing is at {request.method} {request.path}")

    def _book(self, request: Request) -> Answer:
        try:
            fields = json.loads(request.body)
        except (ValueError, RecursionError):
            fields = None
        reference = fields.get("reference") if isinstance(fields, dict) and len(fields) == 1 else None
        if not isinstance(reference, str) or not 0 < len(reference) <= 100:
            return problem(HTTPStatus.BAD_REQUEST, "The body must be JSON with a reference of 1 to 100 characters")
        pickup = {"id": f"pu_{uuid.uuid4().hex}", "reference": reference}
        self._pickups.append(pickup)
        return Answer(HTTPStatus.CREATED, pickup)


def _quote(request: Request) -> Answer:
    city, items = request.query.get("city", "").strip(), request.query.get("items", "")
    speed = request.query.get("speed", "standard")
    if not 0 < len(city) <= 100:
        return problem(HTTPStatus.BAD_REQUEST, "city must be a text of 1 to 100 characters")
    if not (items.isascii() and items.isdigit() and len(items) <= 5 and 0 < int(items) <= MOST_ITEMS):
        return problem(HTTPStatus.BAD_REQUEST, f"items must be a whole number, 1 to {MOST_ITEMS}")
    if speed not in {"standard", "express"}:
        return problem(HTTPStatus.BAD_REQUEST, "speed must be standard or express")
    zone = 1 + zlib.crc32(city.casefold().encode()) % FARTHEST
    amount = 300 + 40 * zone + 25 * (int(items) - 1)
    days = 1 + zone // 2
    if speed == "express":
        amount, days = 2 * amount, 1
    return Answer(HTTPStatus.OK, {"price": {"amount": amount, "currency": "EUR"}, "days": days})


if __name__ == "__main__":
    serve_process(Couriers(), sys.argv[1:])
