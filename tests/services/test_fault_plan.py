"""A fault plan says what it can mean, and draws the same again."""

import math
from collections import Counter
from statistics import median, quantiles
from typing import Any

import pytest

from shopfloor.services.fault_plan import Draws, Fault, Plan, fault


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ok", Fault("ok", "ok")),
        ("error", Fault("error", "error", status=503)),
        ("error 402", Fault("error 402", "error", status=402)),
        ("slow", Fault("slow", "slow", seconds=1)),
        ("slow 0.25", Fault("slow 0.25", "slow", seconds=0.25)),
        ("limited", Fault("limited", "limited", seconds=1)),
        ("limited date", Fault("limited date", "limited", seconds=1, as_date=True)),
        ("limited 7", Fault("limited 7", "limited", seconds=7)),
        ("limited 7 date", Fault("limited 7 date", "limited", seconds=7, as_date=True)),
    ],
)
def test_faults_that_there_are(text: str, expected: Fault) -> None:
    assert fault(text) == expected


BAD = ["", "OK", "ok 1", "error 200", "error 299", "error x", "error 500 1", "slow -1", "slow nan", "slow 1 2",
       "hang 3", "limited -1", "limited inf", "limited 1 2 date", "limited x date", "reset lost"]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_faults_that_there_are_not(text: str) -> None:
    for fields in ({"script": (text,)}, {"rates": {text: 0.5}}):
        with pytest.raises(ValueError, match=r"."):
            Plan(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"rates": {"hang": 1.1}},
        {"rates": {"hang": -0.1}},
        {"rates": {"hang": 0.6, "reset": 0.6}},
        {"latency": -1},
        {"latency": math.nan},
        {"latency": math.inf},
        {"sigma": -1},
        {"capacity": 0},
        {"queue": -1},
    ],
    ids=str,
)
def test_plans_that_cannot_be(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Plan(**fields)


def faults(plan: Plan, number: int) -> list[str]:
    draws = Draws(plan)
    drawn = []
    for _ in range(number):
        drawn.append(draws.fault().text)
        draws.latency()
    return drawn


RATES = {"error 503": 0.3, "hang": 0.1}


def test_the_script_comes_first_and_then_the_rates() -> None:
    plan = Plan(script=("reset", "ok", "error 500"), rates={"lost": 1})
    assert faults(plan, 5) == ["reset", "ok", "error 500", "lost", "lost"]


def test_rates_are_kept() -> None:
    drawn = Counter(faults(Plan(rates=RATES), 10_000))
    assert drawn.keys() == {"ok", "error 503", "hang"}
    assert drawn["error 503"] == pytest.approx(3000, abs=200)
    assert drawn["hang"] == pytest.approx(1000, abs=150)


def test_the_seed_says_what_is_drawn_and_the_latency_does_not() -> None:
    first = faults(Plan(rates=RATES, seed=1), 100)
    assert faults(Plan(rates=RATES, seed=1), 100) == first
    assert faults(Plan(rates=RATES, seed=1, latency=0.5, sigma=2), 100) == first
    assert faults(Plan(rates=RATES, seed=2), 100) != first


def test_latency_has_a_median_and_a_tail() -> None:
    draws = Draws(Plan(latency=0.02, sigma=1))
    drawn = [draws.latency() for _ in range(20_000)]
    assert median(drawn) == pytest.approx(0.02, rel=0.05)
    assert quantiles(drawn, n=100)[98] == pytest.approx(0.2, rel=0.15)
    again = Draws(Plan(latency=0.02, sigma=1))
    assert [again.latency() for _ in range(100)] == drawn[:100]


def test_latency_is_fixed_without_sigma() -> None:
    draws = Draws(Plan(latency=0.02))
    assert {draws.latency() for _ in range(100)} == {0.02}
