"""The learner's loop on a real terminal: saves, keys, and what is left when it ends."""

import signal
import sys
import urllib.request

import pexpect
import psutil
import pytest

from tests.helpers import wait_until
from tests.kit import ADDRESS, is_alive, running
from tests.learner.tiny import ANSWERS, Kit

INDEXING, N_PLUS_ONE = "data/indexing", "data/n_plus_one"

pytestmark = pytest.mark.slow


def family(pid: int) -> list[psutil.Process]:
    own = psutil.Process(pid)
    return [own, *own.children(recursive=True)]


def test_from_the_first_lab_to_the_next_day(kit: Kit) -> None:
    with kit.terminal("watch") as terminal:
        terminal.expect("Your copy of the shop is in workspace/shop")
        terminal.expect("Lab data/indexing: A tiny lab on indexing")
        terminal.expect("Edit:  workspace/shop/data/indexing.py")
        terminal.expect("Keys: h hint, n next lab, l list, o load, q quit")
        kit.file(INDEXING).write_text("INDEXES = []\n")
        terminal.expect("not right yet|could not be checked")
        terminal.send("h")
        terminal.expect("Hint 1 of 3 for data/indexing: Look.")
        other = kit.file(INDEXING).with_suffix(".tmp")
        other.write_text(ANSWERS[INDEXING])
        other.rename(kit.file(INDEXING))
        terminal.expect(": passed.")
        terminal.expect("The next lab is data/n_plus_one")
        terminal.expect("Press n to go on")
        terminal.send("n")
        terminal.expect("Lab data/n_plus_one")
        terminal.send("l")
        terminal.expect(r"data/indexing    passed\r\n")
        terminal.expect(r"data/n_plus_one  not begun \(the current lab\)")
        kit.file(N_PLUS_ONE).write_text("import of nothing\n")
        terminal.expect("not right yet|could not be checked")
        everyone = family(terminal.pid)
        terminal.send("q")
        terminal.expect(pexpect.EOF)
        terminal.wait()
        assert terminal.exitstatus == 0
        wait_until(lambda: not any(map(is_alive, everyone)), 5, f"left behind: {everyone}")
    with kit.terminal("watch") as terminal:
        terminal.expect("Lab data/n_plus_one")
        terminal.expect("not right yet|could not be checked")


def test_of_two_quick_saves_the_later_verdict_stays(kit: Kit) -> None:
    kit.make()
    with kit.terminal("watch") as terminal:
        terminal.expect("Keys:")
        for _ in range(3):
            kit.solve(INDEXING)
            kit.file(INDEXING).write_text("INDEXES = 'later'\n")
            terminal.expect("not right yet|could not be checked")
            kit.file(INDEXING).write_text("INDEXES = 'earlier'\n")
            kit.solve(INDEXING)
            terminal.expect(": passed.")


SHELL = """
import subprocess, sys
subprocess.run([sys.executable, "-m", "shopfloor", "watch"])
input("then ")
"""


def test_the_terminal_is_left_as_it_was(kit: Kit) -> None:
    kit.make()
    terminal = pexpect.spawn(
        sys.executable, ["-c", SHELL], cwd=kit.root, env=kit.environment, encoding="utf-8", timeout=60
    )
    try:
        terminal.expect("Keys:")
        terminal.send("q")
        terminal.expect("then ")
        terminal.send("typed")
        terminal.expect("typed")  # echoed again
        terminal.send("\n")
        terminal.expect(pexpect.EOF)
    finally:
        terminal.close(force=True)


def test_ctrl_c_and_ctrl_d_end_it(kit: Kit) -> None:
    kit.make()
    for key, code in (("\x03", 130), ("\x04", 0)):
        with kit.terminal("watch") as terminal:
            terminal.expect("Keys:")
            everyone = family(terminal.pid)
            terminal.send(key)
            terminal.expect(pexpect.EOF)
            terminal.wait()
            assert terminal.exitstatus == code
            wait_until(lambda gone=everyone: not any(map(is_alive, gone)))  # type: ignore[misc]


def test_load_runs_beside_the_checks(kit: Kit) -> None:
    kit.make()
    with kit.terminal("watch", INDEXING) as terminal:
        terminal.expect("Keys:")
        terminal.send("o")
        terminal.expect("about half a minute")
        kit.solve(INDEXING)
        terminal.expect(": passed.")
        terminal.expect("workspace/load/data/indexing.html", timeout=120)


def test_without_a_terminal_it_prints_plain_lines(kit: Kit) -> None:
    kit.make()
    with running(kit.root, "watch", output=kit.root / "said") as watch:
        watch.wait_for("Save the file")
        assert "Keys" not in watch.text
        kit.solve(INDEXING)
        watch.wait_for("To go on: shopfloor watch data/n_plus_one")
        assert "\x1b" not in watch.text
        assert watch.end(signal.SIGTERM) == 130


def test_it_is_gone_when_it_is_killed(kit: Kit) -> None:
    kit.make()
    with running(kit.root, "watch", output=kit.root / "said") as watch:
        watch.wait_for("Save the file")
        kit.solve(INDEXING)
        watch.wait_for(": passed.")
        assert watch.end(signal.SIGKILL) == -signal.SIGKILL


def test_start_serves_the_book_and_watches(kit: Kit) -> None:
    with kit.terminal("start") as terminal:
        terminal.expect(ADDRESS.pattern)
        address = terminal.match[0]
        terminal.expect(rf"Brief: {address}labs/data/indexing/brief.html")
        terminal.expect("Keys:")
        with urllib.request.urlopen(f"{address}book/index.html", timeout=30) as response:
            assert b"A tiny book" in response.read()
        kit.solve(INDEXING)
        terminal.expect(": passed.")
        everyone = family(terminal.pid)
        terminal.send("q")
        terminal.wait()
        assert terminal.exitstatus == 0
        wait_until(lambda: not any(map(is_alive, everyone)), 5, f"left behind: {everyone}")
