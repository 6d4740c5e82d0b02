"""The process that the learner's file runs in, and nothing that judges it.

It is forked from a warm process, limited in memory and processor time, and killed with everything that it
started when the checks end. It is believed nothing but what can be seen from outside.
"""

import contextlib
import json
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from werkzeug.serving import make_server

from shopfloor.services.watchdog import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, prctl, send, sweep

EXTRA_MEMORY = 512 * 2**20
PROCESSOR_SECONDS = 10
LOAD_SECONDS = 6.0
KEPT_OUTPUT = 4_000


class LearnerFailed(Exception):  # noqa: N818 - the learner's code did
    """The learner's file could not be used; `story` says in words what happened, `trace` where."""

    def __init__(self, story: str, trace: str = "") -> None:
        super().__init__(story)
        self.story = story
        self.trace = trace


@dataclass
class Learner:
    """The running process.

    Attributes:
        pid: of the process, which leads its own session.
        told: what it reported once it was ready: unverified.
    """

    pid: int
    told: dict[str, Any]
    _output: list[bytes] = field(default_factory=list)
    printed: int = 0

    @property
    def output(self) -> str:
        """The first of what it printed."""
        return b"".join(self._output)[:KEPT_OUTPUT].decode(errors="replace")

    def keep(self, data: bytes) -> None:
        """Take what it printed; only the first is kept, all is counted."""
        if self.printed < KEPT_OUTPUT:
            self._output.append(data)
        self.printed += len(data)


@contextlib.contextmanager
def learner(stage: Path, task: str, environment: dict[str, str]) -> Iterator[Learner]:
    """Run the learner's shop in a process of its own while the block runs.

    Args:
        stage: the folder that holds `shop/`.
        task: `serve`, to serve it by HTTP; `indexes`, to tell what `shop.data.indexing` declares.
        environment: what the shop sees.

    Raises:
        LearnerFailed: it did not get ready.
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # whatever it forks away comes to this process, and is swept
    report, told = os.pipe()
    printed, output = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(stage, task, environment, told, output)
    os.close(told)
    os.close(output)
    running = Learner(pid, {})
    reader = threading.Thread(target=_drain, args=(printed, running), daemon=True)
    reader.start()
    try:
        running.told = _wait_for_report(report)
        yield running
    finally:
        send(pid, signal.SIGKILL, group=True)
        sweep(pid)
        os.close(report)
        reader.join(1)


def _drain(printed: int, running: Learner) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(printed, 65536):
            running.keep(data)
    os.close(printed)


def _wait_for_report(report: int) -> dict[str, Any]:
    """Read the one line that it reports.

    Raises:
        LearnerFailed: it reported a failure, ended, or took too long.
    """
    line, deadline = b"", time.monotonic() + LOAD_SECONDS
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([report], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise LearnerFailed(f"The file was still being loaded after {LOAD_SECONDS:.0f} s: does it loop or wait?")
        data = os.read(report, 65536)
        if not data:
            raise LearnerFailed("The file ended its own process while it was being loaded (os._exit, or a crash).")
        line += data
        if len(line) > 1_000_000:
            raise LearnerFailed("What the file declares is longer than a million characters.")
    told: dict[str, Any] = json.loads(line)
    if "story" in told:
        raise LearnerFailed(told["story"], told["trace"])
    return told


def _become(stage: Path, task: str, environment: dict[str, str], told: int, output: int) -> None:
    """In the forked process: limit it, load the learner's shop, report, and serve until killed."""
    status = 1
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _limit()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _close_all_but(told)  # the judge's own pipes, on which a verdict could be forged
        os.environ.clear()
        os.environ.update(environment)
        sys.path.insert(0, str(stage))
        sys.dont_write_bytecode = True
        TASKS[task](told)
        status = 0
    except SystemExit:
        _tell(told, {"story": "The file calls sys.exit while it is being loaded.", "trace": traceback.format_exc()})
    except BaseException as error:  # noqa: BLE001 - whatever the learner's code does is to be told
        _tell(told, {"story": _story(error), "trace": _trace(error, stage)})
    finally:
        os._exit(status)


def _close_all_but(kept: int) -> None:
    os.closerange(3, kept)
    os.closerange(kept + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _limit() -> None:
    statm = Path("/proc/self/statm")  # Linux; elsewhere the limit on address space is not kept by the system
    if statm.exists():
        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + EXTRA_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_SECONDS, PROCESSOR_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _tell(told: int, report: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(told, (json.dumps(report) + "\n").encode())


def _serve(told: int) -> None:
    from shop import create_app  # noqa: PLC0415 - the learner's: only the forked process may load it

    app = create_app()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    _tell(told, {"port": server.server_port})
    server.serve_forever()


def _indexes(told: int) -> None:
    from shop.data.indexing import INDEXES  # noqa: PLC0415 - as above

    _tell(told, {"indexes": list(INDEXES) if isinstance(INDEXES, (list, tuple)) else repr(INDEXES)})


TASKS = {"serve": _serve, "indexes": _indexes}


def _story(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"Python cannot read the file: {error.msg} (line {error.lineno})."
    if isinstance(error, MemoryError):
        return f"The file needs more than {EXTRA_MEMORY // 2**20} MB while it is being loaded."
    return f"The file raises {type(error).__name__} when it is imported: {error}"


def _trace(error: BaseException, stage: Path) -> str:
    """The trace, from the learner's own lines on."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.startswith(str(stage))]
    lines = traceback.format_list(own or frames) + traceback.format_exception_only(error)
    return "".join(lines).replace(f"{stage}/", "")
