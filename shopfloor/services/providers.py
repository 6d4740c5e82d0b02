"""Outside providers: someone else's services, reached over HTTP alone, that fail on demand.

A provider is served in a thread of this process (`running`) or in a process of its own (`provider_process`). Both are
controlled in the same way: given another `Plan` at any moment, asked what they have received. Nothing of that is
reachable over the port that the shop knows: the first is an object, and of the second the control is one end of a
socket pair, which has no address that anyone could find or token that anyone could read.

    GET /stats      {"requests": 3, "charges": 1}: of every provider, never faulty, not counted itself
"""

import asyncio
import contextlib
import dataclasses
import multiprocessing
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from math import ceil
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic, time
from typing import Any, Protocol

from shopfloor.services.fault_plan import Draws, Fault, Plan
from shopfloor.services.process import Child, ChildError, log_tail, start_child, wait_until_ready
from shopfloor.services.provider_http import Answer, Client, Request, problem

__all__ = ["Counts", "Plan", "Provider", "ProviderProcess", "Received", "provider_process", "running"]

BACKLOG = 512
MOST_KEPT = 100_000
KEPT_HEADERS = frozenset({"baggage", "idempotency-key", "traceparent", "tracestate", "user-agent", "x-request-id"})
FULL = "full"
"""The fault of a request that found the queue full."""


class Service(Protocol):
    """What a provider does. It is called by one thread at a time."""

    @property
    def makes(self) -> str:
        """What it makes, in the plural."""

    def answer(self, request: Request) -> Answer:
        """Do what is asked. An answer of 400 or more says that nothing was done."""

    def made(self) -> list[dict[str, Any]]:
        """All that it has made."""


@dataclass(slots=True)
class Received:
    """A request that came.

    Attributes:
        at: when all of it had come, on the monotonic clock, which the processes of a machine share.
        path: without the query.
        headers: those of `KEPT_HEADERS` that it had, by their names in small letters.
        fault: what happened to it, as the plan writes it; `FULL` if it found the queue full.
        done: whether the work was done.
        status: of the answer; None before it, and if there was none.
        gone: whether the client had left before its answer: nothing was sent.
        ended: when it was answered or given up, on the same clock; None before.
    """

    at: float
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    fault: str
    done: bool = False
    status: int | None = None
    gone: bool = False
    ended: float | None = None

    @property
    def idempotency_key(self) -> str | None:
        """The header of that name."""
        return self.headers.get("idempotency-key")


@dataclass(frozen=True)
class Counts:
    """How many requests came, and what became of them.

    Attributes:
        requests: all that came.
        now: those neither answered nor given up yet.
        most: the most that were so at any one time.
        faults: how many met each fault, `ok` among them.
        statuses: how many answers of each status were sent.
        done: those whose work was done.
        gone: those whose client had left before the answer.
        wasted: those whose work was done for a client that had left.
    """

    requests: int
    now: int
    most: int
    faults: Mapping[str, int]
    statuses: Mapping[int, int]
    done: int
    gone: int
    wasted: int


class Record:
    """What a provider has received. Thread-safe.

    The requests of the time before `forget` are in no count, nor are their ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        with self._lock:
            self._received: deque[Received] = deque(maxlen=MOST_KEPT)
            self._under_way: set[int] = set()
            self._requests = self._most = self._done = self._gone = self._wasted = 0
            self._faults: Counter[str] = Counter()
            self._statuses: Counter[int] = Counter()

    def arrived(self, request: Request, fault: Fault) -> Received:
        """Record that a request came."""
        received = Received(
            at=request.at,
            method=request.method,
            path=request.path,
            query=request.query,
            headers={name: request.headers[name] for name in KEPT_HEADERS & request.headers.keys()},
            body=request.body,
            fault=fault.text,
        )
        with self._lock:
            self._received.append(received)
            self._under_way.add(id(received))
            self._requests += 1
            self._most = max(self._most, len(self._under_way))
        return received

    def ended(self, received: Received, *, fault: str, done: bool, status: int | None, gone: bool) -> None:
        """Record what became of it."""
        with self._lock:
            received.fault, received.done, received.gone = fault, done, gone
            received.status = None if gone else status
            received.ended = monotonic()
            if id(received) not in self._under_way:
                return
            self._under_way.discard(id(received))
            self._faults[fault] += 1
            self._done += done
            self._gone += gone
            self._wasted += done and gone
            if received.status is not None:
                self._statuses[received.status] += 1

    def all(self) -> list[Received]:
        """Copies of the newest `MOST_KEPT`, in the order in which they came."""
        with self._lock:
            return [dataclasses.replace(received) for received in self._received]

    def counts(self) -> Counts:
        """The counts of all."""
        with self._lock:
            return Counts(
                requests=self._requests,
                now=len(self._under_way),
                most=self._most,
                faults=dict(self._faults),
                statuses=dict(self._statuses),
                done=self._done,
                gone=self._gone,
                wasted=self._wasted,
            )


class Places:
    """Those worked on, and those who wait for that, in the order in which they came. For one event loop."""

    def __init__(self) -> None:
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, plan: Plan) -> bool:
        """Wait for a place; False at once if the queue is full."""
        if not self._free(plan):
            if len(self._waiting) >= plan.queue:
                return False
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        else:
            self._busy += 1
        return True

    def give_back(self, plan: Plan) -> None:
        """Give one's place to the next."""
        self._busy -= 1
        self.admit(plan)

    def admit(self, plan: Plan) -> None:
        """Let in those that the plan now has places for."""
        while self._waiting and self._free(plan):
            turn = self._waiting.popleft()
            if not turn.cancelled():  # as all are in the end
                self._busy += 1
                turn.set_result(None)

    def _free(self, plan: Plan) -> bool:
        return plan.capacity is None or self._busy < plan.capacity


@dataclass(frozen=True)
class Outcome:
    """What becomes of a request; without an answer its connection is ended."""

    answer: Answer | None
    done: bool = False
    fault: str | None = None  # when it is not the one that was drawn


class Provider:
    """An outside provider, for `running`. Its methods and attributes may be used by any thread at any time.

    Args:
        service: what it does.
        plan: how it behaves at first.
    """

    def __init__(self, service: Service, plan: Plan | None = None) -> None:
        self._service = service
        self._working = threading.Lock()
        self._record = Record()
        self._planning = threading.Lock()
        self._draws = Draws(plan or Plan())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Its address while it runs, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def plan(self) -> Plan:
        """How it behaves. Assign another: it holds for every request that comes from then on."""
        with self._planning:
            return self._draws.plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        with self._planning:
            self._draws = Draws(plan)
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._on_change)

    def received(self) -> list[Received]:
        """The requests that came, in that order; the newest 100,000."""
        return self._record.all()

    def counts(self) -> Counts:
        """How many came, and what became of them."""
        return self._record.counts()

    def forget(self) -> None:
        """Forget which requests came; what was made remains."""
        self._record.forget()

    def made(self) -> list[dict[str, Any]]:
        """What it has made for anyone: charges, or pickups."""
        with self._working:
            return self._service.made()

    async def serve(self, listener: socket.socket, started: "Future[Callable[[], object]]") -> None:
        """Serve on a listening socket, for as long as `running` wants.

        Args:
            started: gets, once there are answers, the function that ends them; any thread may call it.
        """
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        self._clients: set[Client] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = Places()
        self._changed: asyncio.Future[None] = loop.create_future()
        self._port = listener.getsockname()[1]
        server = await loop.create_server(self._client, sock=listener, backlog=BACKLOG)
        with self._planning:
            self._loop = loop
        started.set_result(lambda: loop.call_soon_threadsafe(stopping.set))
        await stopping.wait()
        with self._planning:
            self._loop = None
        server.close()
        for client in self._clients:
            client.end()

    def _client(self) -> Client:
        client = Client(self._take)
        self._clients.add(client)
        client.gone.add_done_callback(lambda _: self._clients.discard(client))
        return client

    def _on_change(self) -> None:
        """Wake those that hang; the queue may move on."""
        self._changed.set_result(None)
        self._changed = asyncio.get_running_loop().create_future()
        self._places.admit(self.plan)

    def _take(self, request: Request, client: Client) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(request, client))
        self._tasks.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request, client: Client) -> None:
        if request.path == "/stats":
            stats = {"requests": self.counts().requests, self._service.makes: len(self.made())}
            client.send(Answer(HTTPStatus.OK, stats))
            return
        with self._planning:
            draws = self._draws
            fault, seconds = draws.fault(), draws.latency()
        received = self._record.arrived(request, fault)
        outcome = self._at_the_door(fault) or await self._with_a_place(request, client, draws, fault, seconds)
        self._record.ended(  # before the client can know
            received,
            fault=outcome.fault or fault.text,
            done=outcome.done,
            status=int(outcome.answer.status) if outcome.answer else None,
            gone=client.gone.done(),
        )
        if outcome.answer:
            client.send(outcome.answer)
        else:
            client.end(reset=fault.kind == "reset")

    def _at_the_door(self, fault: Fault) -> Outcome | None:
        """What costs the provider nothing, neither time nor a place."""
        if fault.kind == "reset":
            return Outcome(None)
        if fault.kind == "limited":
            when = formatdate(ceil(time() + fault.seconds), usegmt=True) if fault.as_date else str(ceil(fault.seconds))
            answer = problem(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests", **{"Retry-After": when})
            return Outcome(answer)
        return None

    async def _with_a_place(
        self, request: Request, client: Client, draws: Draws, fault: Fault, seconds: float
    ) -> Outcome:
        if not await self._places.take(draws.plan):
            return Outcome(problem(HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests wait already"), fault=FULL)
        try:
            await asyncio.sleep(seconds + (fault.seconds if fault.kind == "slow" else 0))
            if fault.kind == "hang":
                await self._hang(client, draws)
                if client.gone.done():
                    return Outcome(None)
            if fault.kind == "error":
                return Outcome(problem(fault.status, "The provider was told to fail"))
            return self._worked(request, fault)
        finally:
            self._places.give_back(self.plan)

    async def _hang(self, client: Client, draws: Draws) -> None:
        """Wait until there is another plan, or the client leaves."""
        with self._planning:
            same = draws is self._draws  # else it was changed while this request was on its way here
        if same:
            await asyncio.wait([self._changed, client.gone], return_when=asyncio.FIRST_COMPLETED)

    def _worked(self, request: Request, fault: Fault) -> Outcome:
        with self._working:
            answer = self._service.answer(request)
        done = answer.status < HTTPStatus.BAD_REQUEST
        if fault.kind == "lost":
            return Outcome(None, done)
        return Outcome(dataclasses.replace(answer, half=fault.kind == "malformed"), done)


@contextlib.contextmanager
def running(provider: Provider) -> Iterator[Provider]:
    """Serve a provider on a free loopback port, in a thread of this process, while the block runs.

    What hangs at its end is cut off at once.
    """
    with _serving(provider, socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)):
        yield provider


@contextlib.contextmanager
def _serving(provider: Provider, listener: socket.socket) -> Iterator[None]:
    started: Future[Callable[[], object]] = Future()
    # A thread of its own also because a notebook's has an event loop already.
    thread = threading.Thread(target=lambda: asyncio.run(provider.serve(listener, started)), daemon=True)
    thread.start()
    stop = started.result()
    try:
        yield
    finally:
        stop()
        thread.join()


class ProviderProcess:
    """A provider that runs in a process of its own, controlled as a `Provider` is. Any thread may use it.

    Attributes:
        url: its address, without a slash at the end.
        child: its process.
    """

    def __init__(self, url: str, child: Child, control: Connection) -> None:
        self.url = url
        self.child = child
        self._control = control
        self._turn = threading.Lock()

    @property
    def plan(self) -> Plan:
        """How it behaves. Assign another: it holds for every request that comes from then on."""
        plan = self._ask("plan")
        assert isinstance(plan, Plan)
        return plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._ask("set_plan", plan)

    def received(self) -> list[Received]:
        """The requests that came, in that order; the newest 100,000."""
        received: list[Received] = self._ask("received")
        return received

    def counts(self) -> Counts:
        """How many came, and what became of them."""
        counts = self._ask("counts")
        assert isinstance(counts, Counts)
        return counts

    def forget(self) -> None:
        """Forget which requests came; what was made remains."""
        self._ask("forget")

    def made(self) -> list[dict[str, Any]]:
        """What it has made for anyone: charges, or pickups."""
        made: list[dict[str, Any]] = self._ask("made")
        return made

    def wait_until_ready(self) -> None:
        """Wait for its first word.

        Raises:
            ChildError: it ended, or was not ready in time.
        """
        wait_until_ready(self.child, self._control.poll, name="The provider")
        self._hear()

    def _ask(self, *question: object) -> Any:
        with self._turn:
            with contextlib.suppress(OSError):  # it is gone; what it leaves unsaid tells so
                self._control.send(question)
            return self._hear()

    def _hear(self) -> Any:
        try:
            return self._control.recv()
        except (EOFError, OSError):
            log = self.child.log
            raise ChildError(f"The provider has ended. Its log is {log}\n{log_tail(log)}") from None


@contextlib.contextmanager
def provider_process(module: str, *, log: Path) -> Iterator[ProviderProcess]:
    """Start a provider in a process of its own, on a free loopback port, and end it afterwards.

    Args:
        module: runs `serve_process` when it is run.
        log: gets what it prints.

    Raises:
        ChildError: it does not start.
    """
    ours, theirs = multiprocessing.Pipe()
    with ours:
        with theirs, socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            descriptors = (listener.fileno(), theirs.fileno())
            child = start_child([sys.executable, "-m", module, *map(str, descriptors)], log=log, pass_fds=descriptors)
        with child:
            provider = ProviderProcess(url, child, ours)
            provider.wait_until_ready()
            yield provider


def serve_process(service: Service, arguments: list[str]) -> None:
    """Be the process of `provider_process`, until its owner is gone.

    Args:
        service: what the provider does.
        arguments: the descriptors of the listening socket and of the control.
    """
    listener, control = socket.socket(fileno=int(arguments[0])), Connection(int(arguments[1]))
    provider = Provider(service)
    commands: dict[str, Callable[..., object]] = {
        "plan": lambda: provider.plan,
        "set_plan": lambda plan: setattr(provider, "plan", plan),
        "received": provider.received,
        "counts": provider.counts,
        "forget": provider.forget,
        "made": provider.made,
    }
    with _serving(provider, listener), contextlib.suppress(EOFError):
        control.send("ready")
        while True:
            name, *values = control.recv()
            control.send(commands[name](*values))
