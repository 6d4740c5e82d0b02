"""Waiting for a condition."""

from itertools import count

from shopfloor.checks.waiting import in_background, until


def test_until_it_is_so() -> None:
    asked = count()
    assert until(lambda: next(asked) == 3, patience=30)
    assert next(asked) == 4


def test_until_it_is_given_up() -> None:
    asked = []
    assert not until(lambda: asked.append(1), patience=0.01)
    assert asked


def test_what_runs_in_the_background_has_ended_after_the_block() -> None:
    with in_background() as run:
        sums = [run(sum, [number, 1]) for number in range(20)]
    assert [each.result(timeout=0) for each in sums] == list(range(1, 21))
