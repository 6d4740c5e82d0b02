"""Runs one server, and ends it when its owner is gone.

A process that is killed cannot clean up after itself. So each server is the child of a watchdog, and the watchdog
holds the reading end of a pipe whose only writing end is the owner's. However the owner ends, the kernel closes the
pipe, and the watchdog ends the server. If the watchdog is killed instead, the kernel signals the server (on Linux).

It is run by its path and imports little, no pathlib for one, to start in milliseconds and stay small:

    python -I -S watchdog.py CONTROL REPORT OWNER UID GID STOP QUIT GRACE FDS PROGRAM [ARGUMENT...]

CONTROL and REPORT are descriptors of pipes, OWNER the pid of the parent, UID and GID the identity to take (-1: keep),
STOP and QUIT signal numbers, GRACE seconds, FDS the descriptors that the server gets, separated by commas. Standard
input and output, the environment and the working directory are the server's.

The owner writes one byte to CONTROL to ask for an orderly end. REPORT says `pid N`, or `error ERRNO`, and at last
`exit CODE`, where a negative code is the signal that ended the server.
"""

import ctypes
import os
import select
import signal
import sys
import time
import warnings  # noqa: F401 - os.execvp imports it, when the server's user may no longer reach Python's library
from contextlib import suppress

# A forked copy of the owner keeps the pipe open without being the owner: so the parent's pid is looked at as well.
OWNER_CHECK_SECONDS = 0.2
# What remains of the one second, for a server that wants to tell its own children.
QUIT_SECONDS = 0.4

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process, where the system has such a call (Linux, prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def become(program: list[str], *, watchdog: int, quit_signal: int, uid: int, gid: int, fds: list[int]) -> None:
    """Turn this freshly forked process into the server; return only by an exception."""
    os.setpgid(0, 0)
    if gid >= 0:
        os.setgroups([])
        os.setgid(gid)
    if uid >= 0:
        os.setuid(uid)
    prctl(PR_SET_PDEATHSIG, quit_signal)  # after setuid(2), which clears it
    if os.getppid() != watchdog:
        os._exit(1)  # it died before the line above
    for fd in fds:
        os.set_inheritable(fd, True)
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    os.execvp(program[0], program)  # noqa: S606 - no shell is the point


def launch(program: list[str], *, quit_signal: int, uid: int, gid: int, fds: list[int]) -> int:
    """Start the server and return its pid.

    Raises:
        OSError: it could not be executed, or the identity could not be taken.
    """
    watchdog = os.getpid()
    failure, told = os.pipe()  # closed by a successful exec
    pid = os.fork()
    if pid == 0:
        try:
            become(program, watchdog=watchdog, quit_signal=quit_signal, uid=uid, gid=gid, fds=fds)
        except OSError as error:
            os.write(told, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(told)
    errno = os.read(failure, 16)
    os.close(failure)
    if errno:
        os.waitpid(pid, 0)
        raise OSError(int(errno), os.strerror(int(errno)))
    return pid


def send(pid: int, number: int, *, group: bool) -> None:
    """Signal the server, or its whole process group."""
    with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group that is all zombies
        (os.killpg if group else os.kill)(pid, number)


def supervise(pid: int, *, control: int, wakeup: int, owner: int, stop: int, quit_signal: int, grace: float) -> int:
    """Wait for the server's end, and bring it about when the owner asks or is gone; return its exit code."""
    owned = True
    deadline: float | None = None  # when a server that was told to end is killed
    while True:
        timeout = OWNER_CHECK_SECONDS if deadline is None else min(OWNER_CHECK_SECONDS, deadline - time.monotonic())
        ready, _, _ = select.select([control, wakeup] if owned else [wakeup], [], [], max(0.0, timeout))
        signals = os.read(wakeup, 64) if wakeup in ready else b""
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        command = os.read(control, 16) if control in ready else None
        told_to_quit = any(number != signal.SIGCHLD for number in signals)
        if owned and (command == b"" or told_to_quit or os.getppid() != owner):
            owned = False
            send(pid, quit_signal, group=True)
            deadline = time.monotonic() + QUIT_SECONDS
        elif command and deadline is None:
            send(pid, stop, group=False)
            deadline = time.monotonic() + grace
        if deadline is not None and time.monotonic() >= deadline:
            send(pid, signal.SIGKILL, group=True)
            deadline = time.monotonic() + OWNER_CHECK_SECONDS


def sweep(group: int) -> None:
    """Kill what the server left behind: its group, and any descendant that has become this process's child."""
    send(group, signal.SIGKILL, group=True)
    with suppress(ChildProcessError):  # raised when there is none left
        while True:
            # Without procfs the group was all that could be known.
            with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as children:  # noqa: PTH123
                for pid in children.read().split():
                    send(int(pid), signal.SIGKILL, group=False)
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.005)


def main(arguments: list[str]) -> None:
    """Run one server to its end; see the top of this file for the arguments."""
    control, report, owner, uid, gid, stop, quit_signal = (int(argument) for argument in arguments[:7])
    grace, fds, program = float(arguments[7]), [int(fd) for fd in arguments[8].split(",") if fd], arguments[9:]
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - without pathlib
        with suppress(OSError):  # the descriptor of this very listing
            if int(name) > 2:
                os.set_inheritable(int(name), False)  # the server gets those that FDS names
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    wakeup, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # reported through the pipe above
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # the server's orphans come to this process: sweep

    def tell(line: str) -> None:
        with suppress(BrokenPipeError):  # nobody is left to read it
            os.write(report, f"{line}\n".encode())

    try:
        pid = launch(program, quit_signal=quit_signal, uid=uid, gid=gid, fds=fds)
    except OSError as error:
        tell(f"error {error.errno}")
        return
    tell(f"pid {pid}")
    for fd in (0, *fds):
        os.close(fd)  # only the server should hold a listening socket
    code = supervise(pid, control=control, wakeup=wakeup, owner=owner, stop=stop, quit_signal=quit_signal, grace=grace)
    sweep(pid)
    tell(f"exit {code}")


if __name__ == "__main__":
    main(sys.argv[1:])
