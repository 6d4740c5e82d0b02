"""The process that the learner's file runs in, and nothing that judges it.

It is forked from a warm process, limited in memory, processor time, files and output, and killed with everything
that it started when the checks end. It is believed nothing but what can be seen from outside.

It protects from accidents and from tricks, not from an enemy: the process has the rights of the user who runs the
checks. With those it can kill any process of that user's or change any file of theirs, also the kit's; as root it can
write into the judge's memory. Where the system has no procfs or no way to adopt orphans (macOS), a process that it
forked away into a session of its own is not found; its group is killed everywhere.
"""

import contextlib
import ctypes
import datetime
import json
import logging
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import values
from werkzeug.serving import ThreadedWSGIServer

from shopfloor.checks.given import forget_shop, lend
from shopfloor.services.watchdog import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, prctl, send

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

MEGABYTE = 2**20
EXTRA_MEMORY = 512 * MEGABYTE
M_ARENA_MAX, ARENAS = -8, 4  # malloc.h
LARGEST_FILE = 64 * MEGABYTE
OPEN_FILES = 200
MOST_THREADS = 200
PROCESSOR_SECONDS = 10
LOAD_SECONDS = 6.0
LONGEST_REPORT = MEGABYTE
KEPT_OUTPUT = 100_000  # some tracebacks through SQLAlchemy; the log of as many requests as a check makes
MOST_OUTPUT = 16 * MEGABYTE


class LearnerFailed(Exception):  # noqa: N818 - the learner's code did
    """The learner's file could not be used; `story` says in words what happened, `trace` where."""

    def __init__(self, story: str, trace: str = "") -> None:
        super().__init__(story)
        self.story = story
        self.trace = trace


@dataclass
class Output:
    """What the learner's processes printed: the first of it is kept, all is counted."""

    size: int = 0
    _first: bytearray = field(default_factory=bytearray)

    def keep(self, data: bytes) -> None:
        """Take more of it."""
        self.size += len(data)
        self._first += data[: KEPT_OUTPUT - len(self._first)]

    @property
    def text(self) -> str:
        """The first of it."""
        return self._first.decode(errors="replace")


@dataclass
class Learner:
    """The running process.

    Attributes:
        pid: of the process, which leads its own session.
        printed: where what it prints is kept.
        told: what it reported once it was ready: unverified.
    """

    pid: int
    printed: Output
    told: dict[str, Any] = field(default_factory=dict)
    _flooded: bool = False
    _status: int | None = None
    _reaping: threading.Lock = field(default_factory=threading.Lock)

    def drain(self, source: int) -> None:
        """Keep what it prints until nobody can print any more; kill it when that is too much."""
        with open(source, "rb", buffering=0) as stream:
            while data := stream.read(65536):
                self.printed.keep(data)
                if self.printed.size > MOST_OUTPUT and not self._flooded:
                    self._flooded = True
                    self.kill()

    def kill(self) -> None:
        """End it and its group."""
        if self._status is None:  # else the number may be another's by now
            send(self.pid, signal.SIGKILL, group=True)

    def wait(self) -> None:
        """Wait for its end."""
        with self._reaping:
            if self._status is None:
                self._status = os.waitpid(self.pid, 0)[1]

    def fate(self, patience: float = 0.5) -> str:
        """How it ended, as a sentence; empty if it still runs after `patience` seconds."""
        deadline = time.monotonic() + patience
        while not self._has_ended():
            if time.monotonic() > deadline:
                return ""
            time.sleep(0.005)
        code = os.waitstatus_to_exitcode(self._status or 0)
        if self._flooded:
            return f"It had printed more than {MOST_OUTPUT // MEGABYTE} MB, and was stopped: does a loop print?"
        if code == -signal.SIGXCPU:
            return f"It had used {PROCESSOR_SECONDS} s of processor time, and was stopped: does something loop?"
        if code < 0:
            return f"Its process was ended by signal {-code} ({signal.strsignal(-code)})."
        return f"It ended its own process (os._exit, exit code {code})."

    def _has_ended(self) -> bool:
        with self._reaping:  # its end is told once, and another thread may wait for it
            if self._status is None and (status := os.waitpid(self.pid, os.WNOHANG))[0]:
                self._status = status[1]
            return self._status is not None


_running: set[int] = set()
_forking = threading.Lock()  # from a fork until its process is among the running ones: else it would be a stray


def environment(**settings: str) -> dict[str, str]:
    """What the learner's process sees: these, and nothing of the environment of whoever runs the checks."""
    return {"PATH": os.environ.get("PATH", ""), "TZ": "UTC", **settings}


def _right() -> float:
    """The clock is right."""
    return 0.0


@contextlib.contextmanager
def learner(
    stage: Path, task: str, seen: dict[str, str], printed: Output, clock: Callable[[], float] = _right
) -> Iterator[Learner]:
    """Run the learner's shop in a process of its own while the block runs.

    Args:
        stage: the folder that holds `shop/`.
        task: `serve`, to serve it by HTTP; `indexes`, to tell what `shop.data.indexing` declares; `command` and its
            words, to run one of its Flask commands, such as `command settle`.
        seen: the environment that the shop sees.
        printed: gets what it prints.
        clock: by how many seconds the time of day that it sees is wrong.

    Raises:
        LearnerFailed: it did not get ready.
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # whatever it forks away comes to this process, and is killed
    report, told = os.pipe()
    source, output = os.pipe()
    judge = os.getpid()
    with _forking:
        pid = os.fork()
        if pid == 0:
            _become(stage, task, seen, clock, judge=judge, told=told, output=output)
        _running.add(pid)
    os.close(told)
    os.close(output)
    running = Learner(pid, printed)
    reader = threading.Thread(target=running.drain, args=(source,), daemon=True)
    reader.start()
    try:
        running.told = _wait_for_report(running, report)
        yield running
    finally:
        os.close(report)
        running.kill()
        running.wait()
        _running.discard(pid)
        _kill_strays()
        reader.join(1)  # at once, unless a stray that could not be found still holds the other end


def _kill_strays() -> None:
    """Kill the orphans that learners left to this process."""
    with _forking:
        while strays := [pid for pid in _children() if pid not in _running]:
            for pid in strays:
                send(pid, signal.SIGKILL, group=False)
                os.waitpid(pid, 0)


def _children() -> list[int]:
    """This process's children; none where there is no procfs."""
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def _wait_for_report(running: Learner, report: int) -> dict[str, Any]:
    """Read the one line that it reports.

    Raises:
        LearnerFailed: it reported a failure or nonsense, ended, or took too long.
    """
    text, deadline = b"", time.monotonic() + LOAD_SECONDS
    while b"\n" not in text and len(text) <= LONGEST_REPORT:
        ready, _, _ = select.select([report], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise LearnerFailed(f"The file was still being loaded after {LOAD_SECONDS:.0f} s: does it loop or wait?")
        data = os.read(report, 65536)
        if not data:
            fate = running.fate() or "It closed files that are not its own."
            raise LearnerFailed(f"The file could not be loaded. {fate}")
        text += data
    return _understood(text.partition(b"\n")[0])


def _understood(line: bytes) -> dict[str, Any]:
    if len(line) > LONGEST_REPORT:
        raise LearnerFailed("What the file declares is longer than a million characters.")
    try:
        told = json.loads(line)
        if "story" in told:
            raise LearnerFailed(str(told["story"]), str(told["trace"]))
        if "exit" in told:
            return {"exit": int(told["exit"]), "printed": str(told["printed"])}
        return {"port": int(told["port"])} if "port" in told else {"indexes": told["indexes"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise LearnerFailed("The file wrote into a file descriptor that is not its own.") from None


def _become(
    stage: Path, task: str, seen: dict[str, str], clock: Callable[[], float], *, judge: int, told: int, output: int
) -> None:
    """In the forked process: limit it, load the learner's shop, report, and serve until killed."""
    leave = os._exit  # the learner's code may replace it
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != judge:
            leave(1)  # it died before the line above
        _redirect(told, output)
        _limit()
        os.environ.clear()
        os.environ.update(seen)
        # Chosen by the environment when the library was imported, which the warm process did long ago.
        values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]  # it has no types
        _set_clock(clock)
        os.chdir(stage)
        sys.path.insert(0, str(stage))
        forget_shop()  # a check has imported it, the naive one, which is not to be judged
        lend(stage)
        sys.dont_write_bytecode = False  # in the stage, where the next shop that this check starts will find it
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request is no output of the learner's
        name, *words = task.split()
        TASKS[name](told, *words)
    except BaseException as error:  # noqa: BLE001 - whatever the learner's code does is to be told
        _tell(told, {"story": _story(error), "trace": _trace(error, stage)})
    finally:
        leave(1)


def _redirect(told: int, output: int) -> None:
    """Have the standard streams, the report, and nothing else: a verdict could be forged on the judge's own pipes."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - names are wanted
        if int(name) > 2 and int(name) != told:
            with contextlib.suppress(OSError):  # the descriptor of this very listing
                os.close(int(name))
    # pytest may have replaced them; by lines, so that nothing is lost when the process is killed
    sys.stdout = open(1, "w", buffering=1, closefd=False, encoding="utf-8", errors="replace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, encoding="utf-8", errors="replace")  # noqa: SIM115


def _limit() -> None:
    threading.stack_size(MEGABYTE)  # by default 8: fifty requests at once would be most of what it may have
    # glibc reserves 64 MB of address space for the arena of each of many threads; once the limit below is reached, each
    # allocation in a further thread is a system call, or fails, and to read the certificates of a client takes seconds.
    with contextlib.suppress(AttributeError):  # a C library without arenas
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)
    statm = Path("/proc/self/statm")  # Linux; elsewhere the limit on address space is not kept by the system
    if statm.exists():
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + EXTRA_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _set_clock(offset: Callable[[], float]) -> None:
    """Have Python's time of day, and no other clock, be off by what `offset` says from now on."""
    right_time, right_nanoseconds = time.time, time.time_ns
    right_datetime = datetime.datetime

    class AnyDatetime(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, right_datetime)  # what drivers and parsers written in C make is one, too

    class Shifted(right_datetime, metaclass=AnyDatetime):  # type: ignore[valid-type, misc]  # it was datetime.datetime
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return right_datetime.fromtimestamp(right_time() + offset(), tz)

        @classmethod
        def utcnow(cls) -> datetime.datetime:
            return cls.now(datetime.UTC).replace(tzinfo=None)

        @classmethod
        def __get_pydantic_core_schema__(cls, source: object, handler: Any) -> Any:
            return handler.generate_schema(right_datetime)  # a model may have a field of this type

    time.time = lambda: right_time() + offset()
    time.time_ns = lambda: right_nanoseconds() + int(offset() * 1e9)
    datetime.datetime = Shifted  # type: ignore[misc]  # on purpose


def _tell(told: int, report: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(told, (json.dumps(report) + "\n").encode())


class _Server(ThreadedWSGIServer):
    """Uses its threads again, as gunicorn does, so that what a request leaves behind in one is there for the next."""

    def __init__(self, host: str, port: int, app: "WSGIApplication") -> None:
        super().__init__(host, port, app)
        self._threads = ThreadPoolExecutor(MOST_THREADS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in the thread that has been free for longest; in a new one only if none is."""
        self._threads.submit(self.process_request_thread, request, client_address)


def _serve(told: int) -> None:
    from shop import create_app  # noqa: PLC0415 - the learner's: only the forked process may load it

    app = create_app()
    server = _Server("127.0.0.1", 0, app)
    _tell(told, {"port": server.server_port})
    server.serve_forever()


def _indexes(told: int) -> None:
    from shop.data.indexing import INDEXES  # noqa: PLC0415 - as above

    is_right = isinstance(INDEXES, (list, tuple)) and all(isinstance(statement, str) for statement in INDEXES)
    _tell(told, {"indexes": list(INDEXES) if is_right else repr(INDEXES)})


def _command(told: int, *words: str) -> None:
    from shop import create_app  # noqa: PLC0415 - as above

    result = create_app().test_cli_runner().invoke(args=words)
    if result.exception and not isinstance(result.exception, SystemExit):
        traceback.print_exception(result.exception)  # as Flask's own command line would
    _tell(told, {"exit": result.exit_code, "printed": result.output})


TASKS: dict[str, Callable[..., None]] = {"serve": _serve, "indexes": _indexes, "command": _command}


def _story(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "The file calls sys.exit while it is being loaded."
    if isinstance(error, SyntaxError):
        return f"Python cannot read the file: {error.msg} (line {error.lineno})."
    if isinstance(error, MemoryError):
        return f"The file needs more than {EXTRA_MEMORY // MEGABYTE} MB while it is being loaded."
    return f"The file raises {type(error).__name__} when it is imported: {error}"


def _trace(error: BaseException, stage: Path) -> str:
    """The trace, from the learner's own lines on."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(str(stage))]
    lines = traceback.format_list(own or frames) + traceback.format_exception_only(error)
    return "".join(lines).replace(f"{stage}/", "")
