"""A child has what it was given, ends as it was asked to, and never outlives its owner."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from shopfloor.services import process
from shopfloor.services.process import ChildError, Identity, start_child, start_on_free_port, wait_until_ready
from tests.helpers import wait_until
from tests.services.conftest import assert_gone, gone, listeners

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change identity")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child whose parent was killed")

# A server with a child in its own group, and one that has left for a session of its own.
FAMILY = "sleep 300 & setsid sleep 300 & echo ready; wait"

OWNER = """
import os, sys, time
from pathlib import Path
from shopfloor.services.process import start_child
child = start_child(["/bin/sh", "-c", sys.argv[2]], log=Path(sys.argv[1]))
if sys.argv[3] == "fork" and os.fork() == 0:
    child.stop()   # not its to stop
    os.write(1, b"copy\\n")   # in one piece, for two processes write here
    time.sleep(300)
os.write(1, f"{child.pid} {child.watchdog_pid}\\n".encode())
time.sleep(300)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def family(log: Path, pid: int) -> list[psutil.Process]:
    """The server and both its children, once they are there."""
    wait_until(lambda: "ready" in log.read_text())
    server = psutil.Process(pid)
    wait_until(lambda: len(server.children()) == 2)
    return [server, *server.children()]


@pytest.fixture(params=["alone", "fork"])
def owner(request: pytest.FixtureRequest, log: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that owns a server; with "fork", a copy of it stays that holds the same pipes."""
    command = [sys.executable, "-c", OWNER, str(log), FAMILY, request.param]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as owner:
        yield owner
        with suppress(ProcessLookupError):
            os.killpg(owner.pid, signal.SIGKILL)


def pids(owner: subprocess.Popen[str]) -> list[int]:
    assert owner.stdout
    said = [owner.stdout.readline() for _ in range(2 if "fork" in owner.args else 1)]
    (line,) = (line for line in said if line.strip() != "copy")
    return [int(pid) for pid in line.split()]


def test_owner_killed_ends_everything(owner: subprocess.Popen[str], log: Path) -> None:
    server, watchdog = pids(owner)
    processes = [psutil.Process(watchdog), *family(log, server)]
    owner.kill()
    assert_gone(processes)


def test_interrupt_in_the_terminal_does_not_reach_the_server(owner: subprocess.Popen[str], log: Path) -> None:
    server, watchdog = pids(owner)
    processes = [psutil.Process(watchdog), *family(log, server)]
    assert {os.getsid(process.pid) for process in processes}.isdisjoint({os.getsid(owner.pid)})
    assert not gone(processes[:1])


@on_linux
def test_watchdog_killed_ends_the_server(log: Path) -> None:
    with start_child(["sleep", "300"], log=log) as child:
        processes = [psutil.Process(child.pid)]
        os.kill(child.watchdog_pid, signal.SIGKILL)
        assert_gone(processes)
        wait_until(lambda: child.poll() == -signal.SIGKILL)


def test_watchdog_told_to_end_takes_the_server_with_it(log: Path) -> None:
    with start_child(["/bin/sh", "-c", FAMILY], log=log) as child:
        processes = family(log, child.pid)
        os.kill(child.watchdog_pid, signal.SIGTERM)
        assert_gone(processes)
        wait_until(lambda: child.poll() is not None)


def test_what_a_crashed_server_leaves_behind_is_ended(log: Path) -> None:
    with start_child(["/bin/sh", "-c", FAMILY], log=log) as child:
        processes = family(log, child.pid)
        os.kill(child.pid, signal.SIGKILL)
        assert_gone(processes)
        wait_until(lambda: child.poll() == -signal.SIGKILL)


def test_stop_is_orderly(log: Path) -> None:
    script = "trap 'echo bye; exit 7' INT; echo ready; while :; do sleep 0.01; done"
    child = start_child(["/bin/sh", "-c", script], log=log, stop_signal=signal.SIGINT)
    wait_until(lambda: "ready" in log.read_text())
    assert child.poll() is None
    child.stop()
    child.stop()
    assert child.poll() == 7
    assert log.read_text() == "ready\nbye\n"


def test_stop_is_by_force_after_the_grace(log: Path) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.01; done"
    child = start_child(["/bin/sh", "-c", script], log=log, grace=0.1)
    wait_until(lambda: "ready" in log.read_text())
    child.stop()
    assert child.poll() == -signal.SIGKILL


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", -15)])
def test_exit_code(log: Path, script: str, code: int) -> None:
    with start_child(["/bin/sh", "-c", script], log=log) as child:
        assert child.wait(timeout=30) == code
        assert child.poll() == code


def test_wait_has_a_limit(log: Path) -> None:
    with start_child(["sleep", "300"], log=log) as child, pytest.raises(ChildError, match="Not done"):
        child.wait(timeout=0.05)


def test_child_has_what_it_was_given(log: Path, tmp_path: Path) -> None:
    script = (
        "import os, socket, sys; print(sys.stdin.read(), os.environ, os.getcwd());"
        "print(socket.socket(fileno=int(sys.argv[1])))"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        child = start_child(
            [sys.executable, "-I", "-S", "-c", script, str(number)],
            log=log,
            env={"LC_ALL": "C", "ONLY": "this"},
            cwd=tmp_path,
            stdin=b"secret",
            pass_fds=(number,),
        )
        port = listener.getsockname()[1]
    with child:
        assert child.wait(timeout=30) == 0, log.read_text()
    said = log.read_text()
    assert "secret" in said
    assert "'ONLY': 'this'" in said
    assert "HOME" not in said
    assert str(tmp_path) in said
    assert f"laddr=('127.0.0.1', {port})" in said


def test_listening_socket_is_the_server_s_alone(log: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = start_child(["sleep", "300"], log=log, pass_fds=(listener.fileno(),))
    with child:
        assert listeners([psutil.Process(child.pid)]) == {"127.0.0.1"}
        wait_until(lambda: listeners([psutil.Process(child.watchdog_pid)]) == set())


def test_watchdog_alone_keeps_a_lock(log: Path) -> None:
    reading, writing = os.pipe()
    child = start_child(["sleep", "300"], log=log, keep_fds=(writing,))
    os.close(writing)
    os.set_blocking(reading, False)
    with child:
        with pytest.raises(BlockingIOError):
            os.read(reading, 1)  # somebody holds the other end
        if sys.platform == "linux":
            held = [fd.readlink() for fd in Path(f"/proc/{child.pid}/fd").iterdir()]
            assert Path(f"/proc/self/fd/{reading}").readlink() not in held
    assert os.read(reading, 1) == b""
    os.close(reading)


@as_root
def test_identity_is_taken_whole(log: Path) -> None:
    groups = os.getgroups()
    os.setgroups([0])
    try:
        with start_child(["id"], log=log, identity=Identity(65534, 65534), cwd=Path("/")) as child:
            assert child.wait(timeout=30) == 0
    finally:
        os.setgroups(groups)
    assert "uid=65534" in log.read_text()
    assert "groups=65534" in log.read_text()
    assert "root" not in log.read_text()


@as_root
@on_linux
def test_server_of_another_user_ends_with_its_watchdog(log: Path) -> None:
    with start_child(["sleep", "300"], log=log, identity=Identity(65534, 65534), cwd=Path("/")) as child:
        processes = [psutil.Process(child.pid)]
        os.kill(child.watchdog_pid, signal.SIGKILL)
        assert_gone(processes)


def test_program_that_is_not_there(log: Path) -> None:
    with pytest.raises(FileNotFoundError):
        start_child(["/nonexistent/server"], log=log)


def test_log_is_private(log: Path) -> None:
    with start_child(["true"], log=log):
        assert log.stat().st_mode & 0o777 == 0o600


def test_server_that_ends_as_it_starts_is_reported_with_its_log(log: Path) -> None:
    child = start_child(["/bin/sh", "-c", "echo bad configuration; exit 1"], log=log)
    with child, pytest.raises(ChildError, match="bad configuration"):
        wait_until_ready(child, lambda: False, name="It")


def test_server_that_never_answers_is_reported(log: Path) -> None:
    with start_child(["sleep", "300"], log=log) as child, pytest.raises(ChildError, match="did not answer"):
        wait_until_ready(child, lambda: False, name="It", timeout=0.05)


def test_port_lost_to_another_process(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(300)"

    def answers(_: object, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0 and port != taken

    with socket.create_server(("127.0.0.1", 0)) as thief:
        taken = thief.getsockname()[1]
        ports = iter([taken, process.free_port()])
        monkeypatch.setattr(process, "free_port", lambda: next(ports))
        child, port = start_on_free_port(
            lambda port: start_child([sys.executable, "-I", "-S", "-c", script, str(port)], log=log),
            answers,
            name="It",
        )
        with child:
            assert port != taken
