"""Check a learner's file: hand it to the warm process, and turn what came back into a verdict.

Nothing that the learner's code can do outlives its check. The stage that it runs in and the checks themselves are
copies, made for each; a warm process that it killed is started again; a database that anything was written to is
thrown away for a new clone, which is made while the learner reads the verdict.
"""

import ast
import contextlib
import json
import os
import select
import shutil
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from shopfloor import databases
from shopfloor.checks.say import Finding
from shopfloor.labs import BESIDE, Lab
from shopfloor.paths import material
from shopfloor.services import Services
from shopfloor.services.process import Child, ChildError, log_tail, start_child
from shopfloor.services.valkey import private_valkey

SECONDS = 20.0
"""How long the checks of one file may take."""

WARM_UP_SECONDS = 30.0
MARGIN_SECONDS = 5.0
LONGEST_FILE = 2**20

_PARSING = threading.Lock()
"""CPython 3.11 parses in one thread at a time, or raises SystemError; and the filters of `warnings` are everyone's."""


@dataclass(frozen=True)
class Verdict:
    """What the checks say of a file.

    Attributes:
        address: of the lab.
        passed: every check ran and was satisfied. Nothing else is a pass.
        checks: how many checks there are; 0 when it did not come so far.
        satisfied: how many of them were.
        failed: the title of the first check that was not.
        finding: what that check did, got and expected.
        diagnosis: what the mistake is, when the check knows it.
        story: what happened, when the file could not be judged at all.
        trace: where, for whoever asks.
        printed: the first of what the learner's code printed.
        printed_bytes: how much it printed in all.
        seconds: from the request to the verdict.
    """

    address: str
    passed: bool = False
    checks: int = 0
    satisfied: int = 0
    failed: str = ""
    finding: Finding | None = None
    diagnosis: str = ""
    story: str = ""
    trace: str = ""
    printed: str = ""
    printed_bytes: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The fields, the finding's among them."""
        return asdict(self)


class Engine:
    """The warm process and the databases that checks run on. Use it as a context manager, from any thread.

    Args:
        services: where the databases are made.
        seconds: how long the checks of one file may take, unless its lab says otherwise.
        state: where its own folder is made; that of the services when None.
    """

    def __init__(self, services: Services, *, seconds: float = SECONDS, state: Path | None = None) -> None:
        self._services = services
        self._seconds = seconds
        self._state = state or services.state
        self._turn = threading.Lock()
        self._running = ExitStack()
        self._valkeys: list[str] = []

    def __enter__(self) -> Self:
        self._folder = self._running.enter_context(_own_folder(self._state))
        self._databases = self._running.enter_context(Databases(self._services))
        self._warm = self._running.enter_context(WarmProcess(self._folder / "warm.log"))
        self._checks = Checks()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def warm_pid(self) -> int | None:
        """The warm process, whose descendants all others of a check are."""
        return self._warm.pid

    def check(self, lab: Lab, file: Path, *, to_first_failure: bool = False) -> Verdict:
        """Check `file` as the answer to `lab`.

        It is read once: what is saved meanwhile is the next check's.

        Args:
            lab: what it is to be the answer to.
            file: the answer.
            to_first_failure: ask no further once a check has failed, for a caller to whom nothing else matters.

        Raises:
            UserError: there is no database to check it on.
        """
        with self._turn:
            began = time.monotonic()
            try:
                content = file.read_bytes()
            except FileNotFoundError:
                story = f"{file} is not there. Bring it back: shopfloor reset {lab.address}"
            except OSError as error:
                story = f"{file} cannot be read: {error.strerror}."
            else:
                story = _unreadable(content)
            fields = {"story": story} if story else self._judged(lab, content, to_first_failure)
            return Verdict(lab.address, **fields, seconds=time.monotonic() - began)

    def _redis_urls(self, lab: Lab, count: int) -> list[str]:
        """Of a Valkey for each judge, of its own where the lab's checks look into it."""
        if "valkey" not in lab.needs:
            return [self._services.redis_url] * count
        while len(self._valkeys) < count:
            self._valkeys.append(self._running.enter_context(private_valkey(self._state)))
        return self._valkeys[:count]

    def _judged(self, lab: Lab, content: bytes, to_first_failure: bool) -> dict[str, Any]:
        """The fields of a verdict on a file that Python can read."""
        seconds = lab.seconds or self._seconds
        with (
            tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as folder,
            self._checks.of(lab) as checks,
            ExitStack() as clones,
        ):
            judges = 2 if f"pytest.mark.{BESIDE}\n".encode() in checks else 1
            ours = [clones.enter_context(self._databases.one(lab.data, number)) for number in range(judges)]
            tests = Path(folder, lab.tests.name)
            tests.write_bytes(checks)
            request = {
                "tests": str(tests),
                "stage": str(_lay_out(lab, content, Path(folder, "stage"))),
                "databases": [database.url for database in ours],
                "valkeys": self._redis_urls(lab, judges),
                "needs": lab.needs,
                "to_first_failure": to_first_failure,
                "seconds": seconds,
            }
            told = self._warm.ask(request, seconds + MARGIN_SECONDS)
        return _fields(lab, told, judges, seconds, self._warm.log())


class Checks:
    """The labs' test files, as they were while no learner's code ran.

    What changes in a test file during a check may be the learner's doing, and is not used. It is left alone on disk,
    for it may just as well be its author's.
    """

    def __init__(self) -> None:
        self._used: dict[Path, bytes] = {}
        self._left: dict[Path, bytes | None] = {}

    @contextlib.contextmanager
    def of(self, lab: Lab) -> Iterator[bytes]:
        """The content of a lab's test file, for the time of a check."""
        now = _content(lab.tests)
        if now is not None and now != self._left.get(lab.tests):
            self._used[lab.tests] = now
        try:
            yield self._used.get(lab.tests, b"")
        finally:
            self._left[lab.tests] = _content(lab.tests)


class Databases:
    """A database with seed data of each size, as good as new for each check."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._ready: dict[tuple[databases.Size, int], Future[_Fresh]] = {}
        self._worker = ThreadPoolExecutor(1, "databases")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown()
        for future in self._ready.values():
            if not future.exception():
                future.result().database.close()

    @contextlib.contextmanager
    def one(self, size: databases.Size, number: int) -> Iterator[databases.Database]:
        """A database for one judge. If a check wrote to it, it is replaced afterwards, while no one waits.

        Args:
            size: of the seed data.
            number: of the judge, from 0.

        Raises:
            UserError: there can be none.
        """
        future = self._ready.pop((size, number), None) or self._worker.submit(self._new, size)
        fresh = future.result()
        try:
            yield fresh.database
        finally:
            self._ready[size, number] = self._worker.submit(self._as_new, fresh, size)

    def _new(self, size: databases.Size) -> "_Fresh":
        database = databases.clone(self._services, size)
        return _Fresh(database, _state(database))

    def _as_new(self, used: "_Fresh", size: databases.Size) -> "_Fresh":
        with contextlib.suppress(DBAPIError):  # whatever was done to it
            if _state(used.database) == used.state:
                return used
        used.database.close()
        return self._new(size)


@dataclass(frozen=True)
class _Fresh:
    """A database, and the state that it has as long as nobody has written to it."""

    database: databases.Database
    state: str


def _state(database: databases.Database) -> str:
    """What changes when anyone writes to a database. Ends its other sessions, for only then have all been counted."""
    with database.engine.connect() as connection:
        connection.execute(text(_END_SESSIONS))
        return str(connection.scalar(text(_STATE)))


# One that a killed program has left behind may also wait, and hold locks.
_END_SESSIONS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
# The rows written to each table, also by transactions that were rolled back: their room is taken. Then the files and
# the definitions: an index that was created and rolled back is not among them.
_STATE = """
SELECT concat_ws(' ',
    (SELECT sum(pg_stat_get_tuples_inserted(oid) + pg_stat_get_tuples_updated(oid) + pg_stat_get_tuples_deleted(oid)
                + pg_stat_get_analyze_count(oid) + pg_stat_get_vacuum_count(oid))
     FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace),
    (SELECT md5(string_agg(concat_ws(':', oid, relfilenode, relname), ' ' ORDER BY oid))
     FROM pg_class WHERE oid >= 16384),
    (SELECT sum(pg_sequence_last_value(seqrelid)) FROM pg_sequence),
    (SELECT count(*) FROM pg_attribute), (SELECT count(*) FROM pg_constraint), (SELECT count(*) FROM pg_trigger),
    (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_rewrite), (SELECT count(*) FROM pg_db_role_setting))
"""


@dataclass
class Told:
    """What the judges told, and how they ended.

    Attributes:
        records: see `shopfloor.checks.judge.judge`; one judge's after the other's.
        late: they were stopped because they took too long.
        signal: what ended a process that judges; 0 when all ended by themselves.
        warm_ended: the process that it was forked from ended.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    late: bool = False
    signal: int = 0
    warm_ended: bool = False


class WarmProcess:
    """The process that forks judges: see `shopfloor.checks.warm`. It is started again when it has ended."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._resources = ExitStack()
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def pid(self) -> int | None:
        """Of the process; None when it was ended and not started again."""
        return self._child.pid if self._child else None

    def ask(self, request: dict[str, Any], timeout: float) -> Told:
        """Have judges do what the request says.

        Raises:
            ChildError: the process does not start.
        """
        if not self._is_alive():
            self._stop()
            self._start()
        if not self._is_ready:
            self._wait_until_ready()
        try:
            self._stream.write((json.dumps(request) + "\n").encode())
            self._stream.flush()
            told = self._line(timeout)
        except (OSError, EOFError):
            self._stop()
            return Told(warm_ended=True)
        return Told(told["told"], told["late"], told["signal"])

    def log(self) -> str:
        """The end of what it has to say of itself."""
        return log_tail(self._log, 30)

    def _is_alive(self) -> bool:
        if self._child is None:
            return False
        try:
            # Asked first whether there is something to read: a socket with a timeout would wait for it.
            has_news = select.select([self._connection], [], [], 0)[0]
            return not has_news or self._connection.recv(1, socket.MSG_PEEK) != b""
        except OSError:
            return False

    def _start(self) -> None:
        self._connection, other = socket.socketpair()
        self._resources.enter_context(self._connection)
        self._stream = self._resources.enter_context(self._connection.makefile("rwb"))
        self._is_ready = False
        with other:
            command = [sys.executable, "-m", "shopfloor.checks.warm", str(other.fileno())]
            self._child = start_child(command, log=self._log, pass_fds=[other.fileno()], grace=1)
        self._resources.callback(self._child.stop)

    def _wait_until_ready(self) -> None:
        try:
            self._line(WARM_UP_SECONDS)
        except (OSError, EOFError):
            self._stop()
            raise ChildError(f"The process that runs the checks did not start. Its log:\n{self.log()}") from None
        self._is_ready = True

    def _line(self, timeout: float) -> dict[str, Any]:
        self._connection.settimeout(timeout)
        line = self._stream.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return dict(json.loads(line))

    def _stop(self) -> None:
        self._child = None
        with contextlib.suppress(OSError):  # what could not be written to it any more
            self._resources.close()


@contextlib.contextmanager
def _own_folder(state: Path) -> Iterator[Path]:
    """A folder for this engine's copies; those of processes that were killed are removed."""
    parent = state / "checks"
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.iterdir():
        if not psutil.pid_exists(int(folder.name.partition("-")[0])):
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f"{os.getpid()}-", ignore_cleanup_errors=True) as folder_name:
        yield Path(folder_name)


def _lay_out(lab: Lab, content: bytes, stage: Path) -> Path:
    """The lab's shop with this content for its file, as a copy. What is compiled already comes along."""
    shutil.copytree(material().labs / "shop", stage / "shop")
    for topic in lab.solved:
        shutil.copy2(material().solutions / "shop" / f"{topic}.py", stage / "shop" / f"{topic}.py")
    file = stage / "shop" / lab.file
    for compiled in file.parent.glob(f"__pycache__/{file.stem}.*"):
        compiled.unlink()
    file.write_bytes(content)
    return stage


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _unreadable(content: bytes) -> str:
    if len(content) > LONGEST_FILE:
        return f"The file is longer than {LONGEST_FILE // 2**20} MB."
    try:
        with _PARSING, warnings.catch_warnings(action="ignore"):
            ast.parse(content)
    except SyntaxError as error:
        return f"Python cannot read the file: {error.msg} (line {error.lineno}).{_pointed_at(error)}"
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested too deeply
        return f"Python cannot read the file: {error}."
    return ""


def _pointed_at(error: SyntaxError) -> str:
    """The line, with a mark under the place."""
    if not error.text:
        return ""
    line = error.text.rstrip().expandtabs(1)
    bare = line.lstrip()
    place = max(0, (error.offset or 1) - 1 - (len(line) - len(bare)))
    return f"\n\n    {bare}\n    {' ' * place}^"


def _fields(lab: Lab, told: Told, judges: int, seconds: float, log: str) -> dict[str, Any]:
    """Of a verdict."""
    checks: list[dict[str, Any]] = next((record["checks"] for record in told.records if "checks" in record), [])
    order = {check["check"]: number for number, check in enumerate(checks)}
    results = [record["result"] for record in told.records if "result" in record]
    results.sort(key=lambda result: order.get(result["check"], len(order)))
    ends = [record for record in told.records if "end" in record]
    failed = next((result for result in results if not result["passed"]), None)
    satisfied = {result["check"] for result in results if result["passed"]}
    satisfied -= {result["check"] for result in results if not result["passed"]}
    fields = {
        "passed": [end["end"] for end in ends] == [0] * judges and failed is None and 0 < len(checks) == len(satisfied),
        "checks": len(checks),
        "satisfied": len(satisfied),
        "printed": "".join(end["printed"] for end in ends),
        "printed_bytes": sum(end["printed_bytes"] for end in ends),
    }
    if failed:
        return fields | _failure(lab, failed)
    return fields if fields["passed"] else fields | _collapse(told, checks, results, seconds, log)


def _failure(lab: Lab, failed: dict[str, Any]) -> dict[str, Any]:
    """What a check said that was not satisfied."""
    finding = Finding(**failed["finding"]) if "finding" in failed else None
    return {
        "failed": failed["title"],
        "finding": finding,
        "diagnosis": diagnosis(lab, finding.mistake) if finding and finding.mistake else "",
        "story": failed.get("story", ""),
        "trace": failed.get("trace", ""),
    }


def _collapse(
    told: Told, checks: list[dict[str, Any]], results: list[dict[str, Any]], seconds: float, log: str
) -> dict[str, Any]:
    """Why the checks did not come to their end, although none of them failed."""
    done = {result["check"] for result in results}
    at = next((check["title"] for check in checks if check["check"] not in done), "")
    broken = next((record["broken"] for record in told.records if "broken" in record), "")
    culprit = "Does the file end processes that are not its own?"
    if broken or (told.records and not checks):
        story = "The checks themselves are broken. That is a defect of the kit, not of the file."
    elif told.late:
        story = f"The checks were not done after {seconds:.0f} s, and were stopped. Does something loop or wait?"
    elif told.signal:
        story = f"The process that judges was ended by signal {told.signal}. {culprit}"
    elif told.warm_ended:
        story = f"The process that runs the checks was ended. {culprit}"
    else:
        story = "The checks broke off before they were done. That is no pass."
    return {"failed": at, "story": story, "trace": broken or log}


def diagnosis(lab: Lab, mistake: str) -> str:
    """What a mistake is, what it does in production and where to read: the first docstring of its shipped file."""
    file = lab.mistakes.get(mistake)
    return (ast.get_docstring(ast.parse(file.read_bytes())) or "") if file else ""
