"""What a learner reads, and what a program does."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from shopfloor.checks.engine import Engine, Verdict
from shopfloor.checks.say import Finding
from shopfloor.labs import Lab
from shopfloor.verdicts import as_json, render
from tests.checks.tiny import TinyLab

TRANSCRIPTS = Path(__file__).with_name("transcripts")

ANSWERS: dict[str, Callable[[TinyLab], str]] = {
    "pass": lambda lab: lab.solution.read_text(),
    "diagnosed_mistake": lambda lab: lab.mistakes["an_empty_page"].read_text(),
    "undiagnosed_failure": lambda lab: lab.starter.read_text() + "\nprint('loading')\n",
    "broken_file": lambda lab: lab.solution.read_text() + "\n\nPAGES = 50 / 0\n",
    "syntax_error": lambda lab: lab.solution.read_text().replace("limit: int,", "limit: int;"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_transcript(lab: TinyLab, engine: Engine, tmp_path: Path, name: str) -> None:
    answer = tmp_path / "answer.py"
    answer.write_text(ANSWERS[name](lab))
    verdict = engine.check(lab, answer)
    text = render(verdict, following=lab) + "\n"
    if verdict.trace:
        text += f"\n=== with --trace\n\n{render(verdict, trace=True)}\n"
    assert steady(text) == (TRANSCRIPTS / f"{name}.txt").read_text()


def steady(text: str) -> str:
    """What a verdict says, without its time and without what each new topic adds to the shop's own imports."""
    text = re.sub(r"\(\d+\.\d s\)", "(0.4 s)", text)
    text = re.sub(r"(from shop\.api import) .*", r"\1 ...", text)
    return re.sub(r'(File "shop/(?:__init__|api/pagination)\.py", line) \d+', r"\1 ...", text)


FAILED = Verdict(
    "data/n_plus_one",
    checks=11,
    satisfied=1,
    failed="A page of fifty orders takes no more statements than a page of five.",
    finding=Finding("GET /v1/orders?" + "x" * 90, "one\n\ntwo " + "and more " * 20, "", "It matters. " * 20),
    printed="a\tb \x1b[31mred\x1b[0m \x07\r\n" + "x" * 200 + "\n" * 20 + "end\n",
    printed_bytes=1_000_000,
)


def test_it_fits_80_columns_and_commands_no_terminal() -> None:
    text = render(FAILED)
    assert [line for line in text.splitlines() if len(line) > 80] == ["          /v1/orders?" + "x" * 90]
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert "Your code printed 1,000,000 bytes, beginning with:\n    a   b ?[31mred" in text
    assert "    " + "x" * 73 + "...\n" in text + "\n"
    assert "end" not in text
    assert "How far: 1 of 11 checks holds." in text


def test_what_is_printed_whole_says_so() -> None:
    text = render(Verdict("data/x", passed=True, checks=1, satisfied=1, printed="hello\n", printed_bytes=6))
    assert text.startswith("data/x: passed. Its one check holds.")
    assert text.endswith("\n\nYour code printed 6 bytes:\n    hello")


def test_a_diagnosis_keeps_its_lists_and_code() -> None:
    diagnosis = "One sentence that was\nbroken.\n\n- one\n- two\n\n    SELECT 1\n    FROM t"
    text = render(Verdict("data/x", checks=1, diagnosis=diagnosis, finding=Finding("a", "b", "c")))
    assert "One sentence that was broken.\n\n- one\n- two\n\n    SELECT 1\n    FROM t\n" in text


def test_json() -> None:
    told = json.loads(as_json(FAILED))
    assert list(told) == [
        *("address", "passed", "checks", "satisfied", "failed", "finding", "diagnosis", "story"),
        *("trace", "printed", "printed_bytes", "seconds"),
    ]
    assert list(told["finding"]) == ["did", "got", "expected", "matters", "mistake"]
    assert json.loads(as_json(Verdict("data/x")))["finding"] is None


def test_every_member_of_the_json_is_documented() -> None:
    import shopfloor.verdicts

    for name in (*json.loads(as_json(FAILED)), *json.loads(as_json(FAILED))["finding"]):
        assert f"`{name}`" in str(shopfloor.verdicts.__doc__)


def test_the_next_lab_is_named_after_a_pass_only(lab: Lab) -> None:
    assert "The next lab is data/n_plus_one: A tiny lab" in render(Verdict("data/x", passed=True), following=lab)
    assert "next lab" not in render(FAILED, following=lab)
