"""How far a learner is: what they finished, by address and by the content that passed.

It is kept in `workspace/.shopfloor/progress.json`. A lab counts as passed only while both the learner's file and
the lab's checks are those that it passed with. A file that cannot be read is set aside, never written over.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from shopfloor import files
from shopfloor.labs import Lab
from shopfloor.workspace import Workspace

FORMAT = 1

T = TypeVar("T")


class State(StrEnum):
    """Where a lab stands."""

    OPEN = "open"
    PASSED = "passed"
    CHANGED = "changed since"
    NEW_CHECKS = "new checks"


@dataclass(frozen=True)
class Pass:
    """What passed, and when.

    Attributes:
        file: digest of the learner's file.
        checks: digest of the checks.
        at: UTC, as ISO 8601 to the second.
    """

    file: str
    checks: str
    at: str


@dataclass
class Progress:
    """How far a learner is.

    Attributes:
        current: the address of the lab they work on; empty before the first.
        finished: what passed, by address, whether or not it would now.
        hints: how many hints of a lab were shown.
        opened: labs whose solution they asked to see before they passed.
        complete: whether `finished` is known; not so after the file was lost, until the checks have run again.
    """

    current: str = ""
    finished: dict[str, Pass] = field(default_factory=dict)
    hints: dict[str, int] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    complete: bool = True

    def state(self, lab: Lab, content: bytes | None) -> State:
        """Where a lab stands.

        Args:
            lab: which.
            content: the learner's file; None when there is none.
        """
        passed = self.finished.get(lab.address)
        if passed is None:
            return State.OPEN
        if content is None or passed.file != digest(content):
            return State.CHANGED
        return State.PASSED if passed.checks == checks_digest(lab) else State.NEW_CHECKS


def digest(content: bytes) -> str:
    """What tells one content from another."""
    return hashlib.sha256(content).hexdigest()


def checks_digest(lab: Lab) -> str:
    """What tells one version of a lab's checks from another."""
    return digest((files.read(lab.tests) or b"") + lab.data.encode())


class ProgressFile:
    """The file that holds it.

    Args:
        workspace: whose.
        warn: told when the file could not be read.
    """

    def __init__(self, workspace: Workspace, warn: Callable[[str], None]) -> None:
        self._workspace = workspace
        self._path = workspace.state / "progress.json"
        self._warn = warn

    def read(self) -> Progress:
        """What is known; the file is set aside when it makes no sense."""
        content = files.read(self._path)
        if content is None:
            return Progress(complete=not self._workspace.shop.exists())
        try:
            return _parse(content)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._set_aside()
            return Progress(complete=False)

    @contextmanager
    def change(self) -> Iterator[Progress]:
        """Change what is known; it is written at the end of the block.

        Raises:
            UserError: it cannot be written.
        """
        with self._workspace.exclusive():
            progress = self.read()
            yield progress
            text = json.dumps({"format": FORMAT, **asdict(progress)}, indent=1)
            files.write(self._path, text.encode())

    def finish(self, lab: Lab, content: bytes) -> None:
        """Note that a file passed a lab's checks."""
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        with self.change() as progress:
            progress.finished[lab.address] = Pass(digest(content), checks_digest(lab), moment)

    def _set_aside(self) -> None:
        moment = datetime.now().astimezone().strftime("%Y-%m-%dT%H-%M-%S-%f")
        aside = self._path.with_name(f"progress.unreadable.{moment}.json")
        with suppress(FileNotFoundError):  # another process was faster
            self._path.rename(aside)
            self._warn(
                f"The file with your progress cannot be read. It was set aside as {aside}. "
                "What you have finished is found out again by running the checks."
            )


def _parse(content: bytes) -> Progress:
    """Read a progress file.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, RecursionError: it is not one.
    """
    told: dict[str, Any] = json.loads(content)
    if told["format"] != FORMAT:
        raise ValueError("a format of another version of the kit")
    progress = Progress(
        current=_of(str, told["current"]),
        finished={address: Pass(**entry) for address, entry in told["finished"].items()},
        hints={address: _of(int, shown) for address, shown in told["hints"].items()},
        opened=[_of(str, address) for address in _of(list, told["opened"])],
        complete=_of(bool, told["complete"]),
    )
    for entry in progress.finished.values():
        for value in (entry.file, entry.checks, entry.at):
            _of(str, value)
    return progress


def _of(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
