"""Load: Locust's users against several servers in turn, and what its history says.

Locust runs as a process of its own: imported, it would patch the caller's sockets and hang a notebook's kernel.
Its users, the servers and the database share one machine, so the figures are for comparing, not for capacity.

Source: Locust's documentation, "Retrieve test statistics in CSV format".
"""

import csv
import html
import json
import math
import os
import statistics
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from shopfloor import figures
from shopfloor.errors import UserError
from shopfloor.measure import machine_is_busy
from shopfloor.services.process import log_tail, start_child
from shopfloor.stages import Server

WIDTH = 80

TOTALS = ("Total Request Count", "Total Failure Count")

WARM_UP_SECONDS = 1

GRACE_SECONDS = 30
"""How much longer than asked Locust may take before it is given up."""

# By default Locust's percentiles are those of the last ten seconds; here they are of the second of their time stamp.
# Time stamps are whole seconds, so what lies between two of them is as exact as rows are frequent.
LOCUST = """
import locust.stats
locust.stats.CSV_STATS_INTERVAL_SEC = 0.1
locust.stats.CURRENT_RESPONSE_TIME_PERCENTILE_WINDOW = 1
from locust.main import main
main()
"""


@dataclass(frozen=True)
class Second:
    """What one second of a run brought.

    Attributes:
        requests: answers that came, failures among them.
        failures: answers that were errors, and requests without an answer.
        p50: milliseconds within which half of its answers came; None when none came.
        p95: the same for 95 of 100.
    """

    requests: int
    failures: int
    p50: float | None
    p95: float | None


@dataclass(frozen=True)
class LoadResult:
    """What several servers did under the same users.

    Attributes:
        runs: each server's seconds, by its name, without the one to warm up.
        users: how many users asked at once.
        busy: whether something else kept the machine busy.
    """

    runs: Mapping[str, Sequence[Second]]
    users: int
    busy: bool

    @property
    def throughput(self) -> dict[str, float]:
        """Requests a second that succeeded, by server: the mean of its seconds."""
        return {name: statistics.fmean(_succeeded(run)) for name, run in self.runs.items()}

    @property
    def failures(self) -> dict[str, int]:
        """Requests that failed, by server."""
        return {name: sum(second.failures for second in run) for name, run in self.runs.items()}

    @property
    def p50(self) -> dict[str, float]:
        """Median latency in milliseconds, by server: that of its middle second."""
        return {name: _middle(second.p50 for second in run) for name, run in self.runs.items()}

    @property
    def p95(self) -> dict[str, float]:
        """Latency in milliseconds that 95 of 100 requests kept to, by server: that of its middle second."""
        return {name: _middle(second.p95 for second in run) for name, run in self.runs.items()}

    def ratio(self, one: str, other: str) -> float:
        """How many times the throughput of server `other` server `one` had."""
        return self.throughput[one] / self.throughput[other]

    def plot(self, caption: str | None = None) -> figures.Figure:
        """Throughput over seconds, and below it latency: a line for the median, a band up to the 95th percentile."""
        with figures.style():
            drawing, (above, below) = plt.subplots(2, sharex=True, figsize=(6.0, 4.6))
            for name, run in self.runs.items():
                seconds = range(1, len(run) + 1)
                above.plot(seconds, _succeeded(run), label=name)
                p50, p95 = [second.p50 for second in run], [second.p95 for second in run]
                (median,) = below.plot(seconds, _gaps(p50), label=name, marker="o", markersize=3)
                below.fill_between(seconds, _gaps(p50), _gaps(p95), color=median.get_color(), alpha=0.2)
            above.set_title("answers a second")
            above.set_ylim(bottom=0)
            below.set_title("milliseconds to an answer, median and 95th percentile")
            below.set_xlabel("seconds")
            below.margins(x=0)
            below.xaxis.get_major_locator().set_params(integer=True)
            _logarithmic(below)
            figures.label_lines(above)
            figures.label_lines(below)
            return figures.figure(drawing, alt=self._summary(), caption=caption)

    def _summary(self) -> str:
        lines = [
            f"{name}: {_shown(throughput)} requests a second, median {self.p50[name]:,.0f} ms, "
            f"95th percentile {self.p95[name]:,.0f} ms, {self.failures[name]:,} failed"
            for name, throughput in self.throughput.items()
        ]
        busy = " The machine was busy with something else." if self.busy else ""
        return f"{self.users} users at once. {'. '.join(lines)}.{busy}"

    def __repr__(self) -> str:
        return "\n".join(textwrap.wrap(self._summary(), WIDTH))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{column}</th>" for column in ("", "requests/s", "median", "p95", "failed"))
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{_shown(throughput)}</td><td>{self.p50[name]:,.0f} ms</td>"
            f"<td>{self.p95[name]:,.0f} ms</td><td>{self.failures[name]:,}</td></tr>"
            for name, throughput in self.throughput.items()
        )
        caption = f"{self.users} users at once" + ("; the machine was busy with something else" if self.busy else "")
        return (
            f'<table class="sf-table sf-load"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table>"
        )


def load(
    servers: Mapping[str, Server],
    locustfile: Path,
    *,
    users: int = 16,
    seconds: int = 8,
    data: object = None,
) -> LoadResult:
    """Let Locust's users ask each server in turn, as fast as they get answers, all of them from the first moment.

    Args:
        servers: what to ask, by the name that the figures show.
        locustfile: the users.
        users: how many ask at once.
        seconds: how long each server is measured, after a second to warm up.
        data: what the users need to know, for JSON; SHOPFLOOR_LOAD_DATA names the file that holds it.

    Raises:
        UserError: a server gave no answer that was a success; the message says what it gave instead.
    """
    busy = machine_is_busy()
    runs = {
        name: _run(name, server.url, locustfile, users=users, seconds=seconds, data=data)
        for name, server in servers.items()
    }
    return LoadResult(runs, users, busy)


def _run(name: str, url: str, locustfile: Path, *, users: int, seconds: int, data: object) -> list[Second]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "data.json").write_text(json.dumps(data))
        # One second more than is read: a run seldom begins with a whole one.
        duration = WARM_UP_SECONDS + seconds + 1
        command = [sys.executable, "-c", LOCUST, "--headless", "--only-summary", "--loglevel", "ERROR"]
        command += ["-f", str(locustfile.resolve()), "--host", url, "-u", str(users), "-r", str(users)]
        command += ["-t", f"{duration}s", "--stop-timeout", "0", "--csv", str(place / "run"), "--csv-full-history"]
        _finish(command, place, deadline=time.monotonic() + duration + GRACE_SECONDS)
        path = place / "run_stats_history.csv"
        history = _history(path)[WARM_UP_SECONDS:][:seconds] if path.exists() else []
        if sum(_succeeded(history)) == 0:
            raise UserError(f"The {name} server at {url} answered no request of {locustfile}.\n{_reasons(place)}")
        return history


def _finish(command: list[str], place: Path, deadline: float) -> None:
    """Run Locust to its end. Its exit code says only that some request failed, which the result says better."""
    # Neither Locust's settings in the environment or the home folder nor a proxy has a say.
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(place),
        "SHOPFLOOR_LOAD_DATA": str(place / "data.json"),
    }
    with start_child(command, log=place / "locust.log", env=environment, cwd=place) as locust:
        while locust.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)


def _history(path: Path) -> list[Second]:
    """The seconds of a run, from Locust's running totals, without its first, of which only a part was under load."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Name"] == "Aggregated"]
    last = {int(row["Timestamp"]): row for row in rows}
    history = []
    for before, now in pairwise(last):
        requests, failures = (int(last[now][name]) - int(last[before][name]) for name in TOTALS)
        # A machine with too much to do can make Locust miss a second.
        history += [Second(0, 0, None, None)] * (now - before - 1)
        history.append(Second(requests, failures, _milliseconds(last[now]["50%"]), _milliseconds(last[now]["95%"])))
    return history


def _reasons(place: Path) -> str:
    """What came instead of answers: the commonest failures, or what Locust itself said."""
    path = place / "run_failures.csv"
    failures = list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []
    failures.sort(key=lambda row: -int(row["Occurrences"]))
    if not failures:
        return log_tail(place / "locust.log")
    return "\n".join(f"    {row['Occurrences']} x {row['Name']}: {row['Error']}" for row in failures[:3])


def _milliseconds(field: str) -> float | None:
    return None if field == "N/A" else float(field)


def _succeeded(run: Sequence[Second]) -> list[int]:
    return [second.requests - second.failures for second in run]


def _shown(throughput: float) -> str:
    return f"{throughput:,.0f}" if throughput >= 10 else f"{throughput:.1f}"


def _middle(values: Iterable[float | None]) -> float:
    """The median of the seconds in which any answer came."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else math.nan


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _logarithmic(axes: Axes) -> None:
    """A logarithmic scale with ticks that read as numbers, few where it spans much."""
    low, high = axes.get_ylim()
    low = max(low, 0.5)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 50 else (1,)))
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:,g}")
    axes.yaxis.set_minor_locator(NullLocator())
