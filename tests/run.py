"""Run the test suite in its lanes: `python -m tests.run`, or with `--quick` only what takes no patience.

1. lint, because a type error is a failure like any other;
2. the book, built whole and alone, for it measures time;
3. everything in pytest, on all cores, against that book.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from tests.helpers import STATE, memory

ROOT = Path(__file__).resolve().parent.parent
ROOM = 6 * 2**30
BIN = Path(sys.executable).parent

LINT = (
    (str(BIN / "ruff"), "check", "--quiet", "."),
    (str(BIN / "ruff"), "format", "--check", "--quiet", "."),
    (str(BIN / "mypy"), "--no-error-summary"),
    ("env", "PYTHONPATH=labs", str(BIN / "lint-imports"), "--no-cache"),
)
BOOK = ((str(BIN / "shopfloor"), "book"),)
CORES = os.cpu_count() or 1
# One worker more than there are cores: many tests wait for processes.
WORKERS = ("-n", str(min(CORES + 1, 4)), "--dist", "loadgroup")
TESTS = (sys.executable, "-m", "pytest", "-q", "-p", "no:nbval", *WORKERS, "tests")


def run(name: str, commands: Sequence[Sequence[str]]) -> bool:
    """Run commands one after another until one fails; say how it ended and how long it took."""
    began = time.monotonic()
    print(f"\n== {name}", flush=True)
    with files_in_memory() if name == "tests" else nullcontext():
        passed = all(succeeds(command) for command in commands)
    print(f"== {name}: {'passed' if passed else 'FAILED'} ({time.monotonic() - began:.0f} s)", flush=True)
    return passed


@contextmanager
def files_in_memory() -> Iterator[None]:
    """Have the tests' servers keep their files in memory, where there is room.

    Tests make and remove half a million files. ext4 without a journal, as on some virtual machines, looks at each that
    was removed in the last minutes before it makes another: a quarter of the processor time went into that.
    """
    place = memory(ROOM)
    if place is None:
        yield
        return
    for left in place.glob("shopfloor-tests-*"):
        if left.stat().st_uid == os.geteuid() and not psutil.pid_exists(int(left.name.split("-")[2])):
            shutil.rmtree(left)
    with TemporaryDirectory(prefix=f"shopfloor-tests-{os.getpid()}-", dir=place) as folder:
        Path(folder).chmod(0o755)  # the servers may be another user's: see `shopfloor.services.place`
        os.environ[STATE] = folder
        yield


def succeeds(command: Sequence[str]) -> bool:
    """Run a command. When both are interrupted, it is given the time to end what it has started."""
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        return process.wait() == 0
    except KeyboardInterrupt:
        process.wait()
        raise


def main() -> int:
    """Run the lanes until one fails; the exit code is 0 when all of them passed."""
    # A shell without job control starts what it puts in the background deaf to interrupts, and its children inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "--quick" in sys.argv[1:]:
        lanes = {"lint": LINT, "quick tests": ((*TESTS, "-m", "not slow and not browser and not book"),)}
    else:
        lanes = {"lint": LINT, "book": BOOK, "tests": (TESTS,)}
    try:
        failed = next((name for name, commands in lanes.items() if not run(name, commands)), None)
    except KeyboardInterrupt:
        print("\nInterrupted.", flush=True)
        return 130
    # Those after it would only say again that there is no book to look at.
    print(f"\nFailed: {failed}; the lanes after it were not run." if failed else "\nEverything passed.", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
