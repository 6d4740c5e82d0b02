"""The learner's shop as a check meets it: asked over HTTP, with all that it asks of others in view."""

import http.client
import json
import mmap
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from shopfloor.checks.commands import Command, Commands, hearing_commands
from shopfloor.checks.learner import Learner, LearnerFailed, Output, environment, learner
from shopfloor.checks.wire import Recorder, Statement, recording

ANSWER_SECONDS = 5.0
LARGEST_ANSWER = 16 * 2**20


@dataclass(frozen=True)
class Request:
    """What to ask.

    Attributes:
        method: such as `GET`.
        address: path and query.
        json: sent as the body, unless it is None.
        headers: sent along.
        data: sent as the body as it is, in place of `json`; the headers should say what it is.
    """

    method: str
    address: str
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.address}"


@dataclass(frozen=True)
class Answer:
    """What the learner's shop answered, and what it asked the database and the cache for it.

    Attributes:
        did: the request, as `GET /v1/orders?limit=5`.
        body: from JSON, or as text.
        headers: by their names in small letters; what came under one name several times, with commas between.
        statements: that reached PostgreSQL meanwhile, whoever caused them.
        commands: that reached Valkey meanwhile.
        content: the body as it came.
    """

    did: str
    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    statements: list[Statement] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    content: bytes = b""

    @property
    def rows(self) -> int:
        """How many rows the database sent."""
        return sum(statement.rows for statement in self.statements)

    @property
    def bytes(self) -> int:
        """What those rows weighed."""
        return sum(statement.bytes for statement in self.statements)


class Shop:
    """The learner's shop, asked over HTTP.

    Attributes:
        database: between the shop and PostgreSQL.
        cache: between the shop and Valkey.
    """

    def __init__(self, process: Learner, database: Recorder, cache: Commands, clock: "Clock") -> None:
        self.database, self.cache = database, cache
        self._process, self._clock = process, clock
        self._port = int(process.told["port"])

    @property
    def url(self) -> str:
        """Where it is, for another client than `ask`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def output(self) -> str:
        """The first of what the shop has printed, its log and its tracebacks among it: as the learner's claim."""
        return self._process.printed.text

    def printed(self, wanted: Callable[[str], bool], *, patience: float = 1.0) -> str:
        """What the shop has printed as soon as it is what is wanted, or after `patience` seconds whatever it is."""
        deadline = time.monotonic() + patience
        while not wanted(self.output) and time.monotonic() < deadline:
            time.sleep(0.005)  # it has been printed, but perhaps not read yet
        return self.output

    def get(self, path: str, **query: Any) -> Answer:
        """Ask for a page: see `ask`."""
        return self.ask(Request("GET", f"{path}?{urlencode(query)}" if query else path))

    def ask(self, request: Request) -> Answer:
        """Ask, and read off the wire what the shop asks of others meanwhile.

        Raises:
            LearnerFailed: no answer came in time, or the connection broke.
        """
        self.forget()
        answer = self._answer(request)
        return replace(answer, statements=self.database.statements, commands=self.cache.received)

    def together(self, requests: Sequence[Request]) -> list[Answer]:
        """Ask all at once. What they asked of others meanwhile is theirs together: see `database` and `cache`.

        Raises:
            LearnerFailed: one of them had no answer.
        """
        self.forget()
        start = threading.Barrier(len(requests))

        def ask(request: Request) -> Answer:
            start.wait()
            return self._answer(request)

        with ThreadPoolExecutor(len(requests)) as threads:
            return list(threads.map(ask, requests))

    @contextmanager
    def asking(self, request: Request) -> Iterator[None]:
        """Have sent a request while the block runs, and hang up at its end, whether or not there is an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_SECONDS)
        try:
            _send(connection, request)
            yield
        finally:
            connection.close()

    @contextmanager
    def line(self) -> Iterator[socket.socket]:
        """A connection to the shop, for a request that is sent piece by piece; closed when the block ends."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=ANSWER_SECONDS) as line:
            yield line

    def forget(self) -> None:
        """Forget what was asked of the database and the cache so far."""
        self.database.clear()
        self.cache.clear()

    def turn_clock(self, seconds: float) -> None:
        """Set the time of day that the shop sees on by so much, as whoever corrects a clock does; or back.

        Monotonic clocks go on as they were.
        """
        self._clock.turn(seconds)

    def kill(self) -> None:
        """End its process this instant, as a machine that fails does; it is gone when this returns."""
        self._process.kill()
        self._process.wait()

    def _answer(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_SECONDS)
        try:
            _send(connection, request)
            response = connection.getresponse()
            received = _body(response)
        except TimeoutError:
            raise LearnerFailed(f"{request} had no answer after {ANSWER_SECONDS:.0f} s: does it loop?") from None
        except (OSError, http.client.HTTPException) as error:
            fate = self._process.fate() or "Does the file call sys.exit in a request?"
            raise LearnerFailed(
                f"{request} had no answer: the connection broke off ({type(error).__name__}). {fate}"
            ) from None
        finally:
            connection.close()
        sent = response.headers
        names = {name.lower(): ", ".join(sent.get_all(name, ())) for name in sent}  # two of a name are one list
        return Answer(str(request), response.status, _json(received), names, content=received)


class Clock:
    """How far the shop's time of day is from the real one, in memory that it shares with whoever judges it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    def turn(self, seconds: float) -> None:
        """Set it on, or back."""
        self._memory[:8] = struct.pack("d", self.offset() + seconds)

    def offset(self) -> float:
        """In seconds."""
        return float(struct.unpack("d", self._memory[:8])[0])


@contextmanager
def serving(
    stage: Path, database_url: str, redis_url: str, settings: Mapping[str, str], printed: Output
) -> Iterator[Shop]:
    """Serve the learner's shop, and read off the wire what it asks, while the block runs.

    Args:
        stage: the folder with the shop.
        database_url: of its database.
        redis_url: of its Valkey.
        settings: more of its environment.
        printed: gets what it prints.

    Raises:
        LearnerFailed: it does not start.
    """
    with ExitStack() as running:
        database = running.enter_context(recording(database_url))
        cache = running.enter_context(hearing_commands(redis_url))
        seen = environment(DATABASE_URL=database.url, REDIS_URL=cache.url, **settings)
        clock = Clock()
        process = running.enter_context(learner(stage, "serve", seen, printed, clock.offset))
        shop = Shop(process, database, cache, clock)
        shop.get("/readyz")  # connecting asks the server some things that are no page's fault
        yield shop


def _send(connection: http.client.HTTPConnection, request: Request) -> None:
    body = request.data if request.json is None else json.dumps(request.json).encode()
    headers = ({} if request.json is None else {"Content-Type": "application/json"}) | dict(request.headers)
    connection.request(request.method, request.address, body=body, headers=headers)


def _body(response: http.client.HTTPResponse) -> bytes:
    """Read it, but not for ever.

    Raises:
        TimeoutError: it goes on and on.
        LearnerFailed: it is too large.
    """
    body, deadline = b"", time.monotonic() + ANSWER_SECONDS
    while data := response.read1(65536):
        body += data
        if len(body) > LARGEST_ANSWER:
            raise LearnerFailed(f"The shop's answer is larger than {LARGEST_ANSWER // 2**20} MB.")
        if time.monotonic() > deadline:
            raise TimeoutError
    return body


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode(errors="replace")
