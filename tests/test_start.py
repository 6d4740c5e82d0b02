"""`shopfloor start` as a person meets it: in a fresh copy, without a terminal, on one, ended and killed."""

import signal
import sys
import urllib.request
from pathlib import Path

import pexpect
import pytest

from shopfloor.paths import material
from tests.helpers import wait_until
from tests.kit import ADDRESS, copy_kit, is_alive, running
from tests.learner.tiny import tiny_kit

pytestmark = pytest.mark.slow


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=30) as response:
        return str(response.read().decode())


def test_a_fresh_copy_can_be_read_before_it_is_measured_and_leaves_nothing_when_it_is_killed(tmp_path: Path) -> None:
    root = copy_kit(tmp_path / "kit")
    with running(root, "start", output=tmp_path / "said") as kit:
        kit.wait_for("The handbook is open at")
        assert "Services: PostgreSQL" in kit.text
        assert "\x1b[" not in kit.text, "colour or cursor movement in a file"
        chapter = get(kit.address + "book/data/indexing.html")
        assert "Not measured on this machine yet" in chapter
        kit.wait_for("Measuring" if "Seed data:" in kit.text else "Seed data:")
        assert len(kit.family()) > 3, "the servers and their watchdogs should be running"
        assert kit.end(signal.SIGKILL) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_when_it_is_told_to(tmp_path: Path, number: signal.Signals) -> None:
    root = tiny_kit(tmp_path / "kit")
    with running(root, "start", output=tmp_path / "said") as kit:
        kit.wait_for("The handbook is open at")
        kit.end(number)
        assert kit.text.endswith("Stopped.\n")
        assert "Traceback" not in kit.text


@pytest.mark.book
def test_on_a_terminal_ctrl_c_ends_it(tmp_path: Path) -> None:
    """In the working copy, where the book is built and the services of this test run are attached to."""
    kit = pexpect.spawn(
        str(Path(sys.executable).with_name("shopfloor")),
        ["start"],
        cwd=material().root,
        dimensions=(24, 80),
        timeout=60,
    )
    try:
        kit.expect(ADDRESS.pattern)
        address = kit.match[0].decode()
        kit.expect("Ctrl-C stops everything")
        assert "Shopfloor" in get(address)
        kit.sendintr()
        kit.expect("Stopped")
        kit.expect(pexpect.EOF)
        kit.wait()
        assert kit.exitstatus == 130
    finally:
        kit.close(force=True)


def test_two_copies_run_side_by_side(tmp_path: Path) -> None:
    first, second = tiny_kit(tmp_path / "one"), tiny_kit(tmp_path / "two")
    with running(first, "start", output=tmp_path / "a") as a, running(second, "start", output=tmp_path / "b") as b:
        a.wait_for("The handbook is open at")
        b.wait_for("The handbook is open at")
        assert a.address != b.address
        a.end(signal.SIGTERM)
        assert is_alive(b.family()[0])
        assert "Shopfloor" in get(b.address)
        b.end(signal.SIGTERM)


def test_pages_that_are_being_measured_end_with_an_interrupt(tmp_path: Path) -> None:
    root = tiny_kit(tmp_path / "kit")
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/index\nchapters:\n- file: book/a\n- file: book/b\n")
    header = (root / "book/data/indexing.md").read_text().split("\n# ")[0]
    for name in "ab":
        lines = ("import pathlib, time", f"pathlib.Path('{tmp_path}/{name}').touch()", "time.sleep(600)")
        (root / f"book/{name}.md").write_text("\n".join([header, f"# {name}", "", "```{code-cell}", *lines, "```", ""]))
    with running(root, "book", output=tmp_path / "said") as kit:
        wait_until(lambda: all((tmp_path / name).exists() for name in "ab"), 120, "the pages did not begin")
        assert kit.end(signal.SIGINT) == 130
        assert kit.text.endswith("Stopped.\n")
        assert "Traceback" not in kit.text
