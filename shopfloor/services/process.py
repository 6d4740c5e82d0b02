"""Starts child processes that never outlive their owner.

Each runs under a watchdog of its own (`watchdog.py`), which ends it within a second of the owner's death.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Self

from shopfloor.errors import UserError

WATCHDOG = Path(__file__).with_name("watchdog.py")
PORT_ATTEMPTS = 5


@dataclass(frozen=True)
class Identity:
    """The user and group that a server runs as when its owner is root."""

    uid: int
    gid: int


class ChildError(UserError):
    """A server ended, or did not answer, before it was ready."""


class Child:
    """A running server and its watchdog.

    Attributes:
        pid: the server's process id.
        log: the file that gets what the server prints.
    """

    def __init__(self, watchdog: subprocess.Popen[bytes], control: BinaryIO, report: BinaryIO, log: Path, grace: float):
        self.log = log
        self._owner = os.getpid()
        self._watchdog = watchdog
        self._control = control
        self._report = report
        self._grace = grace
        self._code: int | None = None
        self._lock = threading.Lock()
        self.pid = self._first_report()

    def _first_report(self) -> int:
        word, _, number = self._report.readline().decode().partition(" ")
        if word == "pid":
            return int(number)
        self._watchdog.wait()
        self._close()
        if word == "error":
            raise OSError(int(number), os.strerror(int(number)))
        raise ChildError(f"A watchdog did not start. Its log is {self.log}\n{log_tail(self.log)}")

    @property
    def watchdog_pid(self) -> int:
        """The process id of the watchdog."""
        return self._watchdog.pid

    def poll(self) -> int | None:
        """The server's exit code (negative: a signal's number), or None while it runs."""
        with self._lock:
            if self._code is None and self._watchdog.poll() is not None:
                # A killed watchdog reports nothing; the kernel then ends the server.
                _, _, code = self._report.read().decode().partition("exit ")
                self._code = int(code) if code else -int(signal.SIGKILL)
            return self._code

    def wait(self, timeout: float) -> int:
        """Wait for a program that ends by itself; return its exit code.

        Raises:
            ChildError: it runs for longer than `timeout` seconds.
        """
        try:
            self._watchdog.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ChildError(f"Not done after {timeout:.0f} s. Its log is {self.log}\n{log_tail(self.log)}") from None
        code = self.poll()
        assert code is not None
        return code

    def stop(self) -> None:
        """End the server in its orderly way, by force after its grace; return when it is gone.

        Does nothing the second time, and nothing in a forked copy of the owner, which owns nothing.
        """
        if os.getpid() != self._owner or self._control.closed:
            return
        with suppress(BrokenPipeError):  # it is gone already
            self._control.write(b"s")
        try:
            self._watchdog.wait(timeout=self._grace + 2)
        except subprocess.TimeoutExpired:
            self._watchdog.kill()
            self._watchdog.wait()
        self.poll()
        self._close()

    def _close(self) -> None:
        self._control.close()
        self._report.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_child(
    argv: Sequence[str | os.PathLike[str]],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    pass_fds: Sequence[int] = (),
    keep_fds: Sequence[int] = (),
    identity: Identity | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    quit_signal: signal.Signals = signal.SIGKILL,
    grace: float = 5.0,
) -> Child:
    """Start a server that ends with this process.

    Args:
        argv: the program and its arguments; no secrets, for everyone on the machine can read them.
        log: gets what the server prints; what it held is lost.
        env: the whole environment; None for this process's own.
        cwd: the working directory.
        stdin: what the server reads from its standard input; None for nothing.
        pass_fds: descriptors that the server gets, under the same numbers (a listening socket).
        keep_fds: descriptors that the watchdog keeps open until the server is gone (a lock).
        identity: who to run it as; only root may ask for another than its own.
        stop_signal: what `Child.stop` sends to the server.
        quit_signal: what the server's process group is sent when the owner is gone.
        grace: seconds between `stop_signal` and SIGKILL.

    Raises:
        OSError: the program cannot be executed.
    """
    control_read, control_write = os.pipe()
    report_read, report_write = os.pipe()
    taken = identity or Identity(-1, -1)
    numbers = (control_read, report_write, os.getpid(), taken.uid, taken.gid, int(stop_signal), int(quit_signal))
    command = [sys.executable, "-I", "-S", str(WATCHDOG), *map(str, numbers), str(grace)]
    command += [",".join(map(str, pass_fds)), *(os.fspath(argument) for argument in argv)]
    stdin_read, stdin_write = os.pipe()
    try:
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
            watchdog = subprocess.Popen(
                command,
                stdin=stdin_read,
                stdout=output,
                stderr=output,
                env=env,
                cwd=cwd,
                pass_fds=(control_read, report_write, *pass_fds, *keep_fds),
                start_new_session=True,  # the terminal's Ctrl-C is for the owner alone
            )
    except BaseException:
        for fd in (control_write, report_read, stdin_write):
            os.close(fd)
        raise
    finally:
        for fd in (control_read, report_write, stdin_read):
            os.close(fd)
    with suppress(BrokenPipeError), os.fdopen(stdin_write, "wb") as pipe:
        pipe.write(stdin or b"")
    return Child(watchdog, os.fdopen(control_write, "wb", buffering=0), os.fdopen(report_read, "rb"), log, grace)


def wait_until_ready(child: Child, ready: Callable[[], bool], *, name: str, timeout: float = 10.0) -> None:
    """Poll `ready` until it is true.

    Raises:
        ChildError: the server ended, or was not ready within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not ready():
        if child.poll() is not None:
            raise ChildError(f"{name} ended as it started. Its log is {child.log}\n{log_tail(child.log)}")
        if time.monotonic() > deadline:
            raise ChildError(
                f"{name} did not answer within {timeout:.0f} s. Its log is {child.log}\n{log_tail(child.log)}"
            )
        time.sleep(0.005)


def start_on_free_port(
    start: Callable[[int], Child], ready: Callable[[Child, int], bool], *, name: str, timeout: float = 10.0
) -> tuple[Child, int]:
    """Start a server on a free loopback port, and on another one when that was taken in the meantime.

    Args:
        start: starts the server on the given port.
        ready: whether that server answers on that port.
        name: for messages.
        timeout: seconds until it must answer.

    Raises:
        ChildError: the server cannot be executed, ended, or was not ready within `timeout` seconds.
    """
    for attempt in range(1, PORT_ATTEMPTS + 1):
        port = free_port()
        try:
            child = start(port)
        except OSError as error:
            raise ChildError(f"{name} cannot be executed: {error.strerror}") from error
        try:
            wait_until_ready(child, partial(ready, child, port), name=name, timeout=timeout)
        except ChildError:
            child.stop()
            if attempt == PORT_ATTEMPTS or "Address already in use" not in child.log.read_text(errors="replace"):
                raise
        except BaseException:
            child.stop()
            raise
        else:
            return child, port
    raise AssertionError("the last attempt returns or raises")


def log_tail(log: Path, lines: int = 5) -> str:
    """The last lines of a server's log, indented."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
