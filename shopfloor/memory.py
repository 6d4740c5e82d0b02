"""How much memory the processes of a server have while something is done to it."""

import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MEGABYTE = 2**20
SECONDS_BETWEEN = 0.02


@dataclass
class Memory:
    """What was seen, for as long as it was looked at.

    Attributes:
        seconds: when, since the beginning.
        megabytes: how much memory was resident then, in all processes together.
    """

    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """By how many megabytes it was more at most than at first."""
        return max(self.megabytes) - self.megabytes[0]


@contextmanager
def memory_of(pid: int) -> Iterator[Memory]:
    """Look at the memory of a process and of those that it started, while the block runs.

    Args:
        pid: of the process; of a server, `Server.pid`.

    Raises:
        ProcessLookupError: there is no such process.
    """
    memory, ended, began = Memory(), threading.Event(), time.monotonic()

    def look() -> None:
        memory.seconds.append(time.monotonic() - began)
        memory.megabytes.append(_resident(pid) / MEGABYTE)

    def go_on_looking() -> None:
        while not ended.wait(SECONDS_BETWEEN):
            look()

    look()
    watcher = threading.Thread(target=go_on_looking, daemon=True)
    watcher.start()
    try:
        yield memory
    finally:
        ended.set()
        watcher.join()
        look()


def _resident(pid: int) -> int:
    """Bytes of the process and its children, in all."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if children.exists():
        pages = [_pages(each) for each in (pid, *map(int, children.read_text().split()))]
        return resource.getpagesize() * sum(pages)
    return _by_ps(pid)


def _pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except FileNotFoundError:  # it has ended in the meantime
        return 0


def _by_ps(pid: int) -> int:
    """Where there is no procfs, as on macOS."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, check=True).stdout
    rows = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = [kibibytes for process, parent, kibibytes in rows if pid in (process, parent)]
    if not found:
        raise ProcessLookupError(pid)
    return 1024 * sum(found)
