"""Notices saves: by what the system tells, and by looking where it tells nothing.

Editors save in many ways: in place, by writing another file and renaming it, twice in a row. So an event only says
that it is time to look; what counts is how the files then differ from how they were. Looking takes a fraction of a
millisecond, and is done once a second in any case, so that a lost event is a late verdict and not a missing one.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import watchfiles
from watchfiles._rust_notify import RustNotify  # documented as the backend for uses of one's own

POLL_SECONDS = 0.2
LOOK_SECONDS = 1.0
PROBE_SECONDS = 2.0
SETTLE_SECONDS = 0.02
"""Between two looks that must agree: a file that is emptied and written anew is one save."""

SETTLE_LOOKS = 10

GONE_SECONDS = 0.3
"""How long a file must be missing; some editors rename it away before they write it again."""

FORCE_POLLING = "SHOPFLOOR_POLLING"
"""The environment variable that turns events off when it is set to anything."""

Signature = tuple[int, int, int]


@dataclass(frozen=True)
class Saved:
    """A file was saved; its path is relative to the folder."""

    name: str


@dataclass(frozen=True)
class Gone:
    """A file was deleted or renamed away."""

    name: str


class Saves:
    """Notices saves of Python files below a folder, in a thread, while the block runs.

    Args:
        folder: holds the files; it may be deleted and made again.
        tell: called in the thread with each `Saved` and `Gone`.
        polling: do not rely on events.
    """

    def __init__(self, folder: Path, tell: Callable[[Saved | Gone], None], *, polling: bool) -> None:
        self._folder = folder
        self._tell = tell
        self._polling = polling
        self._stop = threading.Event()
        self._seen = scan(folder)
        self._missing: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="saves", daemon=True)

    def __enter__(self) -> "Saves":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for _ in ticks(self._folder, self._stop, polling=self._polling):
            self._look()

    def _look(self) -> None:
        now = scan(self._folder)
        for _ in range(SETTLE_LOOKS):
            if now == self._seen:
                self._missing.clear()
                return
            time.sleep(SETTLE_SECONDS)
            before, now = now, scan(self._folder)
            if now == before:
                break
        for name, signature in now.items():
            self._missing.pop(name, None)
            if self._seen.get(name) != signature:
                self._seen[name] = signature
                self._tell(Saved(name))
        for name in self._seen.keys() - now.keys():
            since = self._missing.setdefault(name, time.monotonic())
            if time.monotonic() - since >= GONE_SECONDS:
                del self._seen[name], self._missing[name]
                self._tell(Gone(name))


def scan(folder: Path) -> dict[str, Signature]:
    """What tells one save of each Python file from another: its time, size and inode."""
    found = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            if not name.endswith(".py") or name.startswith("."):
                continue
            path = Path(place, name)
            try:
                facts = path.stat()
            except OSError:  # gone since, or an editor's lock that leads nowhere
                continue
            found[path.relative_to(folder).as_posix()] = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
    return found


def ticks(folder: Path, stop: threading.Event, *, polling: bool) -> Iterator[None]:
    """Yield when it is time to look, until `stop` is set."""
    while not stop.is_set():
        if not polling:
            try:
                yield from _events(folder, stop)
            except FileNotFoundError:  # until the folder is there again
                pass
            except (OSError, RuntimeError):  # the system's limit on watches is reached, or it has no events
                polling = True
        yield
        stop.wait(POLL_SECONDS)


def _events(folder: Path, stop: threading.Event) -> Iterator[None]:
    """Yield at each event and once a second, while the folder is the same one."""
    inode = folder.stat().st_ino
    changes = watchfiles.watch(
        folder,
        watch_filter=None,
        debounce=200,
        step=30,
        stop_event=stop,
        rust_timeout=int(LOOK_SECONDS * 1000),
        yield_on_timeout=True,
        raise_interrupt=False,
        force_polling=False,  # on WSL it would, wherever the folder is
    )
    for _ in changes:
        yield
        if folder.stat().st_ino != inode:
            return


def events_arrive(folder: Path) -> bool:
    """Whether the system tells of a change in `folder`: tried with a file that is made and removed again."""
    if os.environ.get(FORCE_POLLING):
        return False
    probe = folder / f"probe-{secrets.token_hex(4)}"
    try:
        with RustNotify([str(folder)], False, False, 0, False, False) as events:
            probe.touch()
            told = events.watch(10, 10, int(PROBE_SECONDS * 1000), None)
    except (OSError, RuntimeError):
        return False
    finally:
        probe.unlink(missing_ok=True)
    if told == "signal":  # it takes the interrupt for itself
        raise KeyboardInterrupt
    return isinstance(told, set)
