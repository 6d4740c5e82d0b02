"""What the judge prepares for its checks."""

from pathlib import Path

from shopfloor.checks.judge import _also_solved
from shopfloor.paths import material

TOPIC = "observability/logging"


def test_a_shop_with_another_topics_solution_lies_beside_the_first(tmp_path: Path) -> None:
    naive = tmp_path / "stage" / "shop" / f"{TOPIC}.py"
    naive.parent.mkdir(parents=True)
    naive.write_text("naive")
    (naive.parents[1] / "own.py").write_text("the learner's")
    other = _also_solved(tmp_path / "stage", [TOPIC])
    assert (other / "shop" / f"{TOPIC}.py").read_bytes() == (material().solutions / "shop" / f"{TOPIC}.py").read_bytes()
    assert (other / "shop" / "own.py").read_text() == "the learner's"
    assert naive.read_text() == "naive"


def test_a_shop_with_nothing_else_solved_is_the_first(tmp_path: Path) -> None:
    assert _also_solved(tmp_path, []) == tmp_path
