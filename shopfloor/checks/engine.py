"""Check a learner's file: hand it to the warm process, and turn what came back into a verdict."""

import ast
import json
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from shopfloor import databases
from shopfloor.checks.say import Finding
from shopfloor.labs import Lab
from shopfloor.paths import material
from shopfloor.services import Services
from shopfloor.services.process import start_child
from shopfloor.stages import build_with

SECONDS = 20.0
WARM_UP_SECONDS = 30.0


@dataclass(frozen=True)
class Verdict:
    """What the checks say of a file.

    Attributes:
        address: of the lab.
        passed: every check ran and was satisfied. Nothing else is a pass.
        checks: how many checks there are, and how many were satisfied.
        failed: the title of the first check that was not.
        finding: what that check did, got and expected.
        diagnosis: what the mistake is, when the check knows it.
        story: what happened, when the file could not be judged at all.
        trace: where, for whoever asks.
        seconds: from the request to the verdict.
    """

    address: str
    passed: bool
    checks: int
    satisfied: int
    failed: str
    finding: Finding | None
    diagnosis: str
    story: str
    trace: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


class Engine:
    """The warm process and the databases that checks run on. Use it as a context manager.

    Args:
        services: where the databases are made.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._running = ExitStack()
        self._databases: dict[str, databases.Database] = {}
        self._address: tuple[str, int] = ("127.0.0.1", 0)

    def __enter__(self) -> Self:
        listener = self._running.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._address = listener.getsockname()
        command = [sys.executable, "-m", "shopfloor.checks.warm", str(listener.fileno())]
        log = material().state / "logs" / "checks.log"
        self._running.enter_context(start_child(command, log=log, pass_fds=[listener.fileno()]))
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def check(self, lab: Lab, file: Path) -> Verdict:
        """Check `file` as the answer to `lab`.

        It is read once: what is saved meanwhile is the next check's.
        """
        began = time.monotonic()
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return _broken(lab, began, f"{file} is not there. Bring it back: shopfloor reset {lab.address}")
        except OSError as error:
            return _broken(lab, began, f"{file} cannot be read: {error.strerror}.")
        if problem := _unreadable(content):
            return _broken(lab, began, problem)
        told = self._ask(lab, build_with({lab.address: content}).path)
        verdict = _verdict(lab, told, began)
        if verdict.story:
            self._forget_database(lab)  # whatever a broken run left in it
        return verdict

    def _ask(self, lab: Lab, stage: Path) -> dict[str, Any]:
        request = {
            "tests": str(lab.tests),
            "stage": str(stage),
            "database_url": self._database(lab).url,
            "redis_url": self._services.redis_url,
            "seconds": SECONDS,
        }
        timeout = SECONDS + WARM_UP_SECONDS
        with (
            socket.create_connection(self._address, timeout=timeout) as connection,
            connection.makefile("rwb") as stream,
        ):
            stream.write((json.dumps(request) + "\n").encode())
            stream.flush()
            answer = stream.readline()
        return dict(json.loads(answer)) if answer else {"results": [], "complete": False}

    def _database(self, lab: Lab) -> databases.Database:
        if lab.data not in self._databases:
            clone = databases.clone(self._services, lab.data)
            self._databases[lab.data] = self._running.enter_context(clone)
        return self._databases[lab.data]

    def _forget_database(self, lab: Lab) -> None:
        if database := self._databases.pop(lab.data, None):
            database.close()


def _unreadable(content: bytes) -> str:
    try:
        ast.parse(content)
    except SyntaxError as error:
        line = f"\n\n    {error.text.strip()}" if error.text else ""
        return f"Python cannot read the file: {error.msg} (line {error.lineno}).{line}"
    except ValueError as error:  # null bytes
        return f"Python cannot read the file: {error}."
    return ""


def _verdict(lab: Lab, told: dict[str, Any], began: float) -> Verdict:
    results = told["results"]
    failed = next((result for result in results if not result["passed"]), None)
    finding = Finding(**failed["finding"]) if failed and "finding" in failed else None
    story = str(failed.get("story", "")) if failed else ""
    if told.get("late"):
        story = f"The checks were not done after {SECONDS:.0f} s and were stopped: does something loop or wait?"
    elif not told["complete"] and not story:
        story = "The checks broke off before they were done. That is no pass."
    return Verdict(
        address=lab.address,
        passed=bool(told["complete"]) and failed is None,
        checks=len(results),
        satisfied=sum(bool(result["passed"]) for result in results),
        failed=str(failed["title"]) if failed else "",
        finding=finding,
        diagnosis=diagnosis(lab, finding.mistake) if finding and finding.mistake else "",
        story=story,
        trace=str(failed.get("trace", "")) if failed else "",
        seconds=time.monotonic() - began,
    )


def diagnosis(lab: Lab, mistake: str) -> str:
    """What a mistake is, what it does in production and where to read: the first docstring of its shipped file."""
    source = lab.mistakes[mistake].read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def _broken(lab: Lab, began: float, story: str) -> Verdict:
    return Verdict(lab.address, False, 0, 0, "", None, "", story, "", time.monotonic() - began)
