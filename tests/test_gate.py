"""The gate, on tiny labs that each break one rule, and on the real ones."""

import dataclasses
import os
from pathlib import Path

import pytest

from shopfloor import gate, mutation
from shopfloor.errors import UserError
from shopfloor.labs import Lab, all_labs
from shopfloor.paths import material
from shopfloor.services import Services
from tests.checks.tiny import TinyLab, orders_lab

FEWER_RUNS = 1  # the twenty are `shopfloor verify`

LABS = sorted(path.parent.relative_to(material().labs).as_posix() for path in material().labs.glob("*/*/lab.toml"))

SYLLABUS = """
documents:
  P:
    title: Patterns
    subject: patterns
    sections:
      P1.1:
        title: Pages
        chapter: data/pages
        points:
          - a page is a page
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A book of one page and a brief."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "syllabus.yml").write_text(SYLLABUS)
    contents = "root: book/index\nparts:\n  - chapters:\n    - file: book/data/pages\n      sections:\n"
    (tmp_path / "_toc.yml").write_text(f"{contents}        - file: labs/data/n_plus_one/brief\n")
    return tmp_path


@pytest.fixture
def lab(root: Path, monkeypatch: pytest.MonkeyPatch) -> TinyLab:
    """A lab that keeps every rule, with one mistake and one alternative, of which the rules ask no more here."""
    monkeypatch.setattr(gate, "FEWEST_MISTAKES", 1)
    monkeypatch.setattr(gate, "FEWEST_ALTERNATIVES", 1)
    lab = orders_lab(root / "labs" / "data")
    (lab.folder / "brief.md").write_text("# A ticket\n")
    (lab.folder / "alternatives").mkdir()
    (lab.folder / "alternatives" / "another.py").write_text("# another\n" + lab.solution.read_text())
    return dataclasses.replace(
        lab,
        read=("data/pages",),
        covers=("P1.1.1",),
        hints=("Look at it.", "Look again.", "Count the statements."),
    )


def on_paper(lab: Lab, root: Path) -> list[str]:
    return list(gate._on_paper(lab, gate._Book(root)))


def by_verdict(lab: Lab, services: Services, root: Path, runs: int = 1) -> list[str]:
    problems = gate.verify([lab], services, runs=runs, root=root)
    assert {problem.address for problem in problems} <= {lab.address}
    return [problem.sentence for problem in problems]


def mistake(lab: Lab) -> Path:
    return lab.mistakes["an_empty_page"]


# --- On paper ---------------------------------------------------------------------------------------------------------


def test_a_whole_lab(lab: TinyLab, root: Path) -> None:
    assert on_paper(lab, root) == []


def test_pythons_own_files_are_not_stray(lab: TinyLab, root: Path) -> None:
    for folder in (lab.folder, lab.folder / "mistakes"):
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "a.pyc").touch()
    assert on_paper(lab, root) == []


@pytest.mark.parametrize("name", ["notes.txt", "mistakes/notes.txt", "mistakes/deeper/x.py", "conftest.py", ".hidden"])
def test_a_stray_file(lab: TinyLab, root: Path, name: str) -> None:
    (lab.folder / name).parent.mkdir(exist_ok=True)
    (lab.folder / name).touch()
    assert on_paper(lab, root) == [f"A stray file lies in it: {name}."]


@pytest.mark.parametrize("name", ["lab.toml", "load.py", "survivors.toml"])
def test_what_may_lie_in_a_lab(lab: TinyLab, root: Path, name: str) -> None:
    (lab.folder / name).touch()
    assert on_paper(lab, root) == []


def test_no_brief(lab: TinyLab, root: Path) -> None:
    (lab.folder / "brief.md").unlink()
    assert on_paper(lab, root) == ["It has no brief: brief.md is not there."]


def test_a_brief_that_is_no_page(lab: TinyLab, root: Path) -> None:
    (root / "_toc.yml").write_text("root: book/index\nchapters:\n  - file: book/data/pages\n")
    assert on_paper(lab, root) == [
        "Its brief is no page of the book: _toc.yml does not have labs/data/n_plus_one/brief."
    ]


def test_no_solution_no_starter_no_checks(lab: TinyLab, services: Services, root: Path) -> None:
    for file in (lab.solution, lab.starter, lab.tests):
        file.unlink()
    assert by_verdict(lab, services, root) == [
        "It has no starter: n_plus_one_starter.py is not there.",
        "It has no solution: n_plus_one_solution.py is not there.",
        "It has no checks: test_n_plus_one.py is not there.",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"covers": ("P1.1.2",)}, "It covers P1.1.2, which the syllabus does not have."),
        ({"covers": ()}, "Its lab.toml names nothing under covers."),
        ({"read": ("data/nothing",)}, "It says to read data/nothing, which is no page."),
        ({"read": ()}, "Its lab.toml names nothing under read."),
        ({"hints": ("Look at it.", "two", "Look again.")}, "Its hint 2 is not a sentence: two"),
    ],
)
def test_what_lab_toml_names(lab: TinyLab, root: Path, changes: dict[str, tuple[str, ...]], sentence: str) -> None:
    assert on_paper(dataclasses.replace(lab, **changes), root) == [sentence]  # type: ignore[arg-type]


def test_too_few_answers(lab: TinyLab, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert on_paper(lab, root) == [
        "It has 1 mistakes; a lab has at least 8.",
        "It has 1 alternatives; a lab has at least 3.",
    ]


@pytest.mark.parametrize("words", ["", '"""Wrong."""\n', '"""Wrong. Read a chapter"""\n'[:9] + '"""\n'])
def test_a_mistake_without_a_place_to_read(lab: TinyLab, root: Path, words: str) -> None:
    mistake(lab).write_text(words + "x = 1\n")
    assert on_paper(lab, root) == [
        'The mistake an_empty_page has no docstring that says where to read: Read "..." in the chapter ...'
    ]


def test_a_mistake_that_is_no_python(lab: TinyLab, root: Path) -> None:
    mistake(lab).write_text("def f(:\n")
    assert on_paper(lab, root) == ["The mistake an_empty_page is no Python."]


def test_a_diagnosis_that_nobody_wrote(lab: TinyLab, root: Path) -> None:
    lab.tests.write_text(lab.tests.read_text().replace('"an_empty_page"', '"a_full_page"'))
    assert on_paper(lab, root) == ["A check diagnoses a_full_page, which is not among the mistakes."]


# --- By verdict -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_whole_lab_passes(lab: TinyLab, services: Services, root: Path) -> None:
    said: list[str] = []
    assert gate.verify([lab], services, runs=2, progress=said.append, root=root) == []
    assert said[-1] == "8 of 8"


STARTER_SHOULD = "The starter should fail a check, with no diagnosis. It"
MISTAKE_SHOULD = "should fail with its own diagnosis. It"
FAILS = "fails with no diagnosis, at: A page of three orders takes at most three statements. Got: 17 statements."
FAILS_EMPTY = "fails with the diagnosis an_empty_page, at: A page of three orders has three orders. Got: no order."


@pytest.mark.slow
def test_a_starter_that_passes(lab: TinyLab, services: Services, root: Path) -> None:
    lab.starter.write_bytes(lab.solution.read_bytes())
    assert by_verdict(lab, services, root) == [f"{STARTER_SHOULD} passes."]


@pytest.mark.slow
def test_a_starter_that_cannot_be_judged(lab: TinyLab, services: Services, root: Path) -> None:
    lab.starter.write_text("raise NotImplementedError('yet')")
    told = "The file raises NotImplementedError when it is imported: yet"
    assert by_verdict(lab, services, root) == [f"{STARTER_SHOULD} cannot be judged: {told}."]


@pytest.mark.slow
def test_a_starter_that_is_a_known_mistake(lab: TinyLab, services: Services, root: Path) -> None:
    lab.starter.write_bytes(mistake(lab).read_bytes())
    assert by_verdict(lab, services, root) == [f"{STARTER_SHOULD} {FAILS_EMPTY}"]


@pytest.mark.slow
def test_right_answers_that_fail(lab: TinyLab, services: Services, root: Path) -> None:
    lab.solution.write_bytes(lab.starter.read_bytes())
    lab.alternatives["another"].write_bytes(mistake(lab).read_bytes())
    assert by_verdict(lab, services, root) == [
        f"The solution should pass. It {FAILS}",
        f"The alternative another should pass. It {FAILS_EMPTY}",
    ]


@pytest.mark.slow
def test_mistakes_that_are_not_recognised(lab: TinyLab, services: Services, root: Path) -> None:
    answers = {
        "a_right_one": lab.solution.read_text(),
        "an_unknown_one": lab.starter.read_text(),
        "another_empty_page": mistake(lab).read_text(),
        "broken": "1 / 0",
    }
    for name, text in answers.items():
        (lab.folder / "mistakes" / f"{name}.py").write_text(f'"""Wrong. Read a chapter."""\n{text}')
    told = "The file raises ZeroDivisionError when it is imported: division by zero"
    assert by_verdict(lab, services, root) == [
        f"The mistake a_right_one {MISTAKE_SHOULD} passes.",
        f"The mistake an_unknown_one {MISTAKE_SHOULD} {FAILS}",
        f"The mistake another_empty_page {MISTAKE_SHOULD} {FAILS_EMPTY}",
        f"The mistake broken {MISTAKE_SHOULD} cannot be judged: {told}.",
    ]


@pytest.mark.slow
def test_a_verdict_that_changes(lab: TinyLab, services: Services, root: Path) -> None:
    marks = root / "marks"
    marks.mkdir()
    fails_once = f'''

def test_it_is_not_the_first_time(shop):
    """It fails the first time."""
    import pathlib
    made = pathlib.Path({str(marks)!r}, str(len(shop.get("/v1/orders", limit=3).statements)))
    if not made.exists():
        made.touch()
        differs(did="looked", got="the first time", expected="a later one", matters="")
'''
    lab.tests.write_text(lab.tests.read_text() + fails_once)
    lab.alternatives["another"].unlink()
    sentences = by_verdict(lab, services, root, runs=3)
    assert any(
        "The solution does not get the same verdict each time: of 3 runs, 2 differ" in told for told in sentences
    )


# --- The command ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command(lab: TinyLab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gate, "find_lab", lambda _: lab)
    assert gate.verify_command(lab.address, runs=1) == 1  # the real book does not have what it names
    assert "data/n_plus_one: It says to read data/pages, which is no page." in capsys.readouterr().out


def test_the_command_and_no_labs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "all_labs", dict)
    with pytest.raises(UserError, match="no labs"):
        gate.verify_command()
    with pytest.raises(UserError, match="No lab has the address"):
        gate.verify_command("data/nothing")


# --- Mutation ---------------------------------------------------------------------------------------------------------


def changes(source: str) -> dict[str, str]:
    return {mutant.change: mutant.source for mutant in mutation.mutants(source)}


def test_changes_of_a_program() -> None:
    rest = "def f(a: int=1) -> list[int]:\n    return a.b(c, d=True).desc == 3"
    source = f'"""Doc."""\nx: tuple[int, int] = (1, 2)\n\n{rest}'
    made = changes(source)
    assert made["without `1`"] == f'"""Doc."""\nx: tuple[int, int] = (2,)\n\n{rest}'
    assert [change for change in made if change != "without `1`"] == [
        "without `2`",
        "`2` for `1`",
        "`3` for `2`",
        "`2` for `1` (2)",
        "`!=` in `a.b(c, d=True).desc == 3`",
        "`asc` in `a.b(c, d=True).desc`",
        "without `c` in `a.b(c, d=True)`",
        "without `d=True` in `a.b(c, d=True)`",
        "without the call in `a.b(c, d=True)`",
        "`4` for `3`",
    ]
    assert len(set(made.values()) | {source}) == len(made) + 1


def test_changes_of_an_index() -> None:
    made = changes("X = \"CREATE INDEX i ON t\\n  USING gin (a DESC, b x_ops) INCLUDE (c) WHERE d = 'e'\"\n")
    for change, statement in {
        "i without a DESC": "USING gin (b x_ops) INCLUDE",
        "i with a DESC last": "(b x_ops, a DESC)",
        "i with a for a DESC": "(a, b x_ops)",
        "i without its condition": "INCLUDE (c)'",
        "i without what it includes": "x_ops) WHERE",
        "i of the usual method": "ON t (a DESC",
        "i of the usual operator class": "(a DESC, b) INCLUDE",
        "i as a hash index": "USING hash (a",
        "i as a unique index": "CREATE UNIQUE INDEX i",
        "i of another value": "d = 'x'",
    }.items():
        assert statement in made[change]


@pytest.mark.slow
def test_survivors_are_reported_unless_declared(lab: TinyLab, services: Services) -> None:
    lab.solution.write_text(
        lab.solution.read_text().partition("# [start:options]")[0]
        + "WITH = [selectinload(Order.items).joinedload(OrderItem.product), joinedload(Order.customer)]\n"
        + "def orders_page(session, *, limit, **_):\n"
        + "    return list(session.scalars(select(Order).limit(limit).options(*WITH)))\n"
        + "def order_detail(session, public_id): ...\n"
    )
    report = mutation.mutate(lab, services, lambda _: None)
    survivor = "without `Order.placed_at.desc()`"
    assert survivor in report.survivors
    assert not any("selectinload" in change for change in report.survivors)
    assert f"No check notices a solution changed so: {survivor}." in report.problems
    assert f"{len(report.survivors)} of {report.mutants} mutants survive" in report.summary()

    declared = dict.fromkeys(report.survivors, "nobody sorts here") | {"without sense": "there is none"}
    entries = "\n".join(f"{change!r} = {why!r}" for change, why in declared.items())
    (lab.folder / "survivors.toml").write_text(f"[equivalent]\n{entries}\n")
    report = mutation.mutate(lab, services, lambda _: None)
    assert report.problems == ["survivors.toml declares what does not survive: without sense."]
    assert f"    {survivor}: nobody sorts here" in report.summary()


@pytest.mark.parametrize(
    "text", ["[equivalent", "x = 1", "equivalent = 1", "[equivalent]\na = ''", "[equivalent]\na = 1"]
)
def test_survivors_that_are_not_well_formed(lab: TinyLab, services: Services, text: str) -> None:
    (lab.folder / "survivors.toml").write_text(text)
    with pytest.raises(UserError, match="survivors.toml is not well formed"):
        mutation.mutate(lab, services, lambda _: None)


# --- The real labs ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("address", [pytest.param(lab, marks=pytest.mark.xdist_group(lab)) for lab in LABS])
def test_a_real_lab(address: str, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # other labs are on the other workers
    assert gate.verify([all_labs()[address]], services, runs=FEWER_RUNS) == []
