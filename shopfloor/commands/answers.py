"""Hints, and what is done with the learner's answer: compare, give up, begin again, follow the kit."""

import difflib
import sys

import typer

from shopfloor.console import out
from shopfloor.desk import Desk
from shopfloor.errors import UserError
from shopfloor.labs import Lab
from shopfloor.words import counted, shown, tell
from shopfloor.workspace import Kind, Outcome


def hint(address: str) -> None:
    """Print the next hint."""
    desk = Desk()
    out.print(desk.next_hint(desk.lab(address)), markup=False)


def diff(address: str, *, yes: bool) -> None:
    """Print what would turn the learner's answer into the solution."""
    desk = Desk()
    lab = desk.lab(address)
    mine = desk.content(lab)
    if mine is None:
        raise UserError(desk.gone(lab))
    _ask_once(desk, lab, yes=yes)
    if mine == lab.solution.read_bytes():
        tell("Your answer is the kit's, to the letter.")
        return
    lines = difflib.unified_diff(
        mine.decode(errors="replace").splitlines(),
        lab.solution.read_text(encoding="utf-8").splitlines(),
        f"yours: {shown(desk.file(lab))}",
        f"the kit's: {shown(lab.solution)}",
        lineterm="",
    )
    out.print("\n".join(lines), markup=False)


def solution(address: str, *, yes: bool) -> None:
    """Put the solution in place of the learner's answer."""
    desk = Desk()
    lab = desk.lab(address)
    _need_workspace(desk)
    _ask_once(desk, lab, yes=yes)
    copy = desk.workspace.put(lab.file, lab.solution.read_bytes())
    tell(f"{shown(desk.file(lab))} holds the kit's solution now.")
    if copy:
        tell(f"What you had there is kept:\n    {shown(copy)}")


def reset(address: str) -> None:
    """Put the file as the kit delivers it in place of the learner's answer."""
    desk = Desk()
    lab = desk.lab(address)
    _need_workspace(desk)
    before = desk.content(lab)
    copy = desk.workspace.reset(lab.file)
    if before == desk.content(lab):
        tell(f"{shown(desk.file(lab))} is as the kit delivers it already.")
        return
    tell(f"{shown(desk.file(lab))} is as the kit delivers it.")
    if copy:
        tell(f"What you had there is kept:\n    {shown(copy)}")


def update() -> None:
    """Merge what the kit has changed into the learner's files, and say which finished labs have new checks."""
    desk = Desk()
    _need_workspace(desk)
    outcomes = desk.workspace.update()
    for outcome in outcomes:
        tell(_said(outcome))
    if not outcomes:
        tell("Your copy of the shop is up to date.")
    if stale := desk.to_check_again():
        tell("These labs are finished, but changed or have new checks since. Run them again:")
        for lab in stale:
            tell(f"    shopfloor check {lab.address}")


def _said(outcome: Outcome) -> str:
    what = f"{outcome.why}, so {outcome.kind}" if outcome.kind is Kind.OFFERED else str(outcome.kind)
    text = f"{outcome.name}: {what}."
    if outcome.copy is None:
        return text
    place = "The kit's new one" if outcome.kind is Kind.OFFERED else "What was there"
    return f"{text}\n    {place}: {shown(outcome.copy)}"


def _need_workspace(desk: Desk) -> None:
    if not desk.workspace.shop.exists():
        raise UserError("There is no copy of the shop of yours yet. Make one: shopfloor start")


def _ask_once(desk: Desk, lab: Lab, *, yes: bool) -> None:
    """Ask whether the learner means to see the solution before they have passed; a yes is remembered.

    Raises:
        UserError: nobody is there to ask.
    """
    progress = desk.progress.read()
    if lab.address in progress.finished or lab.address in progress.opened:
        return
    if not yes:
        left = len(lab.hints) - progress.hints.get(lab.address, 0)
        hints = f" You have {counted(left, 'hint')} left." if left > 0 else ""
        question = f"You have not passed {lab.address} yet.{hints} Do you mean to see the solution?"
        if not sys.stdin.isatty():
            raise UserError(f"{question} Then say so with --yes.")
        if not typer.confirm(question):
            raise typer.Exit(1)
    with desk.progress.change() as changed:
        changed.opened.append(lab.address)
