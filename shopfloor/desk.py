"""A learner's desk: the labs, their folder and their progress, and what the commands and the watcher do with them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from shopfloor import disturbance, files
from shopfloor.console import complain
from shopfloor.errors import UserError
from shopfloor.labs import Lab, all_labs, find_lab
from shopfloor.progress import ProgressFile, State, digest
from shopfloor.words import shown, wrapped
from shopfloor.workspace import Workspace, workspace

if TYPE_CHECKING:
    from shopfloor.checks.engine import Verdict


class Checks(Protocol):
    """What can check a file: `shopfloor.checks.engine.Engine`."""

    def check(self, lab: Lab, file: Path) -> "Verdict":
        """Check `file` as the answer to `lab`."""


@dataclass(frozen=True)
class Judgement:
    """A verdict, and of which content.

    Attributes:
        lab: which.
        digest: of the content that was checked; empty when there was no file.
        verdict: what came of it.
        was: where the lab stood before.
    """

    lab: Lab
    digest: str
    verdict: "Verdict"
    was: State


class Desk:
    """Where a learner works.

    Args:
        place: their folder; that of this working copy when None.
        warn: told what the learner should know.
    """

    def __init__(self, place: Workspace | None = None, warn: Callable[[str], None] = complain) -> None:
        self.workspace = place or workspace()
        self.progress = ProgressFile(self.workspace, warn)

    @cached_property
    def labs(self) -> dict[str, Lab]:
        """Every lab by its address.

        Raises:
            UserError: there is none.
        """
        labs = all_labs()
        if not labs:
            raise UserError("This copy of the kit has no labs.")
        return labs

    def lab(self, address: str = "") -> Lab:
        """The lab at an address; without one the current lab, or else the first that is not passed.

        Raises:
            UserError: no lab has that address; names the nearest.
        """
        if address:
            return find_lab(address)
        progress = self.progress.read()
        if progress.current in self.labs:
            return self.labs[progress.current]
        return next((lab for lab in self.labs.values() if lab.address not in progress.finished), self.first)

    @property
    def first(self) -> Lab:
        """The first lab of the book."""
        return next(iter(self.labs.values()))

    def lab_of(self, name: str) -> Lab | None:
        """The lab that asks to change the file of that name in the workspace."""
        return next((lab for lab in self.labs.values() if lab.file == name), None)

    def next_lab(self) -> Lab:
        """The lab after the current one that is not passed; when all others are, the one after it."""
        labs = list(self.labs.values())
        place = labs.index(self.lab()) + 1
        others = labs[place:] + labs[: place - 1]
        return next((lab for lab in others if self.state(lab) is not State.PASSED), (others or labs)[0])

    def make_current(self, lab: Lab) -> None:
        """Remember which lab the learner works on."""
        if self.progress.read().current != lab.address:
            with self.progress.change() as progress:
                progress.current = lab.address

    def work_on(self, lab: Lab) -> bool:
        """Make a lab that the learner saved or checked the current one, unless they have finished it.

        Returns:
            Whether that is news.
        """
        progress = self.progress.read()
        if lab.address in progress.finished or progress.current == lab.address:
            return False
        was = self.lab()
        self.make_current(lab)
        return was != lab

    def file(self, lab: Lab) -> Path:
        """The learner's answer."""
        return self.workspace.file(lab.file)

    def content(self, lab: Lab) -> bytes | None:
        """What the learner's file holds; None when there is none."""
        try:
            return files.read(self.file(lab))
        except OSError:  # it is a folder, or must not be read
            return None

    def state(self, lab: Lab) -> State:
        """Where a lab stands."""
        return self.progress.read().state(lab, self.content(lab))

    def is_begun(self, lab: Lab) -> bool:
        """Whether the learner has changed the file."""
        content = self.content(lab)
        return content is not None and content != files.read(lab.starter)

    def to_check_again(self) -> list[Lab]:
        """The finished labs of which it is not known that they still pass."""
        return [lab for lab in self.labs.values() if self.state(lab) in {State.CHANGED, State.NEW_CHECKS}]

    def judge(self, checks: Checks, lab: Lab) -> Judgement:
        """Check the learner's answer to a lab, and note when it passes.

        What is checked is a copy of the file as it is now, so that a save meanwhile is not taken for what passed.
        """
        was, content = self.state(lab), self.content(lab)
        disturbance.note()
        if content is None:
            return Judgement(lab, "", checks.check(lab, self.file(lab)), was)
        with TemporaryDirectory(prefix="shopfloor-") as folder:
            copy = Path(folder, self.file(lab).name)
            copy.write_bytes(content)
            verdict = checks.check(lab, copy)
        disturbance.note()
        if verdict.passed:
            self.progress.finish(lab, content)
        return Judgement(lab, digest(content), verdict, was)

    def find_out_again(self, checks: Checks, say: Callable[[str], None]) -> None:
        """Run the checks of every lab that was begun, when what was finished is not known."""
        if self.progress.read().complete:
            return
        for lab in self.labs.values():
            if self.is_begun(lab):
                say(f"checking {lab.address}")
                self.judge(checks, lab)
        with self.progress.change() as progress:
            progress.complete = True

    def next_hint(self, lab: Lab) -> str:
        """The next hint of a lab, in words; after the last one, all of them again."""
        hints = [" ".join(hint.split()) for hint in lab.hints]
        total = len(hints)
        with self.progress.change() as progress:
            before = min(progress.hints.get(lab.address, 0), total)
            progress.hints[lab.address] = min(before + 1, total)
        if before == total:
            again = [wrapped(f"Hint {number} of {total}: {hint}") for number, hint in enumerate(hints, 1)]
            return "\n".join([f"You have seen all hints for {lab.address}. They are:", *again])
        return wrapped(f"Hint {before + 1} of {total} for {lab.address}: {hints[before]}")

    def gone(self, lab: Lab) -> str:
        """What to do about a file that is not there, in words."""
        text = (
            f"{shown(self.file(lab))} is not there.\nTo have it as the kit delivers it: shopfloor reset {lab.address}"
        )
        copies = self.workspace.copies(lab.file)
        return f"{text}\nThe latest copy kept of yours:\n    {shown(copies[-1])}" if copies else text

    def introduction(self, lab: Lab, book: str = "") -> str:
        """A lab, where its brief is and which file to change, in words.

        Args:
            lab: which.
            book: the address where the book is served; empty when it is not.
        """
        brief = f"{book}labs/{lab.address}/brief.html" if book else shown(lab.folder / "brief.md")
        return (
            f"Lab {lab.address}: {lab.title} (about {lab.minutes} minutes)\n"
            f"    Brief: {brief}\n"
            f"    Edit:  {shown(self.file(lab))}"
        )

    def overview(self) -> str:
        """Every lab and where it stands, in words."""
        progress, current = self.progress.read(), self.lab()
        width = max(map(len, self.labs))
        lines = []
        for lab in self.labs.values():
            standing = STANDING[progress.state(lab, self.content(lab))]
            if standing == STANDING[State.OPEN] and self.is_begun(lab):
                standing = "begun"
            mark = " (the current lab)" if lab == current else ""
            lines.append(f"    {lab.address:<{width}}  {standing}{mark}")
        return "\n".join(lines)


STANDING = {
    State.OPEN: "not begun",
    State.PASSED: "passed",
    State.CHANGED: "passed once, changed since: run its checks",
    State.NEW_CHECKS: "passed, but has new checks: run them",
}
"""What a state is called in the list."""
