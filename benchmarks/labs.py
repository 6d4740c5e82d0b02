"""The figures of the learner's loop: from a save to the verdict, a cold check, memory, the gate."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.figure import Figure, proportional_memory, seconds
from shopfloor.databases import clone
from shopfloor.labs import Lab, all_labs
from shopfloor.services import Services
from shopfloor.stages import build

SAVES = 9

BARE_CHECKS = """
import sys
from pathlib import Path
from shopfloor.checks.judge import Task, judge

tests, stage, database_url, redis_url = sys.argv[1:]
told = []
judge(Task(Path(tests), Path(stage), database_url, redis_url), told.append)
results = [each["result"] for each in told if "result" in each]
sys.exit(not results or not all(result["passed"] for result in results))
"""


def lab_figures(root: Path, services: Services) -> list[Figure]:
    """Measure the learner's loop in a copy of the kit whose services run."""
    figures = []
    for lab in all_labs().values():
        figures += _check_figures(root, lab, services)
    figures.append(_gate(root))
    return figures


def _check_figures(root: Path, lab: Lab, services: Services) -> list[Figure]:
    answer = root / "workspace" / "shop" / lab.file
    with _watching(root, lab) as output:
        idle = proportional_memory(*psutil.Process().children())  # the watcher, and the services' watchdogs
        times = [_save(answer, f"{lab.solution.read_text()}\n# {number}\n", output) for number in range(SAVES)]
    warm = statistics.median(times)
    bare = _bare_checks(root, lab, services)
    cold = seconds(root, "-m", "shopfloor", "check", lab.address)
    return [
        Figure(
            f"{lab.address}: save to verdict, median", f"{warm:.2f} s", "at most 0.8 s", f"bare pytest: {bare:.2f} s"
        ),
        Figure(f"{lab.address}: the same against bare pytest", f"{warm / bare:.2f}", "at most 0.5"),
        Figure(f"{lab.address}: shopfloor check, cold", f"{cold:.1f} s", "at most 3 s"),
        Figure("memory of the idle watcher with its services", f"{idle / 2**20:.0f} MB", "at most 250 MB"),
    ]


@contextmanager
def _watching(root: Path, lab: Lab) -> Iterator[Path]:
    """Where a watcher of the copy writes, once it has answered a first save."""
    output = root / "watch.log"
    environment = os.environ | {"PYTHONPATH": str(root), "NO_COLOR": "1"}
    with output.open("wb") as stream:
        watcher = subprocess.Popen(
            [sys.executable, "-m", "shopfloor", "watch", lab.address],
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        _wait_for(output, "Save the file", 0)
        _save(root / "workspace" / "shop" / lab.file, lab.solution.read_text(), output)
        yield output
    finally:
        watcher.terminate()
        watcher.wait()


def _save(answer: Path, text: str, output: Path) -> float:
    """Write the learner's file and wait for the verdict on it; how long that took, in seconds."""
    before = output.read_text().count("checks hold")
    began = time.monotonic()
    answer.write_text(text)
    _wait_for(output, "checks hold", before)
    return time.monotonic() - began


def _wait_for(output: Path, words: str, already: int) -> None:
    deadline = time.monotonic() + 60
    while output.read_text().count(words) <= already:
        if time.monotonic() > deadline:
            sys.exit(f"The watcher never said {words!r}:\n{output.read_text()}")
        time.sleep(0.005)


def _bare_checks(root: Path, lab: Lab, services: Services) -> float:
    """The same checks of the same answer by pytest in a process that is started for them."""
    with clone(services, lab.data) as database:
        stage = build([lab.address]).path
        arguments = (str(lab.tests), str(stage), database.url, services.redis_url)
        return statistics.median(seconds(root, "-c", BARE_CHECKS, *arguments) for _ in range(5))


def _gate(root: Path) -> Figure:
    took = seconds(root, "-m", "shopfloor", "verify")
    return Figure("the gate of all labs, 20 runs", f"{took:.0f} s", "at most 180 s")
