"""The outside payment provider: someone else's service, reached over HTTP alone.

It is a process of its own that shares nothing with the shop. What it charged it remembers until it ends.

    POST /charges   {"amount": 1999, "currency": "EUR", "reference": "order-1"} with an Idempotency-Key
    GET /stats      {"requests": 3, "charges": 1}

A request with a known key gets the stored answer, and nothing is charged again; with a known key and another body
it is refused (draft-ietf-httpapi-idempotency-key-header). Refusals are problem details (RFC 9457).
"""

import json
import re
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from shopfloor.services.process import Child, start_child, wait_until_ready

LARGEST_BODY = 16 * 1024
LARGEST_AMOUNT = 10**9
REQUEST_QUEUE = 128


@dataclass(frozen=True)
class Payments:
    """A running payment provider.

    Attributes:
        url: its base address, without a slash at the end.
        child: its process.
    """

    url: str
    child: Child


@contextmanager
def start_payments(*, log: Path) -> Iterator[Payments]:
    """Start a payment provider of one's own on a free loopback port, and end it afterwards.

    Args:
        log: gets what it prints.

    Raises:
        ChildError: it does not answer.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=REQUEST_QUEUE) as listener:
        port = listener.getsockname()[1]
        child = start_child(
            [sys.executable, "-m", "shopfloor.services.payments", str(listener.fileno())],
            log=log,
            pass_fds=(listener.fileno(),),
        )
    with child:
        wait_until_ready(child, lambda: answers(port), name="The payment provider")
        yield Payments(url=f"http://127.0.0.1:{port}", child=child)


def answers(port: int) -> bool:
    """Whether the provider is up."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/stats")
        return connection.getresponse().status == HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


class Refused(Exception):  # noqa: N818 - an answer of the protocol, not an error of the program
    """A request that is answered with problem details."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Charges:
    """What was charged, by idempotency key."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._requests = 0
        self._by_key: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}

    def count_request(self) -> None:
        """Count a request to charge, whatever becomes of it."""
        with self._turn:
            self._requests += 1

    def charge(self, key: str, body: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Charge once for each key; return the charge, and whether it had been made before.

        Raises:
            Refused: the key was used with another body.
        """
        with self._turn:
            if key in self._by_key:
                first, charge = self._by_key[key]
                if first != body:
                    raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "This Idempotency-Key came with another body before")
                return charge, True
            charge = {"id": f"ch_{uuid.uuid4().hex}", "status": "succeeded", **body}
            self._by_key[key] = body, charge
            return charge, False

    def stats(self) -> dict[str, int]:
        """How many requests to charge came, and how many charges were made."""
        with self._turn:
            return {"requests": self._requests, "charges": len(self._by_key)}


def checked(body: bytes) -> dict[str, Any]:
    """The fields of a charge.

    Raises:
        Refused: one of them is missing, unknown, or not what it should be.
    """
    try:
        fields = json.loads(body)
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "The body is not JSON") from None
    if not isinstance(fields, dict) or fields.keys() != {"amount", "currency", "reference"}:
        raise Refused(HTTPStatus.BAD_REQUEST, "The body must have amount, currency and reference, and nothing else")
    amount, currency, reference = fields["amount"], fields["currency"], fields["reference"]
    if type(amount) is not int or not 0 < amount <= LARGEST_AMOUNT:
        raise Refused(HTTPStatus.BAD_REQUEST, f"amount must be a whole number of minor units, 1 to {LARGEST_AMOUNT}")
    if not isinstance(currency, str) or not re.fullmatch("[A-Z]{3}", currency):
        raise Refused(HTTPStatus.BAD_REQUEST, "currency must be three capital letters (ISO 4217)")
    if not isinstance(reference, str) or not 0 < len(reference) <= 100:
        raise Refused(HTTPStatus.BAD_REQUEST, "reference must be a text of 1 to 100 characters")
    return fields


class Handler(BaseHTTPRequestHandler):
    """The routes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_version = "payments"
    charges: Charges  # set by `main`

    def do_GET(self) -> None:  # noqa: D102 - the name is the standard library's
        if self.path == "/stats":
            self._answer(HTTPStatus.OK, self.charges.stats())
        else:
            self._refuse(Refused(HTTPStatus.NOT_FOUND, f"Nothing is at {self.path}"))

    def do_POST(self) -> None:  # noqa: D102
        try:
            body = self._body()
            if self.path != "/charges":
                raise Refused(HTTPStatus.NOT_FOUND, f"Nothing is at {self.path}")
            self.charges.count_request()
            key = self.headers["Idempotency-Key"]
            if not key:
                raise Refused(HTTPStatus.BAD_REQUEST, "The header Idempotency-Key is missing")
            charge, again = self.charges.charge(key, checked(body))
        except Refused as refused:
            self._refuse(refused)
        else:
            self._answer(HTTPStatus.CREATED, charge, **({"Idempotent-Replayed": "true"} if again else {}))

    def _body(self) -> bytes:
        length = self.headers["Content-Length"] or ""
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            self.close_connection = True  # what follows cannot be told from the next request
            raise Refused(HTTPStatus.BAD_REQUEST, f"The body needs a Content-Length of at most {LARGEST_BODY} bytes")
        return self.rfile.read(int(length))

    def _refuse(self, refused: Refused) -> None:
        problem = {"title": refused.status.phrase, "status": refused.status.value, "detail": refused.detail}
        self._answer(refused.status, problem, **{"Content-Type": "application/problem+json"})

    def _answer(self, status: HTTPStatus, content: object, **headers: str) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing: under load this would be most of the work."""


def main(descriptor: int) -> None:
    """Serve on a listening socket until killed."""
    Handler.charges = Charges()
    listener = socket.socket(fileno=descriptor)
    server = ThreadingHTTPServer(listener.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
