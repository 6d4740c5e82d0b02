"""Load: Locust's users against several servers in turn, an outage in the middle if wanted, and what came of it.

Locust runs as a process of its own: imported, it would patch the caller's sockets and hang a notebook's kernel.
Its users, the servers and the database share one machine, so the figures are for comparing, not for capacity.
"""

import json
import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from shopfloor import dependencies
from shopfloor.errors import UserError
from shopfloor.load_result import LoadResult
from shopfloor.measure import machine_is_busy
from shopfloor.services.process import Child, log_tail, start_child
from shopfloor.stages import Server
from shopfloor.timeline import Second, Span

__all__ = ["LoadResult", "Outage", "Second", "Span", "load"]

WARM_UP_SECONDS = 1

GRACE_SECONDS = 30
"""How much longer than asked Locust may take before it is given up."""

RECORDER = Path(__file__).with_name("locust_recorder.py")


@dataclass(frozen=True)
class Outage:
    """Something that goes wrong during a run, and is put right again.

    Attributes:
        name: what the figures call it, such as "payments hang".
        start: when it begins, in seconds of the measured time.
        end: when it ends.
        begin: makes it so; should take milliseconds, since the run goes on meanwhile.
        finish: puts it right. Called once for each `begin`, also when that or the run fails.

    Raises:
        ValueError: it ends before it begins, or begins before anything is measured.
    """

    name: str
    start: float
    end: float
    begin: Callable[[], object]
    finish: Callable[[], object]

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"{self.name!r} cannot last from second {self.start} to second {self.end}")


class Request(NamedTuple):
    """What the recorder notes of a request.

    Attributes:
        at: when it ended, in seconds of the monotonic clock.
        name: its method and its name.
        milliseconds: how long it took.
        failure: what went wrong, or None.
    """

    at: float
    name: str
    milliseconds: float
    failure: str | None


@dataclass(frozen=True)
class Run:
    """What one server did: its seconds, those of each request by itself, and the outages, by name."""

    seconds: list[Second]
    requests: dict[str, list[Second]]
    spans: dict[str, Span]


def load(
    servers: Mapping[str, Server],
    locustfile: Path,
    *,
    users: int = 16,
    seconds: int = 8,
    data: object = None,
    events: Sequence[Outage] = (),
) -> LoadResult:
    """Let Locust's users ask each server in turn, as fast as they get answers, all of them from the first moment.

    Args:
        servers: what to ask, by the name that the figures show.
        locustfile: the users.
        users: how many ask at once.
        seconds: how long each server is measured, after a second to warm up.
        data: what the users need to know, for JSON; SHOPFLOOR_LOAD_DATA names the file that holds it.
        events: outages, each of them once in every server's run. They are begun and finished in the calling thread.

    Raises:
        UserError: a server gave no answer that was a success, and the message says what it gave instead; or an
            outage could not be begun or finished.
        ValueError: an outage ends after the measured time, or two have one name.
    """
    if late := [event.name for event in events if event.end > seconds]:
        raise ValueError(f"{late[0]!r} ends after the {seconds} seconds that are measured")
    if len({event.name for event in events}) < len(events):
        raise ValueError("two events have one name")
    dependencies.note(RECORDER)
    busy = machine_is_busy()
    runs = {
        name: _run(name, server.url, locustfile, users=users, seconds=seconds, data=data, events=events)
        for name, server in servers.items()
    }
    return LoadResult(
        {name: run.seconds for name, run in runs.items()},
        users,
        busy,
        {name: run.requests for name, run in runs.items()},
        {name: run.spans for name, run in runs.items()},
    )


def _run(
    name: str, url: str, locustfile: Path, *, users: int, seconds: int, data: object, events: Sequence[Outage]
) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "data.json").write_text(json.dumps(data))
        # One second more than is read, so that the last is whole.
        duration = WARM_UP_SECONDS + seconds + 1
        deadline = time.monotonic() + duration + GRACE_SECONDS
        with _locust(place, locustfile, url, users=users, duration=duration) as locust:
            clock = _Clock(locust, place / "started", deadline)
            spans = _play(events, clock, name)
            _ended(locust, until=deadline)
        path = place / "requests.json"
        requests = [Request(*fields) for fields in json.loads(path.read_text())] if path.exists() else []
        said = log_tail(place / "locust.log")
        if all(request.failure for request in requests):
            raise UserError(
                f"The {name} server at {url} answered no request of {locustfile}.\n{_reasons(requests) or said}"
            )
        if len(spans) < len(events):
            raise UserError(f"The users of {locustfile} ended too early on the {name} server.\n{said}")
        return _sorted(requests, clock.zero(), seconds, spans)


@contextmanager
def _locust(place: Path, locustfile: Path, url: str, *, users: int, duration: int) -> Iterator[Child]:
    """Locust running in a folder. Its exit code says only that some request failed, which the result says better."""
    # -P: the recorder's folder is the toolkit's, whose modules have names that others have, too.
    command = [sys.executable, "-P", str(RECORDER), "--headless", "--only-summary", "--loglevel", "ERROR"]
    command += ["-f", str(locustfile.resolve()), "--host", url, "-u", str(users), "-r", str(users)]
    command += ["-t", f"{duration}s", "--stop-timeout", "0"]
    # Neither Locust's settings in the environment or the home folder nor a proxy has a say.
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(place),
        "SHOPFLOOR_LOAD_DATA": str(place / "data.json"),
    }
    with start_child(command, log=place / "locust.log", env=environment, cwd=place) as locust:
        yield locust


def _ended(locust: Child, *, until: float) -> bool:
    """Wait until Locust has ended or the monotonic clock shows `until`; return whether it has ended."""
    while locust.poll() is None:
        left = until - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(0.05, left))
    return True


class _Clock:
    """The measured time of a run.

    Args:
        locust: whose.
        started: the file that says when its users started.
        deadline: when to give up waiting for that, by the monotonic clock.
    """

    def __init__(self, locust: Child, started: Path, deadline: float) -> None:
        self._locust = locust
        self._started = started
        self._deadline = deadline

    def reached(self, second: float) -> bool:
        """Wait for a second of the measured time; return whether it came before Locust ended."""
        while not self._started.exists():
            if time.monotonic() > self._deadline or _ended(self._locust, until=time.monotonic() + 0.02):
                return False
        return not _ended(self._locust, until=self.zero() + second)

    def now(self) -> float:
        """The second of the measured time."""
        return time.monotonic() - self.zero()

    def zero(self) -> float:
        return float(self._started.read_text()) + WARM_UP_SECONDS


def _play(events: Sequence[Outage], clock: _Clock, server: str) -> dict[str, Span]:
    """Begin and finish each event at its second; return when that was, by name, without what Locust's end cut off."""
    # Of two at one moment the one that ends goes first: it would undo what the other has begun.
    moments = sorted(
        [(event.end, 0, event) for event in events] + [(event.start, 1, event) for event in events],
        key=lambda moment: moment[:2],
    )
    starts: dict[str, float] = {}
    spans: dict[str, Span] = {}
    lasting: dict[str, ExitStack] = {}
    with ExitStack() as run:
        for second, begins, event in moments:
            if not clock.reached(second):
                break
            if begins:
                lasting[event.name] = run.enter_context(ExitStack())
                lasting[event.name].callback(_call, event.finish, f"{event.name!r} could not be finished on {server}")
                _call(event.begin, f"{event.name!r} could not be begun on {server}")
                starts[event.name] = clock.now()
            else:
                spans[event.name] = Span(event.name, starts[event.name], clock.now())
                lasting[event.name].close()
    return spans


def _call(function: Callable[[], object], failed: str) -> None:
    """Call what a chapter or a lab gave.

    Raises:
        UserError: it raised.
    """
    try:
        function()
    except Exception as error:
        raise UserError(f"{failed}: {type(error).__name__}: {error}") from error


def _sorted(requests: Sequence[Request], started: float, seconds: int, spans: dict[str, Span]) -> Run:
    by_name: dict[str, list[Request]] = {}
    for request in requests:
        by_name.setdefault(request.name, []).append(request)
    named = {name: _seconds(by_name[name], started, seconds) for name in sorted(by_name)}
    return Run(_seconds(requests, started, seconds), named, spans)


def _seconds(requests: Sequence[Request], started: float, count: int) -> list[Second]:
    """The first `count` seconds since `started`, each with the requests that ended in it."""
    by_second: list[list[Request]] = [[] for _ in range(count)]
    for request in requests:
        second = math.floor(request.at - started)
        if 0 <= second < count:
            by_second[second].append(request)
    return [_second(at, ended) for at, ended in enumerate(by_second)]


def _second(at: int, ended: Sequence[Request]) -> Second:
    times = sorted(request.milliseconds for request in ended)
    p50, p95, p99 = (times[math.ceil(len(times) * share / 100) - 1] if times else None for share in (50, 95, 99))
    return Second(at, len(ended), sum(request.failure is not None for request in ended), p50, p95, p99)


def _reasons(requests: Iterable[Request]) -> str:
    """What came instead of answers: the commonest failures."""
    failures = Counter((request.name, request.failure) for request in requests)
    return "\n".join(f"    {count} x {name}: {failure}" for (name, failure), count in failures.most_common(3))
