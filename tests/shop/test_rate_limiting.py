"""The naive limit is off unless it is set. Solved, it holds with every other topic solved as well."""

import httpx2
import pytest
from sqlalchemy import Connection

from shopfloor.databases import Database
from shopfloor.services import Services
from shopfloor.stages import build, serve
from tests.shop.helpers import make_app

PATH = "/v1/products?limit=1"


@pytest.mark.parametrize(("settings", "passed"), [({}, 9), ({"rate_limit_per_address": 3}, 3)])
def test_the_naive_limit(
    database: Database,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    passed: int,
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)  # else a window may end in between
    client = make_app(database.url, connection, **settings).test_client()
    assert [client.get(PATH).status_code for _ in range(9)] == [200] * passed + [429] * (9 - passed)


@pytest.mark.slow
def test_the_solved_limit_among_all_solved_topics(database: Database, services: Services) -> None:
    settings = {"RATE_LIMIT_PER_USER": "3", "API_KEYS": "a-key-of-this-test", "CACHE_TIMEOUT_SECONDS": "5"}
    stage = build("solved")
    with (
        serve(stage, database_url=database.url, redis_url=services.redis_url, settings=settings, workers=2) as server,
        httpx2.Client(base_url=server.url, headers={"X-API-Key": "a-key-of-this-test"}, timeout=30) as client,
    ):
        answers = [client.get(PATH) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert answers[-1].headers["Content-Type"] == "application/problem+json"
        assert answers[-1].headers["X-Request-Id"]
        assert client.get("/livez").status_code == 200
        assert 'status="429"' in client.get("/metrics").text
