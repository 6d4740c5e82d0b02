"""A second copy of the kit, for tests that start it, break it or kill it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from shopfloor.paths import material
from tests.helpers import wait_until

NOT_COPIED = (".venv", ".git", ".shopfloor", "_build", "workspace", "*_cache", ".hypothesis", "__pycache__")
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/")


def copy_kit(target: Path) -> Path:
    """Copy the working copy, without what was made in it."""
    shutil.copytree(material().root, target, ignore=shutil.ignore_patterns(*NOT_COPIED))
    return target


class Running:
    """A command of the kit in a process of its own, its output in a file."""

    def __init__(self, root: Path, arguments: Sequence[str], output: Path) -> None:
        self.output = output
        environment = os.environ | {"PYTHONPATH": str(root), "NO_COLOR": "1"}
        with output.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shopfloor", *arguments],
                cwd=root,
                env=environment,
                stdout=stream,
                stderr=stream,
                stdin=subprocess.DEVNULL,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, words: str, timeout: float = 120) -> None:
        def said() -> bool:
            assert self.process.poll() is None or words in self.text, f"it ended first:\n{self.text}"
            return words in self.text

        wait_until(said, timeout, f"never said {words!r}:\n{self.output}")

    @property
    def address(self) -> str:
        found = ADDRESS.search(self.text)
        assert found, self.text
        return found[0]

    def family(self) -> list[psutil.Process]:
        """The process and all that it started, directly or not."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def end(self, number: signal.Signals) -> int:
        """Signal it, and wait until it and all that it started are gone; give its exit code."""
        family = self.family()
        self.process.send_signal(number)
        code = self.process.wait(30)
        wait_until(lambda: not any(is_alive(process) for process in family), 5, f"left behind: {family}")
        return code


def is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs; one that nobody has waited for yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def running(root: Path, *arguments: str, output: Path) -> Iterator[Running]:
    """Run a command of the kit in `root`; it is killed at the end of the block if it still runs."""
    command = Running(root, arguments, output)
    try:
        yield command
    finally:
        command.process.kill()
        command.process.wait()
