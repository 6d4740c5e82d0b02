"""Requests that Schemathesis makes of a document: of a small service with planted faults, and of the solved shop."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, jsonify, request
from sqlalchemy import text

from shopfloor import databases, stages
from shopfloor.conformance import try_examples
from shopfloor.loopback import over_http
from shopfloor.services import Services
from shopfloor.services.delivery import start_delivery
from shopfloor.services.payments import start_payments

Json = dict[str, Any]


def document(**answers: Json) -> Json:
    """Of one operation, which takes a quantity from 1 to 100."""
    quantity = {"type": "integer", "minimum": 1, "maximum": 100}
    body = {"type": "object", "properties": {"quantity": quantity}, "required": ["quantity"]}
    responses = {status.removeprefix("s"): {"description": "An answer", **answer} for status, answer in answers.items()}
    told = {
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": responses,
    }
    return {"openapi": "3.1.0", "info": {"title": "T", "version": "1"}, "paths": {"/orders": {"post": told}}}


def shop(most: int) -> Flask:
    """A service that refuses quantities beyond `most`."""
    app = Flask("tiny")

    @app.post("/orders")
    def order() -> tuple[Response, int]:
        sent = request.get_json(silent=True)
        quantity = sent.get("quantity") if isinstance(sent, dict) else None
        if type(quantity) is not int or not 1 <= quantity <= most:
            return jsonify(error="no"), 422
        return jsonify(quantity=quantity), 201

    return app


DESCRIBED: Json = {"s201": {}, "s422": {}, "s405": {}}


@pytest.mark.slow
def test_a_document_that_is_true() -> None:
    with over_http(shop(100)) as url:
        tried = try_examples(document(**DESCRIBED), url, examples=20, drawn=20)
    assert tried.findings == []
    assert 20 <= tried.examples <= 40
    assert {201, 422} <= tried.statuses.keys()


@pytest.mark.slow
@pytest.mark.parametrize("drawn", [0, 60])
def test_what_is_forbidden_and_accepted(drawn: int) -> None:
    """The same from the edges, and from what is drawn at random and made smaller."""
    with over_http(shop(10**9)) as url:
        tried = try_examples(document(**DESCRIBED), url, examples=0 if drawn else 40, drawn=drawn)
    assert [finding.operation for finding in tried.findings] == ["POST /orders"]
    assert tried.findings[0].request == 'POST /orders {"quantity": 101}'
    assert tried.findings[0].status == 201


def test_a_status_that_is_not_described() -> None:
    with over_http(shop(100)) as url:
        tried = try_examples(document(s201={}), url, examples=20, to_first_finding=True)
    assert [(finding.status, finding.title) for finding in tried.findings] == [(422, "Undocumented status code")]


def test_the_server_in_the_document_is_part_of_the_address() -> None:
    with over_http(shop(100)) as url:
        elsewhere = document(**DESCRIBED) | {"servers": [{"url": "/v1"}]}
        assert {404} == try_examples(elsewhere, url, examples=3).statuses.keys()


IDS = {
    "products": "SELECT public_id::text FROM products WHERE withdrawn_at IS NULL ORDER BY id LIMIT 40",
    "customers": "SELECT public_id::text FROM customers ORDER BY id LIMIT 9",
    "orders": "(SELECT public_id::text FROM orders WHERE status = 'pending' AND total_amount > 0 ORDER BY id LIMIT 60)"
    " UNION ALL (SELECT public_id::text FROM orders WHERE status = 'paid' ORDER BY id LIMIT 20)",
}


@pytest.mark.slow
def test_the_solved_shop_keeps_its_contract(services: Services, tmp_path: Path) -> None:
    """All topics so far together: no server error, and nothing else that its document does not say."""
    with (
        start_payments(log=tmp_path / "payments") as payments,
        start_delivery(log=tmp_path / "delivery") as delivery,
        databases.clone(services, "small") as database,
    ):
        with database.engine.connect() as connection:
            known = {name: list(connection.scalars(text(query))) for name, query in IDS.items()}
        settings = {
            "PAYMENTS_URL": payments.url,
            "DELIVERY_URL": delivery.url,
            "UPLOADS_FOLDER": str(tmp_path / "uploads"),
            "BACK_OFFICE_MANAGER_TOKEN": "manager",
            "BACK_OFFICE_WRONG_TOKENS": "1000000",
            "CORS_ORIGINS": "https://www.shop.example",
            "COMPRESS_FROM_BYTES": "0",
            "V1_DEPRECATED_AT": "2026-03-01T00:00:00Z",
            "CONNECT_TIMEOUT_SECONDS": "10",  # a slow machine is no server error
            "READ_TIMEOUT_SECONDS": "20",
            "DEADLINE_SECONDS": "60",
        }
        redis_url = services.redis_url
        solved = stages.build("solved")
        with stages.serve(solved, database_url=database.url, redis_url=redis_url, settings=settings) as server:
            with urllib.request.urlopen(f"{server.url}/v1/openapi.json") as answer:
                contract = json.load(answer)
            headers = {"Authorization": "Bearer manager"}
            tried = try_examples(contract, server.url, examples=500, drawn=280, headers=headers, known=known)
            # The second version has another contract, which nobody has written: it may refuse, and must not break.
            second = json.loads(json.dumps(contract).replace('"/v1/', '"/v2/'))
            del second["paths"]["/v2/openapi.json"]
            in_second = try_examples(second, server.url, examples=300, headers=headers, known=known)
    assert [status for status in tried.statuses if status >= 500] == []
    assert [status for status in in_second.statuses if status >= 500] == []
    assert in_second.statuses[200] > 0
    assert tried.findings == []
    assert tried.statuses.keys() >= {200, 201, 204, 207, 404, 409, 422}
