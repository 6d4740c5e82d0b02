"""The delivery company says the same price to whoever asks, and sends a courier for every request that arrives."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from shopfloor.services.delivery import Couriers, start_delivery
from shopfloor.services.providers import Plan, Provider, running


@pytest.fixture
def delivery() -> Iterator[Provider]:
    with running(Provider(Couriers())) as provider:
        yield provider


def quote(delivery: Provider, **params: str | int) -> httpx2.Response:
    return httpx2.get(f"{delivery.url}/quotes", params=params)


def test_a_quote_depends_on_nothing_else(delivery: Provider) -> None:
    first = quote(delivery, city="Turin", items=3, speed="express").json()
    assert first == {"price": {"amount": 1020, "currency": "EUR"}, "days": 1}
    with running(Provider(Couriers())) as other:
        assert quote(other, city=" turin", items=3, speed="express").json() == first
    assert delivery.made() == []


def test_a_quote_depends_on_its_arguments(delivery: Provider) -> None:
    standard = quote(delivery, city="Turin", items=3).json()
    assert standard == quote(delivery, city="Turin", items=3, speed="standard").json()
    assert standard["days"] > 1
    assert standard["price"]["amount"] > quote(delivery, city="Turin", items=2).json()["price"]["amount"]
    cities = {quote(delivery, city=city, items=1).content for city in ("Turin", "Łódź", "São Paulo", "Oslo", "Graz")}
    assert len(cities) > 1


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"city": "Turin"},
        {"items": 1},
        {"city": " ", "items": 1},
        {"city": "x" * 101, "items": 1},
        *({"city": "Turin", "items": items} for items in (0, -1, "", "two", "1.5", "²", "10001", "9" * 5000)),
        {"city": "Turin", "items": 1, "speed": "warp"},
    ],
    ids=lambda params: str(params)[:40],
)
def test_bad_question_is_refused(delivery: Provider, params: dict[str, str | int]) -> None:
    answer = quote(delivery, **params)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_each_request_is_one_more_courier(delivery: Provider) -> None:
    headers = {"Idempotency-Key": "the-same"}
    answers = [httpx2.post(f"{delivery.url}/pickups", json={"reference": "order-1"}, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    ids = [answer.json()["id"] for answer in answers]
    assert len(set(ids)) == 2
    assert delivery.made() == [{"id": each, "reference": "order-1"} for each in ids]
    assert httpx2.get(f"{delivery.url}/stats").json() == {"requests": 2, "pickups": 2}


def test_a_courier_comes_though_the_answer_is_lost(delivery: Provider) -> None:
    delivery.plan = Plan(script=("lost",))
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.post(f"{delivery.url}/pickups", json={"reference": "order-1"})
    assert len(delivery.made()) == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"reference": ""}', b'{"reference": 1}', b"[" * 10_000,
                                  b'{"reference": "x", "more": 1}'], ids=lambda body: str(body)[:30])  # fmt: skip
def test_bad_pickup_is_refused(delivery: Provider, body: bytes) -> None:
    assert httpx2.post(f"{delivery.url}/pickups", content=body).status_code == 400
    assert delivery.made() == []


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/pickups"), ("POST", "/quotes")])
def test_nothing_else_is_there(delivery: Provider, method: str, path: str) -> None:
    assert httpx2.request(method, delivery.url + path).status_code == 404


def test_it_is_a_process_of_its_own_too(tmp_path: Path) -> None:
    with start_delivery(log=tmp_path / "log") as delivery:
        assert httpx2.post(f"{delivery.url}/pickups", json={"reference": "order-1"}).status_code == 201
        assert [pickup["reference"] for pickup in delivery.made()] == ["order-1"]
