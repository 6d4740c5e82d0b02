"""Errors as the solution of `api/errors` tells them: what its checks, which see it from outside, cannot bring about."""

from types import ModuleType

import pytest
from flask import Flask, abort, got_request_exception
from sqlalchemy import Connection
from werkzeug.wrappers import Response

from shop.api import errors
from shop.foundations.validation import Invalid
from shopfloor.databases import Database
from tests.shop.helpers import load_solution, make_app


@pytest.fixture
def solution(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    solution = load_solution("api/errors")
    monkeypatch.setattr(errors, "init_app", solution.init_app)
    return solution


@pytest.fixture
def app(solution: ModuleType, database: Database, connection: Connection) -> Flask:
    return make_app(database.url, connection)


def failing(app: Flask, error: Exception) -> None:
    def fault() -> None:
        raise error

    app.add_url_rule("/fault", view_func=fault)


def test_what_cannot_be_json_is_told_as_text(app: Flask) -> None:
    failing(app, Invalid([{"field": "name", "detail": "No.", "context": {"error": ValueError("why")}}]))
    answer = app.test_client().get("/fault")
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert answer.json["errors"][0]["context"] == {"error": "why"}


def test_tracing_hears_of_a_bug_once(app: Flask) -> None:
    heard: list[Exception] = []

    def hear(_app: Flask, exception: Exception) -> None:
        heard.append(exception)

    got_request_exception.connect(hear, app)
    failing(app, ZeroDivisionError("of the test"))
    answer = app.test_client().get("/fault")
    assert answer.status_code == 500
    assert "of the test" not in answer.text
    assert [type(error) for error in heard] == [ZeroDivisionError]


def test_an_error_with_a_response_of_its_own_keeps_it(app: Flask) -> None:
    app.add_url_rule("/fault", view_func=lambda: abort(Response("as I say", 418)))
    answer = app.test_client().get("/fault")
    assert (answer.status_code, answer.text) == (418, "as I say")


def test_every_type_is_explained_and_no_other(app: Flask, solution: ModuleType) -> None:
    client = app.test_client()
    for name in solution.TYPES:
        assert client.get(f"/problems/{name}").json == {
            "title": solution.TYPES[name].title,
            "meaning": solution.TYPES[name].meaning,
        }
    assert client.get("/problems/none").status_code == 404
