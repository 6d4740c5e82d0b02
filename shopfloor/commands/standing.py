"""Where a learner stands, for them and for programs."""

import json
from typing import Any

from shopfloor.console import out
from shopfloor.desk import Desk
from shopfloor.progress import State
from shopfloor.words import counted, shown, tell


def status(*, as_json: bool) -> None:
    """Print where every lab stands."""
    desk = Desk()
    if as_json:
        out.print(json.dumps(facts(desk), indent=1), markup=False)
        return
    passed = sum(desk.state(lab) is State.PASSED for lab in desk.labs.values())
    tell(f"{passed} of {counted(len(desk.labs), 'lab')} passed.")
    tell(desk.overview())
    if not desk.progress.read().complete:
        tell("What you had finished before is found out by the next check: shopfloor check")
    if not desk.workspace.shop.exists():
        tell("There is no copy of the shop of yours yet. Make one: shopfloor start")
    elif desk.workspace.outdated():
        tell("The kit has changed since. Merge it into your files: shopfloor update")


def facts(desk: Desk) -> dict[str, Any]:
    """The same for `--json`.

    Returns:
        `workspace` (a path, or null), `current` (an address), `complete` (whether what was finished is known),
        `update` (names of files that the kit has changed) and `labs`, in the book's order: `address`, `title`,
        `minutes`, `file`, `state` (open, passed, changed since, new checks), `begun`, `hints_shown`, `passed_at`.
    """
    progress = desk.progress.read()
    labs = []
    for lab in desk.labs.values():
        passed = progress.finished.get(lab.address)
        labs.append(
            {
                "address": lab.address,
                "title": lab.title,
                "minutes": lab.minutes,
                "file": shown(desk.file(lab)),
                "state": str(desk.state(lab)),
                "begun": desk.is_begun(lab),
                "hints_shown": progress.hints.get(lab.address, 0),
                "passed_at": passed.at if passed else None,
            }
        )
    return {
        "workspace": str(desk.workspace.shop) if desk.workspace.shop.exists() else None,
        "current": desk.lab().address,
        "complete": progress.complete,
        "update": desk.workspace.outdated(),
        "labs": labs,
    }
