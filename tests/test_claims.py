import numpy as np
import pytest

from shopfloor import claims
from shopfloor.claims import MIME_TYPE, ClaimFailed, claim


@pytest.fixture(autouse=True)
def _fresh_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_ids_taken", {})


def test_a_true_claim_shows_the_sentence_the_figure_and_the_bound() -> None:
    made = claim("The lookup reads few blocks", 21, at_most=40, unit="blocks", covers="P2.1.1")
    shown = made._repr_mimebundle_()
    assert "The lookup reads few blocks" in shown["text/html"]
    assert "21 blocks" in shown["text/html"]
    assert "at most 40 blocks" in shown["text/html"]
    assert shown["text/plain"] == "[holds] The lookup reads few blocks: 21 blocks (at most 40 blocks)"
    assert shown[MIME_TYPE]["covers"] == ["P2.1.1"]
    assert shown[MIME_TYPE]["value"] == 21


@pytest.mark.parametrize(
    ("value", "bound"),
    [(21, {"equals": 22}), (21, {"at_least": 22}), (21, {"at_most": 20}), (21, {"at_least": 1, "at_most": 20})],
)
def test_a_false_claim_raises_and_says_what_was_measured(value: int, bound: dict[str, int]) -> None:
    with pytest.raises(ClaimFailed, match=r"Blocks: measured 21, claimed"):
        claim("Blocks", value, **bound)


def test_a_claim_that_cannot_be_false_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be false"):
        claim("Anything", 1)
    with pytest.raises(ValueError, match="cannot be false"):
        claim("Anything", 1, equals=1, at_least=0)


def test_a_timed_ratio_is_measured_again_before_it_fails() -> None:
    ratios = iter([3.0, 12.0, 30.0])
    made = claim("Faster", lambda: next(ratios), at_least=20, unit="×")
    assert (made.value, made.attempts) == (30.0, 3)


def test_a_timed_ratio_fails_after_three_measurements() -> None:
    calls = []

    def measure() -> float:
        calls.append(1)
        return 3.0

    with pytest.raises(ClaimFailed, match="measured 3×, claimed at least 20×"):
        claim("Faster", measure, at_least=20, unit="×")
    assert len(calls) == 3


def test_a_figure_that_is_no_function_is_not_measured_again() -> None:
    with pytest.raises(ClaimFailed):
        claim("Counted", 3, equals=4)


def test_what_is_no_point_id_is_refused() -> None:
    with pytest.raises(ValueError, match="'P2-1' is not the id"):
        claim("A", 1, equals=1, covers="P2-1")


def test_the_same_sentence_twice_gets_two_anchors() -> None:
    first, second = claim("Same", 1, equals=1), claim("Same", 1, equals=1)
    assert (first.id, second.id) == ("same", "same-2")


def test_a_sentence_is_escaped() -> None:
    assert "<b>" not in claim("a <b> c", 1, equals=1)._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (8012, "blocks", "8,012 blocks"),
        (41.239, "×", "41.2×"),
        (1234.5, "kB", "1,234 kB"),
        (np.int64(7), "", "7"),
        ("Index Scan", "", "Index Scan"),
        (True, "", "yes"),
    ],
)
def test_figures_are_written_for_a_reader(value: object, unit: str, written: str) -> None:
    assert claim("Written", value, equals=value, unit=unit).display == written
