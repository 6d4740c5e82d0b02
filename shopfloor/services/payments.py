"""The outside payment provider: someone else's service, reached over HTTP alone.

It shares nothing with the shop. What it charged it remembers until it ends.

    POST /charges   {"amount": 1999, "currency": "EUR", "reference": "order-1"} with an Idempotency-Key
                    201 {"id": "ch_...", "status": "succeeded", and the three}
    GET /charges?reference=order-1      {"data": [those charges]}, for whoever never saw the answer

A request with a known key gets the stored answer again, with the header Idempotent-Replayed, and nothing is charged;
with a known key and another body it is refused (draft-ietf-httpapi-idempotency-key-header). A card is declined, with
402, when the reference ends in 00000402, which no order has by accident. Refusals are problem details (RFC 9457).
"""

import json
import re
import sys
import uuid
from contextlib import AbstractContextManager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from shopfloor.services.provider_http import Answer, Request, problem
from shopfloor.services.providers import ProviderProcess, provider_process, serve_process

DECLINED = "00000402"
"""What the reference of a charge ends in whose card is declined."""

LARGEST_AMOUNT = 10**9


def start_payments(*, log: Path) -> AbstractContextManager[ProviderProcess]:
    """Start a payment provider of one's own on a free loopback port, and end it afterwards.

    Args:
        log: gets what it prints.

    Raises:
        ChildError: it does not start.
    """
    return provider_process("shopfloor.services.payments", log=log)


class Refused(Exception):  # noqa: N818 - an answer of the protocol, not an error of the program
    """A charge is not what it should be; the message says why."""


class Charges:
    """The provider's service: what was charged, and what was answered to each idempotency key."""

    makes = "charges"

    def __init__(self) -> None:
        self._charges: list[dict[str, Any]] = []
        self._answers: dict[str, tuple[dict[str, Any], Answer]] = {}

    def made(self) -> list[dict[str, Any]]:
        """The charges, oldest first."""
        return list(self._charges)

    def answer(self, request: Request) -> Answer:
        """Do what is asked."""
        match request.method, request.path:
            case "POST", "/charges":
                return self._charge(request)
            case "GET", "/charges":
                return self._find(request)
        return problem(HTTPStatus.NOT_FOUND, f"Nothing is at {request.method} {request.path}")

    def _find(self, request: Request) -> Answer:
        reference = request.query.get("reference")
        if reference is None:
            return problem(HTTPStatus.BAD_REQUEST, "The parameter reference is missing")
        return Answer(HTTPStatus.OK, {"data": [each for each in self._charges if each["reference"] == reference]})

    def _charge(self, request: Request) -> Answer:
        key = request.headers.get("idempotency-key")
        if not key:
            return problem(HTTPStatus.BAD_REQUEST, "The header Idempotency-Key is missing")
        try:
            fields = checked(request.body)
        except Refused as refused:
            return problem(HTTPStatus.BAD_REQUEST, str(refused))
        if key not in self._answers:
            answer = self._new_charge(fields)
            self._answers[key] = fields, answer
            return answer
        first, answer = self._answers[key]
        if first != fields:
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "This Idempotency-Key came with another body before")
        return replace(answer, headers={**answer.headers, "Idempotent-Replayed": "true"})

    def _new_charge(self, fields: dict[str, Any]) -> Answer:
        if fields["reference"].endswith(DECLINED):
            return problem(HTTPStatus.PAYMENT_REQUIRED, "The card was declined")
        charge = {"id": f"ch_{uuid.uuid4().hex}", "status": "succeeded", **fields}
        self._charges.append(charge)
        return Answer(HTTPStatus.CREATED, charge)


def checked(body: bytes) -> dict[str, Any]:
    """The fields of a charge.

    Raises:
        Refused: one of them is missing, unknown, or not what it should be.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused("The body is not JSON") from None
    if not isinstance(fields, dict) or fields.keys() != {"amount", "currency", "reference"}:
        raise Refused("The body must have amount, currency and reference, and nothing else")
    amount, currency, reference = fields["amount"], fields["currency"], fields["reference"]
    if type(amount) is not int or not 0 < amount <= LARGEST_AMOUNT:
        raise Refused(f"amount must be a whole number of minor units, 1 to {LARGEST_AMOUNT}")
    if not isinstance(currency, str) or not re.fullmatch("[A-Z]{3}", currency):
        raise Refused("currency must be three capital letters (ISO 4217)")
    if not isinstance(reference, str) or not 0 < len(reference) <= 100:
        raise Refused("reference must be a text of 1 to 100 characters")
    return fields


if __name__ == "__main__":
    serve_process(Charges(), sys.argv[1:])
