"""The gate: what must hold for every lab before a learner meets it.

The starter fails for the intended reason, the solution passes, every shipped mistake fails with its own diagnosis,
every alternative passes, and they do so again and again. Whatever `lab.toml` names exists, and nothing else lies about.
"""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from shopfloor import contents, mutation, syllabus
from shopfloor.checks.engine import Verdict
from shopfloor.checks.many import check_many
from shopfloor.console import out, step
from shopfloor.errors import UserError
from shopfloor.labs import Lab, all_labs, find_lab
from shopfloor.paths import material
from shopfloor.services import Services, running_services
from shopfloor.words import tell

RUNS = 20
FEWEST_MISTAKES = 8
FEWEST_ALTERNATIVES = 3


@dataclass(frozen=True)
class Problem:
    """What does not hold of a lab, as a sentence."""

    address: str
    sentence: str


class Kind(Enum):
    """What an answer is to a lab."""

    STARTER = "The starter"
    SOLUTION = "The solution"
    MISTAKE = "The mistake"
    ALTERNATIVE = "The alternative"


@dataclass(frozen=True)
class Case:
    """An answer whose verdict is known beforehand."""

    lab: Lab
    kind: Kind
    name: str
    file: Path

    @property
    def title(self) -> str:
        """How a sentence about it begins."""
        return f"{self.kind.value} {self.name}".rstrip()


def verify_command(address: str | None = None, runs: int = RUNS, mutate: bool = False) -> int:
    """Verify one lab, or all of them, and print what does not hold.

    Args:
        address: of the lab; None for all.
        runs: how many times each verdict must be the same.
        mutate: change the solutions, too, and see what notices.

    Returns:
        An exit code: 0 when everything holds.

    Raises:
        UserError: there is no such lab, or a file of one cannot be read.
    """
    labs = [find_lab(address)] if address else list(all_labs().values())
    if not labs:
        raise UserError("This copy of the kit has no labs.")
    with running_services() as services:
        with step(f"Verdicts, {runs} of each") as say:
            problems = verify(labs, services, runs=runs, progress=say)
        if mutate:
            problems += _mutated(labs, services)
    for problem in problems:
        tell(f"{problem.address}: {problem.sentence}")
    if not problems:
        tell(f"Everything holds of {', '.join(lab.address for lab in labs)}.")
    return 1 if problems else 0


def verify(
    labs: Sequence[Lab],
    services: Services,
    *,
    runs: int = RUNS,
    progress: Callable[[str], None] = lambda _: None,
    root: Path | None = None,
) -> list[Problem]:
    """Find what does not hold of some labs.

    Args:
        labs: which.
        services: where the checks run.
        runs: how many times each verdict must be the same.
        progress: told how far it is.
        root: of the book, with `_toc.yml` and the syllabus; this working copy when None.
    """
    book = _Book(root or material().root)
    problems = [Problem(lab.address, sentence) for lab in labs for sentence in _on_paper(lab, book)]
    cases = [case for lab in labs for case in _cases(lab)]
    verdicts = check_many(services, [(case.lab, case.file) for case in cases * runs], progress)
    for place, case in enumerate(cases):
        of_case = verdicts[place :: len(cases)]
        problems += [Problem(case.lab.address, sentence) for sentence in _by_verdict(case, of_case)]
    return problems


def _mutated(labs: Sequence[Lab], services: Services) -> list[Problem]:
    problems = []
    for lab in labs:
        with step(f"Mutants of {lab.address}") as say:
            report = mutation.mutate(lab, services, say)
        out.print(report.summary(), markup=False)
        problems += [Problem(lab.address, sentence) for sentence in report.problems]
    return problems


# --- What the verdicts say --------------------------------------------------------------------------------------------


def _cases(lab: Lab) -> Iterator[Case]:
    if lab.tests.exists():
        for kind, file in ((Kind.STARTER, lab.starter), (Kind.SOLUTION, lab.solution)):
            if file.exists():
                yield Case(lab, kind, "", file)
        yield from (Case(lab, Kind.MISTAKE, name, file) for name, file in lab.mistakes.items())
        yield from (Case(lab, Kind.ALTERNATIVE, name, file) for name, file in lab.alternatives.items())


def _by_verdict(case: Case, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """What is wrong with the verdicts on one answer."""
    told = {
        Kind.STARTER: _of_starter,
        Kind.SOLUTION: _of_right_answer,
        Kind.ALTERNATIVE: _of_right_answer,
        Kind.MISTAKE: _of_mistake,
    }[case.kind](case, verdicts[0])
    if told:
        yield f"{case.title} {told}"
    others = [verdict for verdict in verdicts if _gist(verdict) != _gist(verdicts[0])]
    if others:
        yield (
            f"{case.title} does not get the same verdict each time: of {len(verdicts)} runs, {len(others)} differ"
            f" from the first. The first {_outcome(verdicts[0])}; another {_sentence(_outcome(others[0]))}"
        )


def _gist(verdict: Verdict) -> tuple[object, ...]:
    """What must be the same in each run.

    Figures that were measured may differ. So may how many other checks a wrong answer passes: some answers are wrong in
    that they leave something to chance.
    """
    return verdict.passed, verdict.checks, verdict.failed, _mistake(verdict), verdict.story


def _of_starter(_: Case, verdict: Verdict) -> str:
    if verdict.passed or verdict.finding is None or verdict.finding.mistake:
        return f"should fail a check, with no diagnosis. It {_sentence(_outcome(verdict))}"
    return ""


def _of_right_answer(_: Case, verdict: Verdict) -> str:
    return "" if verdict.passed else f"should pass. It {_sentence(_outcome(verdict))}"


def _of_mistake(case: Case, verdict: Verdict) -> str:
    if _mistake(verdict) != case.name:
        return f"should fail with its own diagnosis. It {_sentence(_outcome(verdict))}"
    return ""


def _mistake(verdict: Verdict) -> str:
    return verdict.finding.mistake if verdict.finding else ""


def _outcome(verdict: Verdict) -> str:
    if verdict.passed:
        return "passes"
    if verdict.finding is None:
        return f"cannot be judged: {verdict.story}"
    diagnosis = f"the diagnosis {verdict.finding.mistake}" if verdict.finding.mistake else "no diagnosis"
    return f"fails with {diagnosis}, at: {verdict.failed} Got: {verdict.finding.got}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?")) else f"{text}."


# --- What can be read without running anything ------------------------------------------------------------------------


class _Book:
    """What a lab may refer to.

    Attributes:
        pages: every page of the book, without its ending.
        points: the ids of the syllabus's points.
    """

    def __init__(self, root: Path) -> None:
        self.pages = set(contents.pages(root))
        self.points = set(syllabus.load(root / "book" / "syllabus.yml").points)


def _on_paper(lab: Lab, book: _Book) -> Iterator[str]:
    """What is wrong with a lab's files."""
    yield from _missing(lab, book)
    yield from _stray(lab)
    yield from (
        f"Its hint {number} is not a sentence: {hint}" for number, hint in enumerate(lab.hints, 1) if " " not in hint
    )
    yield from (
        f"It covers {point}, which the syllabus does not have." for point in lab.covers if point not in book.points
    )
    yield from (f"It says to read {page}, which is no page." for page in lab.read if f"book/{page}" not in book.pages)
    for name, count in (("covers", len(lab.covers)), ("read", len(lab.read))):
        if not count:
            yield f"Its lab.toml names nothing under {name}."
    for name, count, fewest in (
        ("mistakes", len(lab.mistakes), FEWEST_MISTAKES),
        ("alternatives", len(lab.alternatives), FEWEST_ALTERNATIVES),
    ):
        if count < fewest:
            yield f"It has {count} {name}; a lab has at least {fewest}."
    yield from _undocumented(lab)
    yield from _unknown_diagnoses(lab)


def _missing(lab: Lab, book: _Book) -> Iterator[str]:
    for name, file in {"brief": lab.folder / "brief.md", "starter": lab.starter, "solution": lab.solution}.items():
        if not file.exists():
            yield f"It has no {name}: {file.name} is not there."
    if not lab.tests.exists():
        yield f"It has no checks: {lab.tests.name} is not there."
    if f"labs/{lab.address}/brief" not in book.pages:
        yield f"Its brief is no page of the book: _toc.yml does not have labs/{lab.address}/brief."


def _stray(lab: Lab) -> Iterator[str]:
    known = {"brief.md", "lab.toml", "load.py", mutation.SURVIVORS, lab.tests.name}
    for path in sorted(lab.folder.rglob("*")):
        name = path.relative_to(lab.folder)
        answer = len(name.parts) == 2 and name.parts[0] in {"mistakes", "alternatives"} and name.suffix == ".py"
        if path.is_file() and "__pycache__" not in name.parts and not answer and str(name) not in known:
            yield f"A stray file lies in it: {name}."


def _undocumented(lab: Lab) -> Iterator[str]:
    for name, file in lab.mistakes.items():
        try:
            words = ast.get_docstring(ast.parse(file.read_bytes())) or ""
        except SyntaxError:
            yield f"The mistake {name} is no Python."
            continue
        if not re.search(r"\bRead\b.*\bchapter\b", words, re.DOTALL):
            yield f'The mistake {name} has no docstring that says where to read: Read "..." in the chapter ...'


def _unknown_diagnoses(lab: Lab) -> Iterator[str]:
    """The names that checks give to `wrong` and that no shipped mistake has."""
    if not lab.tests.exists():
        return
    for node in ast.walk(ast.parse(lab.tests.read_bytes())):
        match node:
            case ast.Call(func=ast.Name(id="wrong"), args=[ast.Constant(value=str(name)), *_]) if (
                name not in lab.mistakes
            ):
                yield f"A check diagnoses {name}, which is not among the mistakes."
