"""The payment provider charges once for each key, and refuses what it should."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from shopfloor.services.payments import DECLINED, start_payments
from shopfloor.services.providers import ProviderProcess
from tests.services.conftest import assert_gone, listeners

CHARGE = {"amount": 1999, "currency": "EUR", "reference": "order-1"}


@pytest.fixture
def payments(tmp_path: Path) -> Iterator[ProviderProcess]:
    with start_payments(log=tmp_path / "payments.log") as payments:
        yield payments


def call(
    payments: ProviderProcess, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], Any]:
    connection = HTTPConnection(urlsplit(payments.url).netloc, timeout=30)
    try:
        sent = body if isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path, body=sent, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.headers), json.loads(response.read())
    finally:
        connection.close()


def charge(payments: ProviderProcess, body: object, key: str = "key-1") -> tuple[int, dict[str, str], Any]:
    return call(payments, "POST", "/charges", body, {"Idempotency-Key": key})


def stats(payments: ProviderProcess) -> dict[str, int]:
    _, _, content = call(payments, "GET", "/stats")
    assert isinstance(content, dict)
    return content


def test_charge(payments: ProviderProcess) -> None:
    status, _, content = charge(payments, CHARGE)
    assert status == 201
    assert content["status"] == "succeeded"
    assert content["id"]
    assert stats(payments) == {"requests": 1, "charges": 1}


def test_same_key_and_body_is_charged_once(payments: ProviderProcess) -> None:
    _, first_headers, first = charge(payments, CHARGE)
    status, headers, again = charge(payments, dict(reversed(CHARGE.items())))
    assert (status, again) == (201, first)
    assert "Idempotent-Replayed" not in first_headers
    assert headers["Idempotent-Replayed"] == "true"
    assert stats(payments) == {"requests": 2, "charges": 1}


def test_same_key_at_the_same_time_is_charged_once(payments: ProviderProcess) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: charge(payments, CHARGE), range(16)))
    assert {status for status, _, _ in answers} == {201}
    assert len({content["id"] for _, _, content in answers}) == 1
    assert stats(payments) == {"requests": 16, "charges": 1}


def test_another_key_is_another_charge(payments: ProviderProcess) -> None:
    _, _, first = charge(payments, CHARGE, "key-1")
    _, _, second = charge(payments, CHARGE, "key-2")
    assert first["id"] != second["id"]
    assert stats(payments) == {"requests": 2, "charges": 2}


def test_same_key_with_another_body_is_refused(payments: ProviderProcess) -> None:
    charge(payments, CHARGE)
    status, headers, problem = charge(payments, CHARGE | {"amount": 1})
    assert status == 422
    assert headers["Content-Type"] == "application/problem+json"
    assert "another body" in problem["detail"]
    assert stats(payments) == {"requests": 2, "charges": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"[" * 10_000,
        [],
        {"amount": 1, "currency": "EUR"},
        CHARGE | {"tip": 1},
        *(CHARGE | {"amount": amount} for amount in (0, -1, 1.5, "1", True, None, 10**12)),
        *(CHARGE | {"currency": currency} for currency in ("eur", "EURO", "", 978)),
        *(CHARGE | {"reference": reference} for reference in ("", "x" * 101, 1)),
    ],
    ids=lambda body: repr(body)[:40],
)
def test_bad_charge_is_refused(payments: ProviderProcess, body: object) -> None:
    status, _, problem = charge(payments, body)
    assert (status, problem["status"]) == (400, 400)
    assert stats(payments) == {"requests": 1, "charges": 0}


def test_key_is_required(payments: ProviderProcess) -> None:
    status, _, problem = call(payments, "POST", "/charges", CHARGE)
    assert status == 400
    assert "Idempotency-Key" in problem["detail"]


def test_card_that_is_declined(payments: ProviderProcess) -> None:
    body = CHARGE | {"reference": f"6e2f8a1c-0000-4000-8000-0000{DECLINED}"}
    status, headers, problem = charge(payments, body)
    assert (status, headers["Content-Type"]) == (402, "application/problem+json")
    again_status, again_headers, again = charge(payments, body)
    assert (again_status, again, again_headers["Idempotent-Replayed"]) == (402, problem, "true")
    assert stats(payments) == {"requests": 2, "charges": 0}


def test_charges_of_a_reference(payments: ProviderProcess) -> None:
    _, _, first = charge(payments, CHARGE, "key-1")
    _, _, second = charge(payments, CHARGE, "key-2")
    charge(payments, CHARGE | {"reference": "order 2"}, "key-3")
    assert call(payments, "GET", "/charges?reference=order-1")[2] == {"data": [first, second]}
    assert len(call(payments, "GET", "/charges?reference=order%202")[2]["data"]) == 1
    assert call(payments, "GET", "/charges?reference=nobody")[2] == {"data": []}
    assert call(payments, "GET", "/charges")[0] == 400
    assert payments.made()[:2] == [first, second]


@pytest.mark.parametrize("length", ["20000", "-1", "many"])
def test_body_has_a_limit(payments: ProviderProcess, length: str) -> None:
    connection = HTTPConnection(urlsplit(payments.url).netloc, timeout=30)
    connection.putrequest("POST", "/charges")
    connection.putheader("Content-Length", length)
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 400
    assert response.headers["Connection"] == "close"
    connection.close()


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("DELETE", "/charges"), ("POST", "/refunds")])
def test_nothing_else_is_there(payments: ProviderProcess, method: str, path: str) -> None:
    assert call(payments, method, path, {})[0] == 404


def test_connection_is_kept(payments: ProviderProcess) -> None:
    connection = HTTPConnection(urlsplit(payments.url).netloc, timeout=30)
    for key in ("1", "2"):
        connection.request("POST", "/charges", json.dumps(CHARGE), {"Idempotency-Key": key})
        response = connection.getresponse()
        assert response.status == 201
        response.read()
        assert connection.sock is not None
    connection.close()


def test_listens_on_loopback_alone_and_ends(tmp_path: Path) -> None:
    with start_payments(log=tmp_path / "log") as payments:
        process = psutil.Process(payments.child.pid)
        assert listeners([process]) - {""} == {"127.0.0.1"}  # socket pairs have no address
    assert_gone([process])


def test_two_providers_know_nothing_of_each_other(payments: ProviderProcess, tmp_path: Path) -> None:
    with start_payments(log=tmp_path / "other.log") as other:
        charge(payments, CHARGE)
        assert stats(other) == {"requests": 0, "charges": 0}
